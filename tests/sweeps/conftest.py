"""Small sweeps: the tiny task of the run tests, and grids that take a second."""

import pandas as pd
import pytest

from ocr_interp.configuration.training import TrainConfig
from ocr_interp.sweeps import engines
from ocr_interp.sweeps.sweep import sweep
from ocr_interp.task import FactRecallTask

TASK = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
RECIPE = TrainConfig(steps=20, batch_size=12, log_every=5, device="cpu")


@pytest.fixture
def tiny_sweep(tmp_path):
    """A sweep of the tiny task into a folder of this test."""

    def run(axes, path="sweep", train=RECIPE, task=TASK, **options):
        folder = None if path is None else tmp_path / path
        return sweep(axes, task=task, train=train, path=folder, progress=False, **options)

    return run


@pytest.fixture
def same_table():
    """Asserts that two sweeps have the same rows, to the bit, in any order; seconds aside."""

    def check(one, other):
        for name in ("runs", "table"):
            first, second = (
                getattr(result, name)
                .drop(columns="seconds", errors="ignore")
                .sort_values(["run", "step"] if name == "table" else ["run"], ignore_index=True)
                for result in (one, other)
            )
            pd.testing.assert_frame_equal(first, second, check_exact=True, check_like=True)

    return check


@pytest.fixture
def stacks_trained(monkeypatch):
    """The runs of every stack that was trained, by d_head and seed."""
    trained, original = [], engines.train_stack

    def counting(configs, **options):
        trained.append([(c.model.d_head, c.train.lr, c.train.seed) for c in configs])
        return original(configs, **options)

    monkeypatch.setattr(engines, "train_stack", counting)
    return trained
