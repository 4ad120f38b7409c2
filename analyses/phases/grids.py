"""The grids behind `phases.diagrams`, and training their missing runs.

Two kinds of recipe, never mixed in one panel. "Theory" (`DESCENT`): full-batch gradient descent, no noise,
frozen uniform attention, weight decay 0 unless it is the axis, float64. "Paper" (`RECIPE`): AdamW, noisy
batches, trained attention, weight decay 0.03 unless it is the axis. Small tasks, fewer steps and 3 seeds
where the phenomenon is the same: all of it takes about a quarter of an hour of one core.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, sweep
from ocr_interp.task import TRAINED_SPLITS

Point = dict[str, Any]

OV_KINDS = ("factorized", "non_factorized")
FEW, MORE = range(3), range(5)
"""Seeds of the larger grids and of the cheap ones."""

SMALL = FactRecallTask(n_pairs=5, m_train=1, m_test=3, n_noise=0, seq_len=3)
NOISY = FactRecallTask(n_pairs=10, m_train=1, m_test=3)
FROZEN = ModelConfig(train_attention=False, dtype="float64")
DESCENT = TrainConfig.gradient_descent(steps=5_000, log_every=100, device="cpu")
PAPER = TrainConfig.paper(steps=5_000, log_every=100, device="cpu")

SMALL_ENTRIES = 0.01
"""Standard deviation of the entries at the start, where it is not the axis: small, as Theorem 1 asks."""

GROUP_SIZES_TRAIN, GROUP_SIZES_TEST = (0, 1, 2, 4, 8), (1, 2, 4, 8)
PAIRS = (2, 3, 5, 10, 20, 40)
ENTRIES = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0)
PENALTIES = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
DECAYS = (0.0, 1e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
NOISE_TOKENS = (0, 1, 4, 13, 29)


@dataclass(frozen=True)
class Grid:
    """Points of one diagram that share a recipe.

    Attributes:
        points: points for `sweep`, one dictionary per run.
        task, model, train: configuration that all points share.
    """

    points: list[Point]
    task: FactRecallTask
    model: ModelConfig
    train: TrainConfig


def scaled(task: FactRecallTask, entries: float = SMALL_ENTRIES) -> float:
    """The init_scale that gives entries of this standard deviation."""
    return entries * task.d_vocab**0.5


def crossed(points: list[Point], seeds: range) -> list[Point]:
    """Every point with both models and every seed."""
    return [{**point, "ov": ov, "seed": seed} for point in points for ov in OV_KINDS for seed in seeds]


def groups() -> Grid:
    """Sizes of the groups: training and held-out subjects per pair."""
    tasks = [replace(SMALL, m_train=a, m_test=b) for a in GROUP_SIZES_TRAIN for b in GROUP_SIZES_TEST]
    points: list[Point] = [{"task": task, "init_scale": scaled(task)} for task in tasks]
    return Grid(crossed(points, FEW), SMALL, FROZEN, DESCENT)


def pairs() -> Grid:
    """Number of pairs; the rate grows with it, since the loss is a mean over all of them."""
    tasks = [replace(SMALL, n_pairs=n) for n in PAIRS]
    points: list[Point] = [
        {"task": task, "init_scale": scaled(task), "lr": task.n_pairs / 10} for task in tasks
    ]
    return Grid(crossed(points, FEW), SMALL, FROZEN, DESCENT)


def pairs_paper() -> Grid:
    """Number of pairs under the paper's recipe."""
    return Grid(crossed([{"n_pairs": n} for n in PAIRS], FEW), NOISY, ModelConfig(), PAPER)


def entries() -> Grid:
    """Size of the entries at the start: both models start from the same product."""
    points: list[Point] = [{"init_scale": scaled(SMALL, size)} for size in ENTRIES]
    return Grid(crossed(points, MORE), SMALL, FROZEN, replace(DESCENT, steps=10_000))


def penalties() -> Grid:
    """An L2 penalty on the parameters; on the factors it is the nuclear norm of their product."""
    model = replace(FROZEN, init_scale=scaled(SMALL))
    points: list[Point] = [{"weight_decay": size} for size in PENALTIES]
    return Grid(crossed(points, FEW), SMALL, model, replace(DESCENT, steps=10_000))


def decays() -> Grid:
    """AdamW's decoupled weight decay in the paper's recipe."""
    points: list[Point] = [{"weight_decay": size} for size in DECAYS]
    return Grid(crossed(points, FEW), NOISY, ModelConfig(), replace(PAPER, steps=8_000))


def noise() -> Grid:
    """Noise tokens per sequence, with linear and with softmax attention, under the paper's recipe."""
    points: list[Point] = [
        {"seq_len": 3 + k, "n_noise": 5 if k else 0, "attention": attention}
        for attention in ("linear", "softmax")
        for k in NOISE_TOKENS
    ]
    return Grid(crossed(points, FEW), NOISY, ModelConfig(), PAPER)


def attentions() -> Grid:
    """Linear and softmax attention, frozen and trained, under gradient descent without noise."""
    model = ModelConfig(dtype="float64", init_scale=scaled(SMALL), attention_init="uniform")
    points: list[Point] = [
        {"attention": attention, "train_attention": trained}
        for attention in ("linear", "softmax")
        for trained in (False, True)
    ]
    return Grid(crossed(points, MORE), SMALL, model, replace(DESCENT, steps=10_000))


GRIDS = {
    "groups": groups,
    "pairs": pairs,
    "pairs_paper": pairs_paper,
    "entries": entries,
    "penalties": penalties,
    "decays": decays,
    "noise": noise,
    "attentions": attentions,
}


def trained(name: str, runs: Path) -> pd.DataFrame:
    """One row per run and logged step of a grid, with `COLUMNS` added; missing runs are trained."""
    grid = GRIDS[name]()
    found = sweep(
        grid.points,
        task=grid.task,
        model=grid.model,
        train=grid.train,
        path=runs / "phase_diagrams" / name,
        workers=os.cpu_count(),
    )
    config = found.runs[[c for c in found.runs.columns if c == "run" or c not in found.table.columns]]
    return with_ratios(found.table.merge(config, on="run", validate="many_to_one"))


COLUMNS = ("margin_ratio", "entries", "noise_tokens", "fitted", "held_out/accuracy", "held_out/loss")
"""Columns in addition to those of a history:

- margin_ratio: smallest held-out implication margin over the smallest training margin; NaN unless fitted;
- entries: size of entries at the start;
- noise_tokens: noise tokens per sequence;
- fitted: whether every training answer is right, the training margin positive;
- held_out/accuracy, held_out/loss: short for the held-out implications', over all answers.
"""


def with_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """The table with COLUMNS; a run that does not fit its training set says nothing about the rest."""
    fitted = (table["train_margin"] > 0) & (table["status"] != "diverged")
    for split in TRAINED_SPLITS:
        column = table[f"{split}/accuracy"]
        fitted &= column.isna() | (column == 1.0)
    ratio = (table["held_out_margin"] / table["train_margin"]).where(fitted)
    subjects = table["n_pairs"] * (table["m_train"] + table["m_test"])
    d_vocab = subjects + 3 + table["n_noise"] + 2 * table["n_pairs"]
    added: Mapping[str, Any] = {
        "margin_ratio": ratio,
        "entries": table["init_scale"] / np.sqrt(d_vocab.astype(float)),
        "noise_tokens": table["seq_len"] - 3,
        "fitted": fitted,
        "held_out/accuracy": table["held_out_implication/accuracy"],
        "held_out/loss": table["held_out_implication/loss"],
    }
    return table.assign(**added)


def at_the_end(table: pd.DataFrame, share: float = 1.0) -> pd.DataFrame:
    """The rows nearest to a share of the steps, one per run."""
    return table.loc[table["step"] == (table["steps"] * share).round()]


def main(names: tuple[str, ...] = tuple(GRIDS), runs: Path = Path("runs")) -> None:
    """Trains the named grids."""
    for name in names:
        trained(name, runs)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
