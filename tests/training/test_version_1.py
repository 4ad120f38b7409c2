"""Runs in the files of version 1, written by its code: they are read and gone on with."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from bits import CASES, FILE, TASK, probe
from run_files import content
from safetensors import safe_open
from safetensors.torch import load_file

from ocr_interp.configuration import version_1
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import RunError
from ocr_interp.task import FactRecallTask
from ocr_interp.training.loop import train
from ocr_interp.training.store import RunStore, load_run
from ocr_interp.training.tracking import COLUMNS

FIXTURES = Path(__file__).parents[1] / "fixtures" / "version_1"
FINISHED, STOPPED = (
    ("run_factorized", "run_non_factorized"),
    (
        "run_factorized_stopped",
        "run_non_factorized_stopped",
    ),
)
FINGERPRINTS = {
    "factorized": "e097f49282c02a43",
    "non_factorized": "98342a0f8ee8e7a4",
    "factorized_softmax": "733c9ba310b3aa91",
    "non_factorized_softmax_frozen": "d2754d04e89a8356",
    "factorized_frozen_descent": "9739632772aaf869",
    "non_factorized_descent": "5343bc6c328893e7",
}
"""What version 1 called the six runs of `bits`."""


@pytest.fixture
def old(tmp_path):
    """Copies a fixture, so that nothing can change it."""
    return lambda name: Path(shutil.copytree(FIXTURES / name, tmp_path / name))


def stamps(run_dir):
    """The fingerprint that each file carries."""
    found = {"config.json": json.loads((run_dir / "config.json").read_text())["fingerprint"]}
    for path in run_dir.rglob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found[str(path.relative_to(run_dir))] = json.loads(file.metadata()["ocr_interp"])["fingerprint"]
    return found


def of_version_1(values):
    """The content of a config.json with the fields that version 1 had."""
    fields = json.loads((FIXTURES / "run_factorized" / "config.json").read_text())
    return {part: {name: values[part][name] for name in fields[part]} for part in ("task", "model", "train")}


# --- fingerprints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FINISHED, *STOPPED])
def test_fingerprints_of_the_files_are_those_of_their_content(name):
    values = json.loads((FIXTURES / name / "config.json").read_text())
    assert version_1.run_fingerprint(values) == values["fingerprint"]
    values["train"]["muon_ns_steps"] = 4
    assert version_1.run_fingerprint(values) != values["fingerprint"]


@pytest.mark.parametrize("name", CASES)
def test_fingerprints_of_other_runs(name):
    model, recipe = CASES[name]
    options = {"steps": 200, "batch_size": 24, "log_every": 10, "snapshots": 0, "device": "cpu", "seed": 3}
    config = RunConfig(TASK, model, TrainConfig(**{**options, **recipe}))
    values = of_version_1(json.loads(json.dumps(config.to_dict())))
    assert version_1.run_fingerprint(values) == FINGERPRINTS[name]


def test_fields_that_came_while_it_was_in_use_do_not_change_a_fingerprint(tiny_task):
    values = json.loads(json.dumps(RunConfig(tiny_task, ModelConfig(), TrainConfig()).to_dict()))
    values = of_version_1(values)
    assert version_1.run_fingerprint(values) == "8064bc9d74410469"
    for name in [n for n in values["train"] if n.startswith(("muon_", "second_"))]:
        del values["train"][name]
    values["model"]["ov_options"] = []
    assert version_1.run_fingerprint(values) == "8064bc9d74410469"


# --- reading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_is_read(name, old):
    path = old(name)
    before, run = content(path), load_run(path)
    assert (run.step, run.status, run.snapshot_steps) == (40, "finished", [0, 5, 40])
    assert run.task == FactRecallTask(2, 1, 1, n_noise=1, seq_len=4)
    d, state = run.task.d_vocab, load_file(path / "model.safetensors")
    W_V, W_O = state["blocks.0.attn.W_V"][0, :d], state["blocks.0.attn.W_O"][0, :, d:]
    is_factorized = name == "run_factorized"
    expected = {"W_V": W_V, "W_O": W_O} if is_factorized else {"W_OV": W_V}
    expected["W_QK"] = state["blocks.0.attn.W_Q"][0, :d]
    found = run.weights.tensors()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    for step in run.snapshot_steps:
        raw, at = load_file(path / "snapshots" / f"step_{step:08d}.safetensors"), run.at(step).weights
        assert torch.equal(at.W_QK, raw["W_QK"])
        assert torch.equal(at.W_OV, raw["W_V"] @ raw["W_O"] if is_factorized else raw["W_V"])
    assert torch.equal(run.at(40).weights.W_OV, run.weights.W_OV)
    text = pd.read_csv(path / "history.csv", dtype=str).astype(float).astype({"step": int})
    pd.testing.assert_frame_equal(run.history, text, check_exact=True)
    assert tuple(run.history.columns) == version_1.COLUMNS
    again = train(run.task, run.config.model, run.config.train, path, progress=False)
    assert again.history.equals(run.history)
    assert content(path) == before


@pytest.mark.parametrize("name", STOPPED)
def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(name, old):
    path, whole = old(name), json.loads((FIXTURES / "whole.json").read_text())
    config, store = (path / "config.json").read_bytes(), RunStore(path)
    stopped = load_run(path)
    assert (stopped.step, stopped.status, store.version) == (20, "unfinished", 1)
    rows = []
    c = store.read_config()
    run = train(c.task, c.model, c.train, path, progress=False, on_log=rows.append)
    assert (rows[0]["step"], run.step, run.status) == (25, 40, "finished")
    last = [float(run.history[column].iloc[-1]) for column in whole[f"{name}_columns"]]
    if probe() == json.loads(FILE.read_text())["probe"]:
        assert list(map(repr, last)) == list(map(repr, whole[name]))
    assert last == pytest.approx(whole[name], rel=1e-6, nan_ok=True)
    assert (path / "config.json").read_bytes() == config
    assert set(stamps(path).values()) == {store.fingerprint}
    assert (path / "weights.safetensors").exists()
    for step, weights in ((40, run.weights), (5, stopped.at(5).weights)):
        assert torch.equal(load_run(path).at(step).weights.W_OV, weights.W_OV)


def test_new_runs_are_of_version_2(tmp_path):
    task = FactRecallTask(2, 1, 1, n_noise=1, seq_len=4)
    train(task, ModelConfig(d_head=3), TrainConfig(steps=1, device="cpu"), tmp_path / "run", progress=False)
    store = RunStore(tmp_path / "run")
    assert store.version == 2
    assert set(stamps(tmp_path / "run").values()) == {store.read_config().fingerprint}
    assert tuple(load_run(tmp_path / "run").history.columns) == COLUMNS


# --- refusing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["train"].update(lr=0.5),
        lambda values: values["train"].update(muon_ns_steps=4),
        lambda values: values["train"].pop("seed"),
        lambda values: values["model"].update(d_head=3.0),
        lambda values: values["task"].update(n_facts=2),
        lambda values: values.update(model=[]),
        lambda values: values.update(fingerprint="0" * 16),
        lambda values: values.update(format_version=2),
    ],
)
def test_an_edited_configuration_is_refused(change, old):
    path = old("run_factorized")
    values = json.loads((path / "config.json").read_text())
    change(values)
    (path / "config.json").write_text(json.dumps(values))
    with pytest.raises(RunError, match=r"config\.json (was changed after|is damaged)"):
        load_run(path)


@pytest.mark.parametrize(
    "name",
    [
        "history.csv",
        "model.safetensors",
        "checkpoint/state.safetensors",
        "snapshots/step_00000005.safetensors",
    ],
)
def test_damage_is_noticed(name, old):
    path = old("run_factorized")
    whole = (path / name).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:-9] + b"7" + whole[-8:]):
        (path / name).write_bytes(damaged)
        with pytest.raises(RunError, match=Path(name).name):
            load_run(path).at(5)


def test_another_configuration_is_refused(old):
    path = old("run_factorized_stopped")
    c = RunStore(path).read_config()
    with pytest.raises(RunError, match=r"another configuration \(model\.d_head: 4 != 3\)"):
        train(c.task, ModelConfig(d_head=4), c.train, path, progress=False)
