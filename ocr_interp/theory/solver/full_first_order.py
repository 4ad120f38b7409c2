"""The splitting method for the full program: any norm with a prox of its own, any task.

minimise f(X) subject to Z = x X, every example's logits Z on the right side of their margins: ADMM with one
consensus variable Y, X = Y and Z = x Y, as `first_order` does it in blocks.
"""

from __future__ import annotations

import time

import numpy as np
from jaxtyping import Float

from ocr_interp.theory.norms import Norm
from ocr_interp.theory.problem import MaxMarginProblem
from ocr_interp.theory.residuals import dual_bound
from ocr_interp.theory.solver.proximal import MarginProjection

_RELAXATION, _ALPHA, _CHECK_EVERY = 1.7, 0.3, 25


def has_own_prox(norm: Norm) -> bool:
    """Whether a norm brings a prox that is faster than a program of its own."""
    return type(norm).prox is not Norm.prox


def solve_full_first_order(
    problem: MaxMarginProblem, norm: Norm, tolerance: float, max_seconds: float
) -> tuple[Float[np.ndarray, "input output"], Float[np.ndarray, "example output"], int]:
    """W with smallest training margin 1, dual weights and the number of steps; certify them.

    Args:
        problem: the constraints.
        norm: one with a prox of its own (`has_own_prox`).
        tolerance: relative gap at which to stop.
        max_seconds: time limit; the best bounds are returned then.
    """
    end = time.perf_counter() + max_seconds
    x, example = problem.x.toarray(), np.arange(len(problem.correct))
    wrong = np.ones((len(example), problem.shape[1]))
    wrong[example, problem.correct] = 0
    project = MarginProjection(wrong, problem.correct)
    normal = np.linalg.inv(np.eye(x.shape[1]) + _ALPHA * x.T @ x)
    X, Z = np.zeros(problem.shape), np.zeros(wrong.shape)
    of_X, of_Z = np.zeros_like(X), np.zeros_like(Z)
    penalty, step, next_balance = 1.0, 0, _CHECK_EVERY
    best_W, best_weights, primal, dual = X, wrong, np.inf, dual_bound(problem, wrong, norm)
    while time.perf_counter() < end:
        step += 1
        Y = normal @ (X - of_X + _ALPHA * x.T @ (Z - of_Z))
        logits = x @ Y
        ahead_X = _RELAXATION * Y + (1 - _RELAXATION) * X + of_X
        ahead_Z = _RELAXATION * logits + (1 - _RELAXATION) * Z + of_Z
        old_X, old_Z = X, Z
        X, Z = norm.prox(ahead_X, 1 / penalty), project(ahead_Z)
        of_X, of_Z = ahead_X - X, ahead_Z - Z
        if step % _CHECK_EVERY:
            continue
        margin = float(problem.constraint_margins(X).min())
        if margin > 0 and norm.value(X) / margin < primal:
            primal, best_W = norm.value(X) / margin, X / margin
        weights = np.maximum(of_Z, 0.0) * wrong  # how far the projection moved the wrong logits
        if weights.any() and (bound := dual_bound(problem, weights, norm)) > dual:
            dual, best_weights = bound, weights
        if primal / dual - 1 <= tolerance:
            break
        if step >= next_balance:  # ever more rarely, so that it converges as with a fixed penalty
            next_balance = max(step + _CHECK_EVERY, int(1.2 * step))
            lack = _length(Y - X, logits - Z) / _length(Y, logits)
            moved = _length(X - old_X, Z - old_Z) / _length(of_X, of_Z)
            factor = float(np.clip(np.sqrt(lack / moved), 0.2, 5.0)) if lack > 0 and moved > 0 else 1.0
            if not 0.6 < factor < 1.7:
                penalty *= factor
                of_X, of_Z = of_X / factor, of_Z / factor
    return best_W, best_weights, step


def _length(of_W: Float[np.ndarray, "input output"], of_logits: Float[np.ndarray, "example output"]) -> float:
    return float(np.sqrt(np.sum(of_W**2) + _ALPHA * np.sum(of_logits**2)))
