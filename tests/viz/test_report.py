"""Reports as data and as HTML: numbers come back, labels are text, bad input is refused."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, load_run, sweep, train
from ocr_interp.errors import ConfigError, UnknownNameError
from ocr_interp.graphs import CircuitGraph, Edge, Effect, Node, ablated_mechanism, mechanism_graph, removable
from ocr_interp.viz import build_report
from ocr_interp.viz.heatmaps import DisplayOrder
from ocr_interp.viz.report import training
from ocr_interp.viz.report.circuits import graph_data, grouped, union_of
from ocr_interp.viz.report.panels import MATRIX_BYTES, quantized, table_panel, thinned
from ocr_interp.viz.report.report import json_in_html
from ocr_interp.viz.text.predictions import run_verdict

TASK = FactRecallTask(4, 1, 2, n_noise=2, seq_len=5)
RECIPE = TrainConfig(steps=60, batch_size=24, lr=0.02, log_every=5, snapshots=6, device="cpu")
HOSTILE = "</script><img src=x onerror=alert(1)>"
RESULTS = Path(__file__).parents[2] / "analyses" / "results" / "llm"
LANGUAGE = RESULTS / "city_language--full--adamw--lr0.0001--batch8--seed0.json"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported")
    for name, ov in (("two_factors", "factorized"), ("one_matrix", "non_factorized")):
        train(TASK, ModelConfig(ov=ov), RECIPE, folder / name, progress=False)
    return folder


@pytest.fixture(scope="module")
def run(runs):
    return load_run(runs / "two_factors")


@pytest.fixture(scope="module")
def report(run):
    return build_report(run)


class Tags(HTMLParser):
    """Names of all elements, and the attributes that could ask for something."""

    def __init__(self, text):
        super().__init__()
        self.names, self.asking = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.asking += [
            (tag, key, value) for key, value in attrs if key in ("src", "href", "action", "onerror")
        ]


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def panel(report, kind, section=0):
    return next(panel for panel in report.sections[section].panels if panel.kind == kind)


# --- numbers -------------------------------------------------------------------------------------


def test_a_heat_map_comes_back_within_its_levels(run, report):
    data = panel(report, "heatmap").data
    levels = np.frombuffer(base64.b64decode(data["values"]), dtype=np.int8)
    shape = (len(data["worth"]), len(data["rows"]), len(data["columns"]))
    order = DisplayOrder.of(TASK).rows
    steps = sorted({*run.snapshot_steps, run.step})
    for read, worth, step in zip(levels.reshape(shape), data["worth"], steps, strict=True):
        model = run if step == run.step else run.at(step)
        W = model.circuit.subjects_and_relations.W[order].T
        assert np.abs(read / data["levels"] * worth - W).max() <= worth / (2 * data["levels"]) * 1.001
    assert "255 levels" in panel(report, "heatmap").text


def test_quantized_zero_is_zero():
    text, worth = quantized([np.zeros((2, 3))])
    assert base64.b64decode(text) == bytes(6)
    assert worth == [0.0]


def test_thinned_rows_hold_the_first_the_last_and_those_to_keep():
    rows = thinned(100_000, 300, keep=[777])
    assert len(rows) <= 301
    assert {0, 777, 99_999} <= set(rows.tolist())
    assert (np.diff(rows) > 0).all()
    assert thinned(5, 300).tolist() == [0, 1, 2, 3, 4]


def test_a_table_says_what_it_leaves_out():
    made = table_panel("t", pd.DataFrame({"x": np.arange(900) / 7, "name": "a"}), "", "t.csv", most=100)
    assert "of 900 rows are shown" in made.text
    assert made.data["cells"][0][:2] == [0.0, 0.14286]
    assert [column["numeric"] for column in made.data["columns"]] == [True, False]


def test_diagrams_by_step_have_the_contributions_of_their_graphs(run, report):
    data = panel(report, "circuit").data
    assert data["by_step"]
    last = mechanism_graph(run, max_subjects=6)
    assert len(data["variants"]) == len(run.snapshot_steps)
    labels = [node["name"] for node in data["nodes"]]
    for edge, value in zip(data["edges"], data["variants"][-1]["edges"], strict=True):
        ends = labels[edge["source"]], labels[edge["target"]]
        wanted = [
            e.contribution
            for e in last.edges
            if (last.node(e.source).label.replace("\n", " "), last.node(e.target).label.replace("\n", " "))
            == ends
        ]
        assert any(value == pytest.approx(w, rel=1e-4, abs=1e-8) for w in wanted)


def test_the_geometry_is_that_of_the_pair_and_of_the_predictions(report):
    data = panel(report, "geometry").data
    assert [one["name"] for one in data["predicted"]] == [
        "saddle, where a small start goes",
        "OV-SVM (nuclear) max-margin solution, frozen attention",
    ]
    assert data["pairs"] == [f"b{pair}, c{pair}" for pair in range(len(data["pairs"]))]
    for one in data["predicted"]:
        assert len(one["pairs"]) == len(data["pairs"])
        assert all(pair["shown"] == pytest.approx(1, abs=1e-4) for pair in one["pairs"])
    first, last = data["measured"][0], data["measured"][-1]
    assert all(b["cosines"]["fact"] > a["cosines"]["fact"] for a, b in zip(first, last, strict=True))
    assert len({str(pair["points"]) for pair in last}) == len(data["pairs"]), "each pair has its own"


def test_a_page_holds_as_many_pairs_as_it_has_room_for(run, monkeypatch):
    monkeypatch.setattr(training, "MOST_GEOMETRIES", 2 * len(run.snapshot_steps))
    section = training.run_section("run", run)
    found = next(panel for panel in section.panels if panel.kind == "geometry")
    assert found.data["pairs"] == ["b0, c0", "b1, c1"]
    assert {len(pairs) for pairs in found.data["measured"]} == {2}
    assert f"The first 2 of {TASK.n_pairs} pairs can be chosen" in found.text


def test_the_verdict_and_the_lines_are_of_the_attention_that_the_run_has(run):
    frozen = train(
        FactRecallTask(4, 1, 2, n_noise=2, seq_len=5),
        ModelConfig(d_head=8, train_attention=False),
        TrainConfig(steps=30, batch_size=24, lr=0.02, device="cpu"),
        progress=False,
    )
    for one, lines in ((run, 3), (frozen, 2)):
        section = training.run_section("run", one)
        (chart,) = next(p for p in section.panels if p.title.startswith("β")).data["charts"]
        assert len(chart["lines"]) == lines
        assert chart["lines"][0]["y"] == pytest.approx(one.saddle.beta)
        assert chart["series"][0]["x"][0] > 0, "β of random weights is no result"
        assert f"where a small start goes, {one.saddle.beta:.3g}" in section.verdict
    ratio = run.task.m_train / run.task.m_test
    section = training.run_section("run", run)
    (chart,) = next(p for p in section.panels if p.title.startswith("β")).data["charts"]
    ends = [line["y"] for line in chart["lines"][1:]]
    assert ends[1] == pytest.approx(ratio ** (2 / 3))
    assert ends[0] == pytest.approx(2 * ends[1] / (1 + ends[1]))


def test_a_control_has_a_verdict_without_a_beta():
    control = train(
        FactRecallTask(4, 0, 2, n_noise=2, seq_len=5),
        ModelConfig(d_head=8),
        TrainConfig(steps=10, batch_size=24, device="cpu"),
        progress=False,
    )
    said = run_verdict(control)
    assert "never told" in said
    assert "β" not in said


@pytest.mark.parametrize("attention", ["linear", "softmax"])
def test_a_mechanism_without_parts_is_that_of_the_changed_weights(attention):
    recipe = TrainConfig(steps=30, batch_size=24, lr=0.02, device="cpu")
    run = train(TASK, ModelConfig(d_head=8, attention=attention), recipe, progress=False)
    parts = removable(run)
    assert ("attention to EOS" in parts) is (attention == "linear")
    whole, cut = mechanism_graph(run), ablated_mechanism(run, ["attention to r2"])
    assert cut.through("token r2") == pytest.approx(0, abs=1e-12)
    if attention == "linear":  # what is left keeps its share: contributions are those of the whole
        for edge in cut.edges:
            wanted = (
                0.0
                if "r2" in edge.source + edge.target
                else whole.edge(edge.source, edge.target).contribution
            )
            assert edge.contribution == pytest.approx(wanted, abs=1e-9)
    lost = ablated_mechanism(run, ["held-out subjects → implications"])
    own = "held-out subjects → own implication"
    assert lost.through(own) == pytest.approx(0, abs=1e-12)
    assert abs(whole.through(own)) > 1e-3
    with pytest.raises(UnknownNameError, match="did you mean 'attention to r1'"):
        ablated_mechanism(run, ["attention to r11"])


def test_all_combinations_of_switches_are_there(report):
    data = next(one for one in report.sections[0].panels if one.title == "Ablations").data
    assert len(data["variants"]) == 2 ** len(data["toggles"])
    mask = 1 << data["toggles"].index("attention to r1")
    node = next(k for k, one in enumerate(data["nodes"]) if one["name"] == "r1")
    assert data["variants"][mask]["through"][node] == 0
    assert data["variants"][0]["through"][node] != 0


# --- what is shown of what -----------------------------------------------------------------------


def test_several_runs_are_compared_first(runs):
    both = build_report({name: load_run(runs / name) for name in ("two_factors", "one_matrix")})
    assert [section.title for section in both.sections] == ["Comparison", "two_factors", "one_matrix"]
    chart = both.sections[0].panels[0].data["charts"][0]
    assert [series["name"] for series in chart["series"]] == ["two_factors", "one_matrix"]


def test_a_sweep_has_curves_points_and_a_table():
    result = sweep({"lr": [0.01, 0.02], "seed": [0, 1]}, task=TASK, train=RECIPE, progress=False)
    section = build_report({"rates": result}).sections[0]
    assert [panel.kind for panel in section.panels] == ["curves", "curves", "table"]
    assert section.panels[1].data["charts"][0]["series"][0]["x"] == [0.01, 0.01, 0.02, 0.02]


@pytest.mark.skipif(not LANGUAGE.exists(), reason="the repository's results of language models are not here")
def test_a_language_model_run_is_shown_from_its_result():
    result = json.loads(LANGUAGE.read_text())
    section = build_report({"names": result}).sections[0]
    ranks = section.panels[0].data["charts"][0]
    assert ranks["lines"] == [{"name": "a guess", "y": 2.0}]
    assert [one["name"] for one in ranks["series"]][-1] == "held-out implication"
    table = next(panel for panel in section.panels if panel.title == "Before and after").data
    held_out = table["cells"][0].index("held-out implication")
    assert (
        table["cells"][4][held_out]
        == pytest.approx(
            np.mean(
                [r for r, s in zip(result["after"]["rank"], result["after"]["split"], strict=True) if s == 3]
            ),
            rel=1e-4,
        )
        if table["columns"][4]["name"] == "rank after"
        else True
    )
    with pytest.raises(ConfigError, match="damaged"):
        build_report({"names": {**result, "before": {}}})
    with pytest.raises(ConfigError, match="got none of after"):
        build_report({"names": {key: value for key, value in result.items() if key != "after"}})


def test_routed_prompts_have_no_circuit_without_an_expert():
    options = {"by": "sequence"}
    run = train(TASK, ModelConfig(ov="routed", ov_options=options), RECIPE, progress=False)
    section = build_report(run).sections[0]
    assert "heatmap" not in [panel.kind for panel in section.panels]
    assert "--expert 0" in section.notes[0]
    assert "heatmap" in [panel.kind for panel in build_report(run, expert=1).sections[0].panels]


def test_what_cannot_be_shown_is_said(mapped_task):
    recipe = TrainConfig(steps=9, batch_size=3, snapshots=0, device="cpu")
    section = build_report(train(mapped_task, ModelConfig(d_head=8), recipe, progress=False)).sections[0]
    assert any("geometry of a pair is left out" in note for note in section.notes)
    assert any("snapshots=20" in note for note in section.notes)


def test_a_long_run_has_room_for_few_matrices(run, monkeypatch):
    monkeypatch.setattr(
        "ocr_interp.viz.report.training.MATRIX_BYTES", 3 * TASK.n_answers * (TASK.n_subjects + 2)
    )
    section = build_report(run).sections[0]
    assert len(section.steps) == 3
    assert (section.steps[0], section.steps[-1]) == (0, 60)
    assert "snapshots are left out" in section.notes[0]
    assert MATRIX_BYTES * 4 / 3 < 2.1e6


# --- graphs over each other ----------------------------------------------------------------------


def graph(names, value, title="t"):
    nodes = (*(Node(name, "token", name) for name in names), Node("c", "answer", "c"))
    edges = tuple(Edge(name, "c", value) for name in names)
    return CircuitGraph(title, nodes, edges, (Effect("c", value * len(names)),), "s", "m", "f")


def test_graphs_of_the_same_nodes_are_drawn_over_each_other():
    first, second, other = graph("ab", 1.0), graph("abd", 2.0), graph("xyz", 1.0)
    assert [list(group) for group in grouped({"1": first, "2": second, "3": other})] == [["1", "2"], ["3"]]
    data = graph_data({"1": first, "2": second})
    assert data["variants"][0]["edges"] == [1.0, 1.0, 0.0]
    assert data["variants"][1]["edges"] == [2.0, 2.0, 2.0]
    assert build_report({"1": first, "2": second, "3": other}).sections[1].title == "t"


def test_a_node_of_two_kinds_is_refused():
    nodes = (Node("a", "source", "a"), Node("c", "answer", "c"))
    other = CircuitGraph("t", nodes, (Edge("a", "c", 1.0),), (Effect("c", 1.0),), "s", "m", "f")
    with pytest.raises(ConfigError, match="must agree on their nodes"):
        union_of([graph("a", 1.0), other])
    assert len(grouped({"1": graph("a", 1.0), "2": other})) == 2


# --- the page ------------------------------------------------------------------------------------


def test_labels_of_others_are_text(run):
    nodes = (Node("a", "token", HOSTILE, (HOSTILE,)), Node("b", "answer", "\u202e\x00\u2028--><!--"))
    bad = CircuitGraph(HOSTILE, nodes, (Edge("a", "b", 1.0),), (Effect("b", 1.0),), HOSTILE, HOSTILE, "f")
    page = build_report({HOSTILE: bad, "run": run}, title=HOSTILE).html
    tags = Tags(page)
    assert "img" not in tags.names
    assert tags.names.count("script") == 2
    assert page.count("</script>") == 2
    assert "\x00" not in page
    assert "\u202e" not in page
    assert data_of(page)["panels"][-1]["nodes"][0]["name"] == HOSTILE


def test_json_in_a_page_ends_no_element_and_comes_back():
    data = {"text": "</script><!-- & \u2028\u2029 é"}
    text = json_in_html(data)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == data


def test_a_page_asks_for_nothing_and_allows_only_its_own_script(report):
    page = report.html
    asking = Tags(page).asking
    assert {value for _, _, value in asking} == {"#content", "data:,"}
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; ")
    script = page[page.rindex("<script>") + 8 : page.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "http" not in script.replace("http://www.w3.org/2000/svg", "")


def test_the_same_results_make_the_same_page(run, report):
    assert build_report(run).html == report.html


def test_pages_replace_reports_and_nothing_else(report, tmp_path):
    page = report
    target = page.save(tmp_path / "new" / "page.html")
    assert page.save(target) == target
    (tmp_path / "own.html").write_text("<p>mine</p>")
    with pytest.raises(ConfigError, match="is no report: choose another name"):
        page.save(tmp_path / "own.html")
    assert (tmp_path / "own.html").read_text() == "<p>mine</p>"
    for name in ("page.txt", "page"):
        with pytest.raises(ConfigError, match=r"must end in \.html"):
            page.save(tmp_path / name)
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ConfigError, match="must be a file"):
        page.save(tmp_path / "folder.html")


def test_what_is_no_result_is_refused(run):
    with pytest.raises(ConfigError, match="at least one result, got none"):
        build_report({})
    with pytest.raises(Exception, match="int"):  # the type checker of the tests, or the package itself
        build_report({"a": 3})
