"""What the tests of runs on disk share: a small run, its bytes, and training in another process."""

from pathlib import Path

import train_elsewhere
from other_process import OtherProcess

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.task import FactRecallTask
from ocr_interp.training.loop import train

TASK = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
MODELS = {
    "factorized": ModelConfig(d_head=4),
    "non_factorized": ModelConfig(ov="non_factorized"),
    "softmax": ModelConfig(d_head=4, attention="softmax"),
    "frozen": ModelConfig(d_head=4, train_attention=False),
    "float64": ModelConfig(d_head=4, dtype="float64"),
}
"""Kinds of models that train differently."""

RECIPE = {
    "steps": 40,
    "batch_size": 12,
    "log_every": 5,
    "checkpoint_every": 10,
    "snapshots": 4,
    "device": "cpu",
}


def train_into(run_dir, on_log=None, model=MODELS["factorized"], task=TASK, **recipe):
    return train(task, model, TrainConfig(**{**RECIPE, **recipe}), run_dir, progress=False, on_log=on_log)


def content(run_dir):
    """Every file (but the lock) with its bytes, and every directory, by relative path."""
    return {
        str(path.relative_to(run_dir)): path.read_bytes() if path.is_file() else None
        for path in sorted(Path(run_dir).rglob("*"))
        if path.name != ".lock"
    }


def differing(one, other):
    """Names of the files that differ: short to read when an assertion fails."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name, 0) != other.get(name, 0))


class Killed(BaseException):
    """Ends training like a signal that nothing can catch, but in this process."""


def stop_at(step):
    def on_log(row):
        if row["step"] == step:
            raise Killed

    return on_log


class Child(OtherProcess):
    """Another process that trains into a directory; `with` waits until its training is about to start."""

    def __init__(self, run_dir, recipe, mode="train", at=0):
        super().__init__(train_elsewhere.main, run_dir, {**RECIPE, **recipe}, mode, at)

    def __enter__(self):
        assert self.stdout.readline() == "ready\n", self.stderr.read()
        return self

    def result(self):
        """(exit code, what it printed, its errors) once it has ended."""
        out, err = self.communicate()
        return self.wait(), out, err
