"""The paper's experiment and its controls: which models are trained, and training them all.

An experiment is a task, a kind of model and a recipe; each is trained with every seed of SEEDS and
kept in runs/<experiment>/seed<k>. Nothing that is there is trained again. To ask a question of your
own, add a line to EXPERIMENTS.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from ocr_interp import FactRecallTask, ModelConfig, Run, TrainConfig, load_run, train

SEEDS = range(5)


@dataclass(frozen=True)
class Experiment:
    """One line of the table below; `seeds` are the seeds it is trained with."""

    task: FactRecallTask
    model: ModelConfig
    train: TrainConfig
    seeds: tuple[int, ...] = tuple(SEEDS)


PAPER = FactRecallTask(n_pairs=20, m_train=1, m_test=3)
NO_IMPLICATION = FactRecallTask(n_pairs=20, m_train=0, m_test=4)
FACTORIZED = ModelConfig(ov="factorized")
NON_FACTORIZED = ModelConfig(ov="non_factorized")
SAME_ENTRIES = ModelConfig(ov="non_factorized", init="entries")
RECIPE = TrainConfig.paper(log_every=100)
NO_DECAY = replace(RECIPE, weight_decay=0.0)
SHORT, MEDIUM = replace(RECIPE, steps=3_000), replace(RECIPE, steps=8_000)
FULL_BATCH = TrainConfig.gradient_descent(steps=2_000, lr=1.0, log_every=1)  # every step counts

EXPERIMENTS = {
    # Only the factorization differs: same product at the start, attention, batches, optimiser, steps.
    "factorized": Experiment(PAPER, FACTORIZED, RECIPE),
    "non_factorized": Experiment(PAPER, NON_FACTORIZED, RECIPE),
    # The other way to compare: entries of the same size at the start.
    "non_factorized_same_entries": Experiment(PAPER, SAME_ENTRIES, RECIPE),
    # Weight decay on W_V and W_O is itself a nuclear norm penalty; without it only the bias is left.
    "factorized_no_decay": Experiment(PAPER, FACTORIZED, NO_DECAY),
    "non_factorized_no_decay": Experiment(PAPER, NON_FACTORIZED, NO_DECAY),
    "non_factorized_same_entries_no_decay": Experiment(PAPER, SAME_ENTRIES, NO_DECAY, seeds=(0, 1, 2)),
    # Control: no implication is ever told.
    "factorized_no_implication": Experiment(NO_IMPLICATION, FACTORIZED, SHORT),
    "non_factorized_no_implication": Experiment(NO_IMPLICATION, NON_FACTORIZED, SHORT),
    # The paper's attention is linear; softmax, for comparison.
    "factorized_softmax": Experiment(
        PAPER, replace(FACTORIZED, attention="softmax"), MEDIUM, seeds=(0, 1, 2)
    ),
    "non_factorized_softmax": Experiment(
        PAPER, replace(NON_FACTORIZED, attention="softmax"), MEDIUM, seeds=(0, 1, 2)
    ),
    # Theorem 3: symmetric start, full batch without noise, float64. The start is no draw: one seed.
    "theorem_3_factorized": Experiment(
        PAPER, replace(FACTORIZED, init="symmetric", dtype="float64"), FULL_BATCH, seeds=(0,)
    ),
    "theorem_3_non_factorized": Experiment(
        PAPER, replace(NON_FACTORIZED, init="symmetric", dtype="float64"), FULL_BATCH, seeds=(0,)
    ),
}


SMALL_START = {"init_scale": 0.01 * PAPER.d_vocab**0.5, "dtype": "float64"}  # entries of size 0.01
FROZEN = {"train_attention": False, **SMALL_START}
LONG = TrainConfig.gradient_descent(steps=30_000, lr=1.0, log_every=250)
ADAM = replace(LONG, optimizer="adamw", lr=5e-3)

TOWARDS_THE_LIMIT = {
    # Evidence for Theorem 1: full batch, no weight decay, small start, frozen attention, float64.
    "descent_factorized": Experiment(PAPER, replace(FACTORIZED, **FROZEN), LONG, seeds=(0, 1, 2)),
    "descent_non_factorized": Experiment(PAPER, replace(NON_FACTORIZED, **FROZEN), LONG, seeds=(0, 1, 2)),
    # The same with trained attention, which has another limit.
    "descent_trained_attention": Experiment(
        PAPER, replace(FACTORIZED, attention_init="uniform", **SMALL_START), LONG, seeds=(0, 1, 2)
    ),
    # Another optimiser, without and with an explicit norm penalty.
    "adamw_factorized": Experiment(PAPER, replace(FACTORIZED, **FROZEN), ADAM, seeds=(0,)),
    "adamw_factorized_decay": Experiment(
        PAPER, replace(FACTORIZED, **FROZEN), replace(ADAM, weight_decay=0.03), seeds=(0,)
    ),
    "adamw_non_factorized": Experiment(PAPER, replace(NON_FACTORIZED, **FROZEN), ADAM, seeds=(0,)),
    "adamw_non_factorized_decay": Experiment(
        PAPER, replace(NON_FACTORIZED, **FROZEN), replace(ADAM, weight_decay=0.03), seeds=(0,)
    ),
}
"""Slower runs, for `reproduce --all`: how near training comes to the predicted limits."""

OFTEN = {"log_every": 25, "snapshots": 28}
OVER_TRAINING = {
    # The same as above with more snapshots, for alignment_over_training, and five seeds each.
    "often_factorized": Experiment(PAPER, FACTORIZED, replace(RECIPE, **OFTEN)),
    "often_non_factorized": Experiment(PAPER, NON_FACTORIZED, replace(RECIPE, **OFTEN)),
    "often_descent_factorized": Experiment(PAPER, replace(FACTORIZED, **FROZEN), replace(LONG, **OFTEN)),
    "often_descent_non_factorized": Experiment(
        PAPER, replace(NON_FACTORIZED, **FROZEN), replace(LONG, **OFTEN)
    ),
}

ALL = {**EXPERIMENTS, **TOWARDS_THE_LIMIT, **OVER_TRAINING}


def run_path(runs: Path, name: str, seed: int) -> Path:
    """Where the run of an experiment with a seed is kept."""
    return runs / name / f"seed{seed}"


def train_all(runs: Path, names: list[str] | None = None) -> None:
    """Trains what is missing of the named experiments, in as many processes as there are cores."""
    wanted = [(name, seed) for name in names or EXPERIMENTS for seed in ALL[name].seeds]
    missing = [(name, seed) for name, seed in wanted if not _is_complete(run_path(runs, name, seed))]
    if not missing:
        return
    workers = min(len(missing), os.cpu_count() or 1)
    with (
        Progress(console=Console(stderr=True)) as bar,
        ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread) as pool,
    ):
        shown = bar.add_task(f"training {len(missing)} models", total=len(missing))
        for done in as_completed([pool.submit(_train_one, runs, *key) for key in missing]):
            done.result()
            bar.advance(shown)


def load_all(runs: Path, name: str) -> list[Run]:
    """The runs of an experiment, one a seed, trained if they are missing."""
    train_all(runs, [name])
    return [load_run(run_path(runs, name, seed)) for seed in ALL[name].seeds]


def _is_complete(path: Path) -> bool:
    return (path / "checkpoint" / "state.safetensors").exists() and load_run(path).complete


def _train_one(runs: Path, name: str, seed: int) -> None:
    experiment = ALL[name]
    recipe = replace(experiment.train, seed=seed)
    train(experiment.task, experiment.model, recipe, run_path(runs, name, seed), progress=False)


def _one_thread() -> None:
    """One thread a process: small matrices lose by more, and as many processes run as there are cores."""
    import torch

    torch.set_num_threads(1)
