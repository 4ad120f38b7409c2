"""ocr-interp report: every kind of path, and what is none of them."""

import json
from pathlib import Path

import pytest

from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, sweep, train
from ocr_interp.graphs import mechanism_graph

TASK = FactRecallTask(3, 1, 2, n_noise=1, seq_len=4)
RECIPE = TrainConfig(steps=6, batch_size=12, log_every=2, snapshots=2, device="cpu")
LANGUAGE = sorted((Path(__file__).parents[1] / "analyses" / "results" / "llm").glob("*.json"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("paths")
    run = train(TASK, ModelConfig(d_head=4), RECIPE, place / "run", progress=False)
    sweep({"seed": [0, 1]}, task=TASK, train=RECIPE, path=place / "sweep", progress=False)
    (place / "graph.json").write_text(mechanism_graph(run).to_json())
    (place / "before.json").write_text(mechanism_graph(run.at(0)).to_json())
    (place / "other.json").write_text('{"a": 1}')
    (place / "broken.json").write_text("{")
    (place / "table.csv").write_text("a,b\n1,2\n")
    (place / "empty").mkdir()
    return place


@pytest.mark.slow
@pytest.mark.parametrize(
    ("paths", "titles"),
    [
        (["run"], "run"),
        (["sweep"], "sweep"),
        (["before.json", "graph.json"], "before, graph"),
        (["run", "sweep", "graph.json"], "run, sweep, graph"),
    ],
)
def test_every_kind_of_path_becomes_a_page(paths, titles, folder, command, tmp_path):
    code, out, err = command("report", *(str(folder / path) for path in paths), "-o", "new/page.html")
    assert (code, err) == (0, "")
    assert out.startswith("new/page.html (0.")
    assert f"<title>{titles}</title>" in (tmp_path / "new" / "page.html").read_text()


@pytest.mark.slow
def test_a_study_becomes_a_page(folder, command, tmp_path):
    command("ablate", str(folder / "run"), "--zero", "v@r1", "-o", "study.csv")
    assert command("report", "study.csv")[0] == 0
    page = (tmp_path / "report.html").read_text()
    assert "share of prompts whose right answer beats" in page
    rows = (tmp_path / "study.csv").read_text().splitlines()
    (tmp_path / "study.csv").write_text("\n".join([*rows[:-1], rows[-1].replace("0.", "1.", 1)]) + "\n")
    code, _, err = command("report", "study.csv")
    assert (code, "was changed after it was written" in err) == (2, True)


@pytest.mark.skipif(not LANGUAGE, reason="the repository's results of language models are not here")
def test_a_language_model_result_becomes_a_page_and_an_edited_one_does_not(command, tmp_path):
    assert command("report", str(LANGUAGE[0]))[0] == 0
    edited = json.loads(LANGUAGE[0].read_text())
    edited["config"]["train"]["lr"] = 1.0
    (tmp_path / "edited.json").write_text(json.dumps(edited))
    code, _, err = command("report", "edited.json", "-o", "b.html")
    assert (code, (tmp_path / "b.html").exists()) == (2, False)
    assert "changed after it was written" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "report needs at least one path"),
        (("{folder}/missing",), "is no run directory"),
        (("{folder}",), "it holds the runs"),
        (("{folder}/empty",), "is no run directory"),
        (("{folder}/other.json",), "JSON of another kind"),
        (("{folder}/broken.json",), "is damaged or no JSON"),
        (("{folder}/table.csv",), "must begin with the columns"),
        (("{folder}/missing.csv",), "is missing"),
        (("{folder}/run", "{folder}/run"), "once, got one twice"),
        (("{folder}/run", "-o", "page.txt"), "must end in .html"),
        (("{folder}/run", "--expert", "0"), "only routed experts have an expert"),
    ],
)
def test_what_is_no_result_is_refused_and_nothing_is_written(words, said, folder, command, tmp_path):
    code, out, err = command("report", *(word.format(folder=folder) for word in words))
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
