"""analyze, ablate and diagram: the numbers are the library's, and bad input writes nothing."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ocr_interp import ModelConfig, OVCircuit, TrainConfig, load_run, train
from ocr_interp.graphs import CircuitGraph, mechanism_graph
from ocr_interp.graphs.building import prompt_graph
from ocr_interp.task import SPLITS

RECIPE = TrainConfig(steps=60, batch_size=24, lr=0.02, log_every=20, snapshots=3, device="cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_task, mapped_task):
    """A folder with a run of either OV kind, one without noise, and one of an unbalanced task."""
    folder = tmp_path_factory.mktemp("runs")
    for name, task, ov, data in (
        ("factorized", tiny_task, "factorized", "noisy"),
        ("non_factorized", tiny_task, "non_factorized", "noisy"),
        ("quiet", tiny_task, "factorized", "noise_free"),
        ("unbalanced", mapped_task, "factorized", "noisy"),
    ):
        recipe = TrainConfig(**{**vars(RECIPE), "data": data})
        train(task, ModelConfig(ov=ov), recipe, folder / name, progress=False)
    return folder


@pytest.fixture
def call(runs, command):
    """Runs a command with {runs} filled in; gives (exit code, stdout, stderr)."""
    return lambda line: command(*(word.replace("~", " ").format(runs=runs) for word in line.split()))


# --- analyze -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_analyze_prints_and_writes_what_the_library_says(call, runs, tmp_path):
    code, shown, _ = call("analyze {runs}/factorized --other {runs}/non_factorized --json new/all.json")
    assert code == 0
    run = load_run(runs / "factorized")
    found = json.loads((tmp_path / "new" / "all.json").read_text())
    assert (found["schema"], found["version"]) == ("ocr-interp/circuit-analysis", 1)
    W = np.array(found["matrix"]["values"])
    relevant = W[: run.task.n_subjects + 2]
    assert relevant == pytest.approx(run.subjects_and_relations_W, rel=1e-6)
    assert np.nansum(np.array(found["energy"]["shares"], dtype=float)) == pytest.approx(1)
    values = np.concatenate([block["values"] for block in found["spectrum"]["blocks"]])
    assert values == pytest.approx(np.linalg.svd(relevant)[1][: len(values)])
    roles = [c["role"] for c in found["alignment"]["comparisons"]]
    assert roles == [
        "measured",
        "untrained",
        "other OV kind",
        *["random weights"] * 3,
        "saddle",
        "prediction",
    ]
    beta = found["alignment"]["comparisons"][0]["beta"]
    assert beta == pytest.approx(run.history["beta"].iloc[-1], rel=1e-4)
    assert found["alignment"]["predicted_beta"] == pytest.approx(2**-0.5)
    for words in (f"{beta:9.4f}", "share of energy", "what EOS attends to", "nuclear-norm", "r1 with r2"):
        assert words in shown
    assert shown.rstrip().endswith("all numbers: new/all.json")
    assert max(len(line) for line in shown.splitlines()) < 130


@pytest.mark.slow
def test_analyze_a_snapshot_and_an_unbalanced_run(call):
    code, shown, _ = call("analyze {runs}/non_factorized --step 0")
    assert code == 0
    assert ", step 0," in shown
    assert "frobenius-norm" in shown
    assert "untrained" not in shown
    assert call("analyze {runs}/factorized --step 60")[1] == call("analyze {runs}/factorized")[1]
    code, shown, _ = call("analyze {runs}/unbalanced")
    assert code == 0
    assert "nan" not in shown
    assert "- : no cosine: the closed forms are of tasks with equal groups" in shown
    assert "pair patterns" not in shown


# --- ablate --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ablate_measures_the_default_study_and_goes_on_from_its_file(call, tmp_path):
    code, shown, _ = call("ablate {runs}/quiet -o table.csv --draws 1")
    assert code == 0
    table = pd.read_csv(tmp_path / "table.csv")
    names = list(dict.fromkeys(table["spec"]))
    sanity = "held-out subjects -> implications [sanity check]"
    assert names[:2] == ["none", "relation block (1)"]
    assert {sanity, "attention to r1", "attention to EOS"} < set(names)
    assert "attention to noise" not in names, "there is no noise in its prompts"
    assert set(table["control"]) == {"intervention", "random", "random, equal norm"}
    cut = table[(table["spec"] == sanity) & (table["control"] == "intervention")].set_index("split")
    whole = table[table["spec"] == "none"].set_index("split")
    for split in SPLITS[:3]:
        assert cut["margin"][split] == pytest.approx(whole["margin"][split], abs=1e-5)
    assert cut["margin"][SPLITS[3]] <= 0, "what is left is the same for every subject"
    assert "the model as it is" in shown
    assert "[sanity check]: that path is" in shown
    before = (tmp_path / "table.csv").read_bytes()
    again = call("ablate {runs}/quiet -o table.csv --draws 1")
    assert again[:2] == (0, shown)
    assert (tmp_path / "table.csv").read_bytes() == before


def test_ablate_what_the_flags_say(call, tmp_path, tiny_task):
    line = (
        "ablate {runs}/factorized --zero v@r1 z:0 pattern@noise,EOS --mean v@held-out~subjects --resample v "
        "--block 0 --path s1 all relations c0,c1 --no-controls --seeds 0 1 --show loss -o own.csv --draws 2"
    )
    code, shown, error = call(line)
    assert code == 0, error
    table = pd.read_csv(tmp_path / "own.csv")
    names = list(dict.fromkeys(table["spec"]))
    assert names[1:6] == [
        "zero v@r1",
        "zero z:0",
        "zero pattern@noise,EOS",
        "mean v@held-out subjects",
        "resample v",
    ]
    assert names[6].startswith("singular block 0 (")
    assert names[7:] == ["s1 -> all", "relations -> c0,c1"]
    assert set(table["seed"]) == {0, 1}
    assert set(table["control"]) == {"intervention"}
    silenced = table[table["spec"] == "zero z:0"]
    assert silenced["margin"].to_numpy() == pytest.approx(0)
    assert silenced["loss"].to_numpy() == pytest.approx(np.log(tiny_task.d_vocab))
    assert "loss" in shown
    assert "accuracy" not in shown
    assert "in brackets" not in shown


# --- diagram -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_diagrams_in_every_format(call, runs, tmp_path):
    run, other = load_run(runs / "factorized"), load_run(runs / "non_factorized")
    for suffix, start in ((".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF"), (".dot", b"digraph")):
        code, shown, _ = call(f"diagram {{runs}}/factorized -o out/one{suffix}")
        assert (code, shown) == (0, f"out/one{suffix}\n")
        assert (tmp_path / "out" / f"one{suffix}").read_bytes().startswith(start)
    assert call("diagram {runs}/factorized -o graph.json")[0] == 0
    named, whole = CircuitGraph.from_json(Path("graph.json").read_text()), mechanism_graph(run)
    assert named == replace(whole, title="factorized, factorized"), "data has every edge and names its run"
    assert call("diagram {runs}/factorized -o graph.json --prune 0.1 --step 0")[0] == 0
    pruned = replace(mechanism_graph(run.at(0)).prune(0.1), title="factorized, factorized")
    assert CircuitGraph.from_json(Path("graph.json").read_text()) == pruned
    from ocr_interp.viz import save_diagram

    assert call("diagram {runs}/factorized {runs}/non_factorized -o both.svg")[0] == 0
    drawn = [
        replace(mechanism_graph(each).readable(), title=title)
        for each, title in ((run, "factorized, factorized"), (other, "non_factorized, non-factorized"))
    ]
    save_diagram(drawn, "expected.svg")
    assert Path("both.svg").read_bytes() == Path("expected.svg").read_bytes()


@pytest.mark.slow
def test_a_prompt_has_its_right_answer_against_the_strongest_other(call, runs):
    run = load_run(runs / "factorized")
    code, shown, _ = call("diagram {runs}/factorized --prompt s1 r2 -o graph.json")
    assert code == 0
    graph = CircuitGraph.from_json(Path("graph.json").read_text())
    answers = run.task.labels[run.task.n_inputs :]
    W = OVCircuit.from_run(run).effective
    rows = W.inputs.positions(["s1", "r2", "EOS"])
    logits = dict(zip(answers, W.W[rows].sum(0), strict=True))
    right = logits.pop("c0")
    against = max(logits, key=lambda label: logits[label])
    assert f"c0 against {against}, the strongest other answer in" in shown
    wanted = prompt_graph(run, ["s1", "r2", "EOS"], "c0", against)
    assert graph == replace(wanted, title=f"factorized, {wanted.title}")
    assert graph.total == pytest.approx(right - logits[against])
    line = "diagram {runs}/factorized {runs}/non_factorized --prompt noise0 s1 r1 EOS --answer b0"
    assert call(line + " --against c0 -o both.svg")[0] == 0


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("analyze {runs}/factorised", ["did you mean", "/factorized or ", "non_factorized?"]),
        ("analyze {runs}", ["it holds the runs", "non_factorized"]),
        ("info {runs}/factorised", ["did you mean"]),
        ("analyze {runs}/factorized --step 7", ["no snapshot at step 7", "nearest are 0, "]),
        ("analyze {runs}/factorized --other {runs}/factorized", ["another model, got the same weights"]),
        ("analyze {runs}/non_factorized --other {runs}/unbalanced", ["same task"]),
        ("analyze {runs}/factorized --tolerance -1 --json kept.json", ["tolerance must be"]),
        ("analyze {runs}/factorized --json kept.json/x.json", ["kept.json is a file"]),
        ("ablate {runs}/factorized --zero vv@r1", ["unknown hook 'vv'", "'v'"]),
        ("ablate {runs}/factorized --zero blocks.0.attn.hook_zz", ["did you mean", "hook_z'"]),
        ("ablate {runs}/factorized --zero v@heldout~subjects", ["did you mean 'held-out subjects'"]),
        ("ablate {runs}/factorized --zero v@s1,s1", ["once each"]),
        ("ablate {runs}/factorized --zero z:x", ["must be numbers as in z:0,2"]),
        ("ablate {runs}/factorized --zero z:3", ["head must be a whole number in 0..0, got 3"]),
        ("ablate {runs}/factorized --zero @r1", ["HOOK[:HEADS][@TOKENS]"]),
        ("ablate {runs}/factorized --block 99", ["block must be in 0.."]),
        ("ablate {runs}/factorized --path s1 c9", ["unknown token or kind of token 'c9'", "did you mean"]),
        ("ablate {runs}/quiet --zero v@r1 v@noise -o new.csv", ["'zero v@noise' changes nothing"]),
        ("ablate {runs}/factorized -o kept.csv", ["kept.csv must begin with the columns"]),
        ("ablate {runs}/factorized --seeds -o new.csv", ["at least one value each"]),
        ("ablate {runs}/factorized --draws 0 -o new.csv", ["eval_draws must be >= 1"]),
        ("diagram {runs}/factorized --prompt s99 r2 -o new.svg", ["unknown token 's99'", "did you mean"]),
        ("diagram {runs}/factorized --prompt r2 -o new.svg", ["0 subjects and 1 relations", "--answer"]),
        ("diagram {runs}/factorized --prompt s1 r2 --answer c9 -o new.svg", ["unknown token 'c9'"]),
        ("diagram {runs}/factorized --prompt s1 r2 --answer r1 --against b0 -o new.svg", ["'r1'"]),
        ("diagram {runs}/factorized --prompt s1 b1 --answer c0 -o new.svg", ["unknown token", "'b1'"]),
        ("diagram {runs}/factorized {runs}/unbalanced --prompt s7 r1 -o new.svg", ["unbalanced: unknown"]),
        ("diagram {runs}/factorized --prune 2 -o kept.svg", ["share must be <= 1"]),
        ("diagram {runs}/factorized --max-subjects -1 -o kept.svg", ["max_subjects must be >= 0"]),
        ("diagram {runs}/factorized -o folder.svg", ["folder.svg must be a file, got a directory"]),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written_or_lost(call, tmp_path, line, words):
    for name in ("kept.json", "kept.csv", "kept.svg"):
        (tmp_path / name).write_text("what was here before")
    (tmp_path / "folder.svg").mkdir()
    code, shown, error = call(line)
    assert (code, shown) == (2, "")
    assert error.startswith("ocr-interp: error: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.svg", "kept.csv", "kept.json", "kept.svg"]
    for name in ("kept.json", "kept.csv", "kept.svg"):
        assert (tmp_path / name).read_text() == "what was here before"


def test_a_full_disk_leaves_the_file_as_it_was(call, tmp_path, monkeypatch):
    (tmp_path / "kept.json").write_text("before")

    def refuse(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    code, shown, error = call("diagram {runs}/factorized -o kept.json")
    assert (code, shown) == (2, "")
    assert "cannot write kept.json: No space left on device. What was written before is intact" in error
    assert [p.name for p in tmp_path.iterdir()] == ["kept.json"]
    assert (tmp_path / "kept.json").read_text() == "before"
