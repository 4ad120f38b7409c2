"""A finished run that is trained on: what one long run would have been, to the bit, or a reason why not."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from run_files import MODELS, TASK, Killed, content, differing, stop_at, train_into
from safetensors.torch import load_file

from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import RunError
from ocr_interp.training.loop import train
from ocr_interp.training.store import RunStore, load_run

FIXTURES = Path(__file__).parents[1] / "fixtures" / "version_1"


def same_result(one, other):
    """Histories, weights and everything that training goes on from are equal to the bit."""
    a, b = load_run(one), load_run(other)
    assert (a.step, a.status, a.config) == (b.step, b.status, b.config)
    pd.testing.assert_frame_equal(a.history, b.history, check_exact=True)
    assert (one / "history.csv").read_bytes() == (other / "history.csv").read_bytes()
    for file in ("weights.safetensors", "checkpoint/state.safetensors"):
        mine, theirs = load_file(one / file), load_file(other / file)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    for step in set(a.snapshot_steps) & set(b.snapshot_steps):
        assert torch.equal(a.at(step).weights.W_V, b.at(step).weights.W_V)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        ("factorized", {}),
        ("non_factorized", {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "data": "noise_free"}),
        ("softmax", {"second_optimizer": "sgd", "switch_step": 5, "second_lr": 0.1}),
    ],
)
def test_a_finished_run_goes_on_as_one_long_run(tmp_path, model, recipe):
    whole, parts, options = tmp_path / "whole", tmp_path / "parts", {"model": MODELS[model], **recipe}
    train_into(whole, steps=25, **options)
    first = train_into(parts, steps=10, **options)
    assert first.status == "finished"
    rows = []
    longer = train_into(parts, on_log=rows.append, steps=25, **options)
    assert [row["step"] for row in rows] == [15, 20, 25], "it went on from step 10"
    assert {0, 10, 25} <= set(longer.snapshot_steps), "earlier snapshots stay"
    same_result(parts, whole)


@pytest.mark.slow
def test_it_may_be_killed_resumed_and_made_longer_again(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_into(whole, steps=40)
    train_into(parts, steps=10)
    with pytest.raises(Killed):
        train_into(parts, on_log=stop_at(15), steps=20)
    assert load_run(parts).status == "unfinished"
    assert train_into(parts, steps=20).status == "finished"
    before = content(parts)
    assert train_into(parts, steps=20).step == 20
    assert differing(before, content(parts)) == [], "a complete run is only read"
    train_into(parts, steps=40)
    same_result(parts, whole)


@pytest.mark.slow
def test_a_stopped_run_is_made_longer_too(tmp_path):
    train_into(tmp_path / "whole", steps=30)
    with pytest.raises(Killed):
        train_into(tmp_path / "parts", on_log=stop_at(15), steps=20)
    train_into(tmp_path / "parts", steps=30)
    same_result(tmp_path / "parts", tmp_path / "whole")


def test_runs_of_version_1_go_on_in_version_1(tmp_path):
    run_dir = Path(shutil.copytree(FIXTURES / "run_factorized", tmp_path / "run"))
    old = load_run(run_dir)
    every = old.config.train.log_every
    wanted = RunConfig.from_dict(old.config.to_dict())
    more = TrainConfig(**{**vars(wanted.train), "steps": old.step + 2 * every})
    longer = train(wanted.task, wanted.model, more, run_dir, progress=False)
    assert (longer.step, longer.status) == (old.step + 2 * every, "finished")
    assert longer.history["step"].iloc[-3] == old.step
    assert RunStore(run_dir).version == 1
    assert load_run(run_dir).at(old.step).weights.W_V.equal(old.weights.W_V)


@pytest.mark.parametrize(
    ("first", "more", "words"),
    [
        ({"steps": 12}, {"steps": 20}, ["step 12", "no multiple of log_every=5"]),
        ({"steps": 20}, {"steps": 10}, ["only gets longer"]),
        (
            {"steps": 20, "stop_when_learned": 99.0},
            {"steps": 30},
            ["learned at step", "stop_when_learned=99"],
        ),
        ({"steps": 10}, {"steps": 20, "lr": 0.1}, ["train.lr: 0.1 != 0.005", "train.steps: 20 != 10"]),
        ({"steps": 10}, {"steps": 20, "log_every": 2}, ["train.log_every: 2 != 5"]),
    ],
)
def test_why_not(tmp_path, first, more, words, monkeypatch):
    if "stop_when_learned" in first:  # a tiny run does not learn by itself
        for module in ("loop", "store"):
            name = f"ocr_interp.training.{module}.learned"
            monkeypatch.setattr(name, lambda row, threshold: threshold > 0 and row["step"] == 10)
    train_into(tmp_path, **first)
    before = content(tmp_path)
    with pytest.raises(RunError) as raised:
        train_into(tmp_path, **{**first, **more})
    for word in words:
        assert word in str(raised.value)
    assert differing(before, content(tmp_path)) == []
    assert load_run(tmp_path).task == TASK
