"""Diagrams: the same to the byte in every process, every label inside its box, bad input."""

import hashlib
import subprocess
import sys
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch

from ocr_interp.comparison.graphs import compare_graphs
from ocr_interp.errors import ConfigError
from ocr_interp.graphs.graph import CircuitGraph, Edge, Effect, Node
from ocr_interp.viz.diagram.dot import missing_blocks, to_dot, untold_nodes
from ocr_interp.viz.diagram.drawing import draw_circuit, plot_circuit
from ocr_interp.viz.diagram.saving import save_diagram
from ocr_interp.viz.style import HELD_OUT, save_figure

sys.path.insert(0, str(Path(__file__).parents[1] / "circuits"))

from snapshots import predicted, random_snapshot

from ocr_interp.graphs.building import prompt_graph
from ocr_interp.graphs.mechanism_graph import mechanism_graph
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import solve

TASK = FactRecallTask(3, 1, 2, n_noise=1, seq_len=4)
UNTOLD = "held-out subjects → own implication"


def both_models(task):
    return [mechanism_graph(predicted(task, solve(task, n).W)) for n in ("nuclear", "frobenius")]


def test_the_missing_edge_is_dashed_in_one_model_only():
    ours, theirs = both_models(TASK)
    assert missing_blocks(ours) == set()
    assert missing_blocks(theirs) == {UNTOLD}
    assert "dashed" not in to_dot(ours)
    assert to_dot(theirs).count("dashed") == 2
    drawn = [text.get_text() for axes in draw_circuit([ours, theirs]).axes for text in axes.texts]
    assert sum("missing\n" in f"{text}\n" and "own implication" in text for text in drawn) == 1
    assert sum(text == "never trained" for text in drawn) == 1
    assert sum(text.startswith("never trained and missing") for text in drawn) == 1


@pytest.mark.slow
def test_an_untold_answer_without_its_untold_part_is_drawn_as_missing():
    ours, theirs = both_models(TASK)
    texts = [[text.get_text() for text in draw_circuit(each).axes[0].texts] for each in (ours, theirs)]
    answers = [[text for text in each if text.startswith("own implication of\nheld-out")] for each in texts]
    assert "missing" not in answers[0][0]
    told = sum(e.contribution for e in theirs.edges if e.target.endswith("held_out_implication"))
    assert answers[1][0].splitlines()[-1] == f"missing; told {told:+.2f}".replace("-", "−")
    boxes = [p for p in draw_circuit(theirs).axes[0].patches if isinstance(p, FancyBboxPatch)]
    red = [p for p in boxes if to_hex(p.get_edgecolor()) == HELD_OUT]
    assert [to_hex(p.get_facecolor()) for p in red] == ["#ffffff"] * 2, "the part and the answer"


def test_graphs_that_are_compared_share_a_scale_and_may_leave_the_note_out():
    graph = both_models(TASK)[0]
    largest = max(abs(edge.contribution) for edge in graph.edges)
    alone, half, bare = (
        plot_circuit(Figure(figsize=(7, 5)).add_axes((0, 0, 1, 1)), graph, **more)
        for more in ({}, {"largest": 2 * largest}, {"note": False})
    )
    widths = [max(p.get_linewidth() for p in ax.patches if isinstance(p, PathPatch)) for ax in (alone, half)]
    assert widths[1] == pytest.approx(widths[0] / 2)
    assert len(bare.texts) == len(alone.texts) - 1
    assert not any(graph.source in text.get_text() for text in bare.texts)
    with pytest.raises(ConfigError, match="largest must be a finite number > 0, got 0"):
        plot_circuit(Figure().subplots(), graph, largest=0)


def test_diagrams_are_no_wider_than_a_page_and_several_stand_below_each_other_where_they_would_be():
    from ocr_interp.viz.diagram.layout import FONT_SIZE, WIDTH

    graphs = both_models(TASK)
    one, two = draw_circuit(graphs[0]), draw_circuit(graphs)
    assert one.get_figwidth() * 72 <= WIDTH + 1e-6
    assert {text.get_fontsize() for text in one.axes[0].texts[: len(graphs[0].nodes)]} == {FONT_SIZE}
    assert two.get_figwidth() * 72 <= WIDTH + 1e-6
    first, second = (axes.get_position() for axes in two.axes)
    assert first.x0 == second.x0
    assert first.y0 == pytest.approx(second.y1)
    small = CircuitGraph(
        "t",
        (Node("t", "token", "t"), Node("y", "answer", "y")),
        (Edge("t", "y", 1.0),),
        *((Effect("y", 1.0),), "", "", ""),
    )
    first, second = (axes.get_position() for axes in draw_circuit([small, small]).axes)
    assert first.y0 == second.y0
    assert first.x1 == pytest.approx(second.x0)


def test_edges_at_a_box_stand_side_by_side_and_cross_as_little_as_their_other_ends():
    from ocr_interp.viz.diagram.edges import edge_ends
    from ocr_interp.viz.diagram.layout import lay_out
    from ocr_interp.viz.diagram.node_values import node_values

    graph = both_models(TASK)[0]
    layout = lay_out(graph, node_values(graph))
    ends = edge_ends(graph, layout)
    answer = "answer held_out_implication"
    into = [k for k, edge in enumerate(graph.edges) if edge.target == answer]
    into.sort(key=lambda k: -layout.of(graph.edges[k].source).y)
    heights = [ends[k][1][1] for k in into]
    assert len(set(heights)) == len(into) == 5
    assert heights == sorted(heights, reverse=True), "from top to bottom like their sources"
    box = layout.of(answer)
    assert all(box.y - box.height / 2 < y < box.y + box.height / 2 for y in heights)
    tokens = [n for n in layout.nodes if n.kind == "token"]
    seen = [n for n in layout.nodes if n.kind == "attention"]
    assert [n.y for n in tokens] == [n.y for n in seen], "what attends stands beside its token"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "most"), [((5, 1, 0), 6), ((2, 1, 1), 6), ((5, 1, 3), 6), ((20, 1, 3), 6), ((20, 1, 3), 80)]
)
def test_labels_stay_inside_their_boxes_and_the_page(sizes, most):
    task = FactRecallTask(*sizes)
    graphs = [mechanism_graph(random_snapshot(task), max_subjects=most)]
    graphs.append(prompt_graph(random_snapshot(task), ["noise0"] * 13 + ["s0", "r2", "EOS"], "c0", "c1"))
    for graph in graphs:
        figure = draw_circuit(graph)
        figure.canvas.draw()
        renderer = figure.canvas.get_renderer()  # pyright: ignore[reportAttributeAccessIssue]
        page = figure.bbox
        axes = figure.axes[0]
        boxes = [p.get_window_extent(renderer) for p in axes.patches if hasattr(p, "get_boxstyle")]
        assert len(boxes) == len(graph.nodes)
        texts = [text.get_window_extent(renderer) for text in axes.texts]
        for text in texts:
            assert page.x0 <= text.x0
            assert text.x1 <= page.x1
            assert page.y0 <= text.y0
            assert text.y1 <= page.y1
        for box, text in zip(boxes, texts, strict=False):
            assert box.x0 < text.x0 < text.x1 < box.x1
            assert box.y0 < text.y0 < text.y1 < box.y1
        corners = np.array([[b.x0, b.y0, b.x1, b.y1] for b in boxes])
        for k, (x0, y0, x1, y1) in enumerate(corners):
            rest = np.delete(corners, k, axis=0)
            apart = (rest[:, 0] >= x1) | (rest[:, 2] <= x0) | (rest[:, 1] >= y1) | (rest[:, 3] <= y0)
            assert apart.all()


def test_a_block_that_told_edges_reach_too_is_not_called_untold():
    nodes = (
        Node("t", "token", "t"),
        Node("u", "token", "u"),
        Node("b", "ov_block", "b"),
        Node("y", "answer", "y"),
    )
    edges = (Edge("t", "b", 1.0), Edge("u", "b", -1.0, "untold"), Edge("b", "y", 0.0))
    graph = CircuitGraph("g", nodes, edges, (Effect("y", 0.0),), "s", "m", "f")
    assert untold_nodes(graph) == missing_blocks(graph) == set()
    alone = CircuitGraph("g", nodes, (edges[1], Edge("b", "y", -1.0)), (Effect("y", -1.0),), "s", "m", "f")
    assert untold_nodes(alone) == {"b"}


def test_a_small_part_of_an_untold_effect_that_is_there_is_not_called_missing():
    kinds = {"t": "token", "a": "ov_block", "b": "ov_block", "y": "answer"}
    nodes = tuple(Node(name, kind, name) for name, kind in kinds.items())

    def graph(large: float, small: float) -> CircuitGraph:
        values = {"a": large, "b": small}
        edges = [Edge("t", name, value, "untold") for name, value in values.items()]
        edges += [Edge(name, "y", value, "untold") for name, value in values.items()]
        return CircuitGraph("g", nodes, tuple(edges), (Effect("y", large + small),), "s", "m", "f")

    assert missing_blocks(graph(1.0, -0.05)) == set()
    assert missing_blocks(graph(1.0, -1.0)) == set(), "both are there, and cancel"
    told = Edge("t", "c", 30.0), Edge("c", "z", 30.0)
    whole = graph(1.0, -0.05)
    more = (*whole.nodes, Node("c", "ov_block", "c"), Node("z", "answer", "z"))
    effects = (*whole.effects, Effect("z", 30.0))
    assert missing_blocks(CircuitGraph("g", more, (*whole.edges, *told), effects, "s", "m", "f")) == {
        "a",
        "b",
    }


def test_long_labels_are_wrapped_and_kept_whole():
    long = "Ġan_extraordinarily_long_token_of_a_language_model_with_no_space " + "and some words " * 4
    nodes = (Node("t", "token", long), Node("h", "attention", "h"), Node("y", "answer", long))
    graph = CircuitGraph(
        "a title", nodes, (Edge("t", "h", 2.0), Edge("h", "y", 2.0)), (Effect("y", 2.0),), "s", "m", "f"
    )
    figure = draw_circuit(graph)
    shown = figure.axes[0].texts[0].get_text()
    assert max(map(len, shown.split("\n"))) <= 32
    assert "".join(shown.split()).startswith("".join(long.split()))
    assert figure.get_size_inches()[0] < 8


@pytest.mark.slow
def test_files_are_the_same_to_the_byte_in_every_process(tmp_path):
    graphs = both_models(TASK)
    source = tmp_path / "graphs"
    source.mkdir()
    for k, graph in enumerate(graphs):
        (source / f"{k}.json").write_text(graph.to_json(), encoding="utf-8")
    script = (
        "import sys; from pathlib import Path\n"
        "from ocr_interp.graphs.graph import CircuitGraph\n"
        "from ocr_interp.viz.diagram.saving import save_diagram\n"
        "texts = [p.read_text(encoding='utf-8') for p in sorted(Path(sys.argv[1]).glob('*.json'))]\n"
        "graphs = [CircuitGraph.from_json(t) for t in texts]\n"
        "for kind in ('png', 'svg', 'pdf'): save_diagram(graphs, Path(sys.argv[2]) / f'd.{kind}')\n"
        "save_diagram(graphs[0], Path(sys.argv[2]) / 'd.dot')\n"
        "print('torch' in sys.modules)\n"
    )
    other = tmp_path / "other"
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", script, str(source), str(other)]
    environment = {"PYTHONPATH": root, "PYTHONHASHSEED": "17", "SOURCE_DATE_EPOCH": "", "PATH": ""}
    del environment["SOURCE_DATE_EPOCH"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "False\n", "drawing a stored graph needs no torch"
    for kind in ("png", "svg", "pdf"):
        save_diagram(graphs, tmp_path / f"d.{kind}")
    save_diagram(graphs[0], tmp_path / "d.dot")
    for kind in ("png", "svg", "pdf", "dot"):
        here, there = ((folder / f"d.{kind}").read_bytes() for folder in (tmp_path, other))
        assert len(here) > 500
        assert hashlib.sha256(here).digest() == hashlib.sha256(there).digest(), kind


def test_labels_are_no_formulas_and_quotes_survive_dot():
    nodes = (Node("t", "token", 'a$b$ "q" \\ x_1'), Node("h", "attention", "h"), Node("y", "answer", "$y"))
    graph = CircuitGraph(
        "$", nodes, (Edge("t", "h", -0.004), Edge("h", "y", -0.004)), (Effect("y", -0.004),), "s", "m", "f"
    )
    figure = draw_circuit(graph)
    figure.canvas.draw()
    assert any("−0.00400" in text.get_text() for text in figure.axes[0].texts)
    assert 'label="a$b$ \\"q\\" \\\\ x_1\\n-0.004"' in to_dot(graph)


@pytest.mark.slow
@pytest.mark.parametrize("label", ["bell \x07", "\x00", "a\x1b[31m", "\x9c", "\uffff", "-->\x08"])
def test_control_characters_of_labels_are_written_out(label, tmp_path):
    nodes = (Node("t", "token", label), Node("h", "attention", "h"), Node("y", "answer", "y"))
    graph = CircuitGraph(
        f"of {label}", nodes, (Edge("t", "h", 1.0), Edge("h", "y", 1.0)), (Effect("y", 1.0),), "s", "m", "f"
    )
    svg = save_diagram(graph, tmp_path / "x.svg").read_bytes()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    written_out = ascii(label[-1] if label[-1] != "m" else "\x1b")[1:-1]
    assert any(written_out in text.get_text() for text in draw_circuit(graph).axes[0].texts)
    dot = save_diagram(graph, tmp_path / "x.dot").read_text(encoding="utf-8")
    assert written_out.replace("\\", "\\\\") in dot
    for kind in ("png", "pdf"):
        save_diagram(graph, tmp_path / f"x.{kind}")


def test_control_characters_in_a_figure_of_numbers(tmp_path):
    figure = Figure()
    figure.add_subplot().set_title("bell \x07 and -- ", parse_math=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no font has a glyph for it
        save_figure(figure, tmp_path / "x", {})
    assert ElementTree.parse(tmp_path / "x.svg").getroot().tag.endswith("svg")


def test_a_graph_as_json_is_read_again_with_all_its_digits(tmp_path):
    graph = both_models(TASK)[1]
    path = save_diagram(graph, tmp_path / "new" / "d.json")
    assert path.read_text() == graph.to_json()
    assert CircuitGraph.from_json(save_diagram([graph], path).read_text()) == graph


def test_bad_diagrams_are_refused(tmp_path):
    graphs = both_models(TASK)
    with pytest.raises(ConfigError, match=r"must end in one of png, svg, pdf, dot, json, got 'd\.gif'"):
        save_diagram(graphs, tmp_path / "d.gif")
    with pytest.raises(ConfigError, match="one graph, got 2"):
        save_diagram(graphs, tmp_path / "d.dot")
    with pytest.raises(ConfigError, match=r"a \.json file holds one graph, got 2"):
        save_diagram(graphs, tmp_path / "d.json")
    with pytest.raises(ConfigError, match=r"a \.json file holds one graph, got 2"):
        save_diagram(compare_graphs(*graphs), tmp_path / "d.json")
    with pytest.raises(ConfigError, match="at least one graph"):
        draw_circuit([])
