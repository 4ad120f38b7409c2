"""A sweep says how far its runs are step by step; training prints lines where there is no terminal."""

import pytest

from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, sweep, train

TASK = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
RECIPE = TrainConfig(steps=40, batch_size=12, log_every=10, snapshots=0, device="cpu")


@pytest.mark.slow
def test_a_sweep_counts_the_steps_of_all_runs(capsys, tmp_path):
    axes = {"ov": ["factorized", "non_factorized"], "seed": [0, 1]}
    sweep(axes, task=TASK, train=RECIPE, path=tmp_path / "s", progress="lines")
    lines = capsys.readouterr().err.splitlines()
    done = [int(line.split()[1].split("/")[0]) for line in lines]
    assert done == [0, 20, 40, 60, 80, 100, 120, 140, 160]
    assert lines[-1].startswith("sweep 160/160 steps: 4 of 4 runs ended (4 finished)")
    sweep({**axes, "seed": [0, 1, 2]}, task=TASK, train=RECIPE, path=tmp_path / "s", progress="lines")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("sweep 160/240 steps: 4 of 6 runs ended")
    assert lines[-1].startswith("sweep 240/240 steps: 6 of 6 runs ended (2 finished)")


def test_training_prints_step_losses_and_rate(capsys):
    train(TASK, ModelConfig(d_head=4), RECIPE, progress="lines")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == [f"{k}/40" for k in (0, 10, 20, 30, 40)]
    assert "training" not in lines[0], "before the first step there is no training loss"
    assert ": loss training " in lines[-1]
    assert ", held-out implication " in lines[-1]
    assert lines[-1].endswith("steps/s)")
