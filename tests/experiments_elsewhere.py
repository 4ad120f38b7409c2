"""Trains experiments for longer than a test lasts, in several processes, to be killed."""

from pathlib import Path

from analyses.house.experiments import Experiment, train_all
from ocr_interp import FactRecallTask, ModelConfig, TrainConfig

LONG = TrainConfig(steps=10_000_000, log_every=20, batch_size=3, device="cpu")
TASK = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
EXPERIMENTS = (
    Experiment("one", TASK, ModelConfig(d_head=2), LONG, (0,)),
    Experiment("other", TASK, ModelConfig(ov="non_factorized"), LONG, (0,)),
)


def train_for_long(runs: Path) -> None:
    train_all(runs, EXPERIMENTS)
