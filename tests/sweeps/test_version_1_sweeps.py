"""A sweep in the files of version 1: it is read, and gets new points beside the old ones."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import RunError
from ocr_interp.sweeps.sweep import load_sweep
from ocr_interp.task import FactRecallTask

FIXTURE = Path(__file__).parents[1] / "fixtures" / "version_1" / "sweep"
TASK = FactRecallTask(2, 1, 1, n_noise=1, seq_len=4)
RECIPE = TrainConfig(steps=40, batch_size=6, log_every=20, checkpoint_every=10, snapshots=3, device="cpu")
AXES = {"ov": ["factorized", "non_factorized"], "seed": [0, 1]}


@pytest.fixture
def old(tmp_path):
    return Path(shutil.copytree(FIXTURE, tmp_path / "sweep"))


def test_runs_are_read_under_their_old_and_their_new_names(old):
    result, runs = load_sweep(old), pd.read_csv(old / "runs.csv")
    table = pd.read_csv(old / "table.csv", dtype=str)
    assert len(result.runs) == 4
    for name, ov, seed in zip(runs["run"], runs["ov"], runs["seed"], strict=True):
        (new,) = result.select(ov=ov, seed=seed).runs["run"]
        for run in (result.run(name), result.run(new)):
            raw = load_file(old / "weights" / f"{name}.safetensors")
            expected = raw["W_V"] @ raw["W_O"] if ov == "factorized" else raw["W_V"]
            assert torch.equal(run.weights.W_OV, expected)
            assert torch.equal(run.weights.W_QK, raw["W_QK"])
            assert result.config(name).fingerprint == new
            rows = table.loc[table["run"] == name, list(run.history.columns)].reset_index(drop=True)
            rows = rows.astype(float).astype({"step": int})
            pd.testing.assert_frame_equal(run.history, rows, check_exact=True)


@pytest.mark.slow
def test_new_points_are_trained_and_old_ones_are_not(old, tiny_sweep, stacks_trained, same_table):
    before = load_sweep(old)
    options = {"train": RECIPE, "task": TASK, "keep_weights": True}
    assert len(tiny_sweep(AXES, **options).runs) == 4
    assert stacks_trained == []
    grown = tiny_sweep({**AXES, "seed": [0, 1, 2]}, **options)
    assert sorted(seed for stack in stacks_trained for _, _, seed in stack) == [2, 2]
    assert len(grown.runs) == 6
    fresh = tiny_sweep({**AXES, "seed": [2]}, path="fresh", **options)
    same_table(grown.select(seed=2), fresh)
    whole = load_sweep(old)
    assert len(whole.runs) == 6
    for name in whole.runs["run"]:
        whole.run(name)
    same_table(whole.select(seed=1), before.select(seed=1))
    said = json.loads((old / "sweep.json").read_text())
    assert said["format_version"] == 2, "from here on version 1 says that it is too old"
    assert said["versions"] == json.loads((FIXTURE / "sweep.json").read_text())["versions"]


def test_an_edited_part_is_refused(old):
    part = next((old / "parts").iterdir())
    part.write_bytes(part.read_bytes().replace(b'"lr": 0.005', b'"lr": 0.006'))
    with pytest.raises(RunError, match="is damaged"):
        load_sweep(old)
