"""Held-out margins found in four ways: closed form, solver, L-BFGS on the parameters, gradient descent.

Used by figure_5_max_margin, theorem_2 and sample_efficiency. Only `descend` is evidence about gradient
descent; `computed_limit` computes the max-margin solution.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import torch

from ocr_interp import FactRecallTask, ModelConfig, Run, TrainConfig, solve, train
from ocr_interp.errors import SolverError
from ocr_interp.training.continuation import ComputedLimit, compute_limit

OvKind = Literal["factorized", "non_factorized"]
OV_KINDS: tuple[OvKind, ...] = ("factorized", "non_factorized")
NORMS: dict[OvKind, str] = {"factorized": "nuclear", "non_factorized": "frobenius"}
"""The norm that each model is predicted to minimise."""

LIMIT_TOLERANCE = 2e-4
LIMIT_SEEDS = range(3)


def noise_free_task(n_pairs: int, m_train: int, m_test: int) -> FactRecallTask:
    """A balanced task without noise tokens: the theorems' inputs, and the smallest vocabulary."""
    return FactRecallTask(n_pairs, m_train, m_test, n_noise=0, seq_len=3)


def descend(task: FactRecallTask, ov: OvKind, steps: int, run_dir: Path) -> Run:
    """Evidence: full-batch gradient descent, no weight decay, frozen attention, small start, float64."""
    torch.set_num_threads(1)
    model = ModelConfig(ov=ov, train_attention=False, init_scale=0.1, dtype="float64")
    recipe = TrainConfig.gradient_descent(
        steps=steps, log_every=steps // 10, checkpoint_every=steps, snapshots=0, device="cpu"
    )
    return train(task, model, recipe, run_dir, progress=False)


def margin_ratio(run: Run, step: int) -> float:
    """Smallest held-out implication margin over the smallest training margin at a logged step."""
    row = run.history.set_index("step").loc[step]
    return float(row["held_out_margin"] / row["train_margin"])


def computed_limit(task: FactRecallTask, ov: OvKind) -> ComputedLimit | None:
    """The max-margin solution, computed to a certified gap of LIMIT_TOLERANCE; None if all starts fail.

    The annealing can stop at a saddle, where a part of the factors is zero; another start helps.
    """
    for seed in LIMIT_SEEDS:
        try:
            return compute_limit(task, ov, seed=seed, tolerance=LIMIT_TOLERANCE, max_sharpness=2.0**18)
        except SolverError:
            continue
    return None


def limit_margin(task: FactRecallTask, ov: OvKind) -> float:
    """Held-out over training margin of `computed_limit`; NaN if it was not reached."""
    limit = computed_limit(task, ov)
    if limit is None:
        return math.nan
    return float(limit.certificate.held_out_margins.min() / limit.certificate.min_margin)


def solver_margin(task: FactRecallTask, ov: OvKind) -> float:
    """Held-out over training margin of the splitting method's solution: a check of the closed form."""
    found = solve(task, NORMS[ov], 1e-6, method="first_order").certificate
    return float(found.held_out_margins.min() / found.min_margin)
