"""Muon without Newton-Schulz: steps along the exact polar factor, beside those of the shipped iteration.

Helper of `optimizers.study`. torch.optim.Muon maps singular values to values between 0.7 and 1.2, not to 1;
the value of each depends on the others. To see the effect of this alone on β, the noise-free task is trained
here in numpy, from a matrix of zeros or from small factors. Gradients are normalised before they are
orthogonalised, so training does not stop when the loss is small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from ocr_interp import FactRecallTask
from ocr_interp.theory import solve
from ocr_interp.theory.certificate import held_out_beta
from ocr_interp.theory.norms import norms
from ocr_interp.theory.problem import MaxMarginProblem, max_margin_problem

MOMENTUM = 0.95
QUINTIC = (3.4445, -4.7750, 2.0315)

Polar = Literal["exact", "newton_schulz"]


@dataclass(frozen=True)
class MuonPath:
    """The measurements along a path of orthogonalised steps.

    Attributes:
        step: updates.
        beta: held-out coefficient.
        margin: smallest training margin, logits.
        excess_spectral: spectral norm at margin 1 over the smallest, less 1; inf while a margin is <= 0.
    """

    step: list[int]
    beta: list[float]
    margin: list[float]
    excess_spectral: list[float]


def orthogonal_path(
    sizes: tuple[int, int, int], polar: Polar, steps: int, lr: float, log_every: int, seed: int | None = None
) -> MuonPath:
    """Trains W from zeros (seed None) or W_V W_O from entries of 0.01 with orthogonalised Nesterov steps.

    The momentum is Muon's, a running mean of gradients, but of normalised gradients.
    """
    task = FactRecallTask(*sizes, n_noise=0, seq_len=3)
    problem = max_margin_problem(task)
    rows, columns = problem.shape
    if seed is None:
        parts = [np.zeros((rows, columns))]
    else:
        draw, width = np.random.default_rng(seed), rows + columns
        parts = [0.01 * draw.standard_normal((rows, width)), 0.01 * draw.standard_normal((width, columns))]
    means = [np.zeros_like(part) for part in parts]
    path, best = MuonPath([], [], [], []), solve(task, "spectral").objective
    for step in range(steps + 1):
        W = parts[0] if len(parts) == 1 else parts[0] @ parts[1]
        if step and step % log_every == 0:
            margin = float(problem.constraint_margins(W).min())
            path.step.append(step)
            path.beta.append(held_out_beta(W, task).projection)
            path.margin.append(margin)
            excess = norms["spectral"].value(W) / margin / best - 1 if margin > 0 else np.inf
            path.excess_spectral.append(excess)
        down = descent_direction(problem, W)
        gradients = [down] if len(parts) == 1 else [down @ parts[1].T, parts[0].T @ down]
        for part, mean, gradient in zip(parts, means, gradients, strict=True):
            gradient = gradient / np.linalg.norm(gradient)
            mean += (1 - MOMENTUM) * (gradient - mean)
            part += lr * orthogonalised(gradient + MOMENTUM * (mean - gradient), polar)
    return path


def descent_direction(
    problem: MaxMarginProblem, W: Float[np.ndarray, "input output"]
) -> Float[np.ndarray, "input output"]:
    """The negative gradient of the cross-entropy, up to a positive factor: the largest residual is 1."""
    logits = problem.x @ W
    example = np.arange(len(problem.correct))
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    log_p[example, problem.correct] = -np.inf
    return problem.dual_matrix(np.exp(log_p - log_p.max()))


def orthogonalised(matrix: Float[np.ndarray, "row column"], polar: Polar) -> Float[np.ndarray, "row column"]:
    """The polar factor without singular values below 1e-9 of the largest, or Muon's iterate."""
    U, S, Vh = np.linalg.svd(matrix, full_matrices=False)
    if polar == "exact":
        return (U * (1e-9 * S[0] < S)) @ Vh
    a, b, c = QUINTIC
    S = S / np.linalg.norm(S)
    for _ in range(5):
        S = a * S + b * S**3 + c * S**5
    return (U * S) @ Vh
