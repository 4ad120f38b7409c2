"""The paper's experiment and its controls: the models that are trained.

For a question of your own, add a line to EXPERIMENTS, or make an Experiment in your own figure.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from analyses.house import experiments
from analyses.house.experiments import Experiment
from ocr_interp import FactRecallTask, ModelConfig, Run, TrainConfig

SEEDS = range(5)

PAPER = FactRecallTask(n_pairs=20, m_train=1, m_test=3)
NO_IMPLICATION = FactRecallTask(n_pairs=20, m_train=0, m_test=4)
FACTORIZED = ModelConfig(ov="factorized")
NON_FACTORIZED = ModelConfig(ov="non_factorized")
SAME_ENTRIES = ModelConfig(ov="non_factorized", init="entries")
RECIPE = TrainConfig.paper(log_every=100)
NO_DECAY = replace(RECIPE, weight_decay=0.0)
SHORT, MEDIUM = replace(RECIPE, steps=3_000), replace(RECIPE, steps=8_000)
FULL_BATCH = TrainConfig.gradient_descent(steps=2_000, lr=1.0, log_every=1)  # every step counts

EXPERIMENTS = (
    # Only the factorization differs: same product at the start, attention, batches, optimiser, steps.
    Experiment("factorized", PAPER, FACTORIZED, RECIPE),
    Experiment("non_factorized", PAPER, NON_FACTORIZED, RECIPE),
    # The other way to compare: entries of the same size at the start.
    Experiment("non_factorized_same_entries", PAPER, SAME_ENTRIES, RECIPE),
    # Weight decay on W_V and W_O is itself a nuclear norm penalty; without it only the implicit bias acts.
    Experiment("factorized_no_decay", PAPER, FACTORIZED, NO_DECAY),
    Experiment("non_factorized_no_decay", PAPER, NON_FACTORIZED, NO_DECAY),
    Experiment("non_factorized_same_entries_no_decay", PAPER, SAME_ENTRIES, NO_DECAY, seeds=(0, 1, 2)),
    # Control: no implication is ever told.
    Experiment("factorized_no_implication", NO_IMPLICATION, FACTORIZED, SHORT),
    Experiment("non_factorized_no_implication", NO_IMPLICATION, NON_FACTORIZED, SHORT),
    # The paper's attention is linear; softmax, for comparison.
    Experiment(
        "factorized_softmax", PAPER, replace(FACTORIZED, attention="softmax"), MEDIUM, seeds=(0, 1, 2)
    ),
    Experiment(
        "non_factorized_softmax", PAPER, replace(NON_FACTORIZED, attention="softmax"), MEDIUM, seeds=(0, 1, 2)
    ),
    # Theorem 3: symmetric start, full batch without noise, float64. The start is not random: one seed.
    Experiment(
        "theorem_3_factorized",
        PAPER,
        replace(FACTORIZED, init="symmetric", dtype="float64"),
        FULL_BATCH,
        seeds=(0,),
    ),
    Experiment(
        "theorem_3_non_factorized",
        PAPER,
        replace(NON_FACTORIZED, init="symmetric", dtype="float64"),
        FULL_BATCH,
        seeds=(0,),
    ),
)


SMALL_START = {"init_scale": 0.01 * PAPER.d_vocab**0.5, "dtype": "float64"}  # entries of size 0.01
FROZEN = {"train_attention": False, **SMALL_START}
LONG = TrainConfig.gradient_descent(steps=30_000, lr=1.0, log_every=250)
ADAM = replace(LONG, optimizer="adamw", lr=5e-3)

TOWARDS_THE_LIMIT = (
    # Evidence for Theorem 1: full batch, no weight decay, small start, frozen attention, float64.
    Experiment("descent_factorized", PAPER, replace(FACTORIZED, **FROZEN), LONG, seeds=(0, 1, 2)),
    Experiment("descent_non_factorized", PAPER, replace(NON_FACTORIZED, **FROZEN), LONG, seeds=(0, 1, 2)),
    # The same with trained attention, which has another max-margin problem.
    Experiment(
        "descent_trained_attention",
        PAPER,
        replace(FACTORIZED, attention_init="uniform", **SMALL_START),
        LONG,
        seeds=(0, 1, 2),
    ),
    # Another optimiser, without and with an explicit norm penalty.
    Experiment("adamw_factorized", PAPER, replace(FACTORIZED, **FROZEN), ADAM, seeds=(0,)),
    Experiment(
        "adamw_factorized_decay",
        PAPER,
        replace(FACTORIZED, **FROZEN),
        replace(ADAM, weight_decay=0.03),
        seeds=(0,),
    ),
    Experiment("adamw_non_factorized", PAPER, replace(NON_FACTORIZED, **FROZEN), ADAM, seeds=(0,)),
    Experiment(
        "adamw_non_factorized_decay",
        PAPER,
        replace(NON_FACTORIZED, **FROZEN),
        replace(ADAM, weight_decay=0.03),
        seeds=(0,),
    ),
)
"""Slower runs, for `reproduce --all`: how near training comes to the predicted max-margin solutions."""

OFTEN = {"log_every": 25, "snapshots": 28}
OVER_TRAINING = (
    # The same as above with more snapshots, for alignment_over_training, and five seeds each.
    Experiment("often_factorized", PAPER, FACTORIZED, replace(RECIPE, **OFTEN)),
    Experiment("often_non_factorized", PAPER, NON_FACTORIZED, replace(RECIPE, **OFTEN)),
    Experiment("often_descent_factorized", PAPER, replace(FACTORIZED, **FROZEN), replace(LONG, **OFTEN)),
    Experiment(
        "often_descent_non_factorized", PAPER, replace(NON_FACTORIZED, **FROZEN), replace(LONG, **OFTEN)
    ),
)

ALL = {e.name: e for e in (*EXPERIMENTS, *TOWARDS_THE_LIMIT, *OVER_TRAINING)}


def named(*names: str) -> tuple[Experiment, ...]:
    """Experiments by name, as a figure declares what it needs."""
    return tuple(ALL[name] for name in names)


def load_all(runs: Path, name: str) -> list[Run]:
    """The runs of an experiment, one per seed, trained if they are missing."""
    return experiments.load_all(runs, ALL[name])
