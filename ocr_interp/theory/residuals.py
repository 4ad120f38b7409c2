"""Dual weights from a matrix alone: its softmax residuals at several scales, reweighted by kind."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from ocr_interp.task import IMPLICATION
from ocr_interp.theory.norms import Norm
from ocr_interp.theory.problem import MaxMarginProblem

_SHARPNESS = 2.0 ** np.arange(-1, 11, 2)
"""Scales tried, in units of 1 / reference margin: from soft residuals to nearly tight constraints only."""

_REFINED_SHARPNESS = (8.0, 64.0, 512.0)


def dual_bound(problem: MaxMarginProblem, weights: Float[np.ndarray, "example output"], norm: Norm) -> float:
    """Σ μ_k / dual_norm(Σ μ_k A_k), a lower bound of the optimal norm for any μ >= 0."""
    # A combination of constraints that cancels would prove infeasibility; with one answer per question
    # it cannot: every feasible W pairs with it to at least Σ μ_k > 0.
    return float(weights.sum()) / norm.dual_value(problem.dual_matrix(weights))


def residual_weights(
    margins: Float[np.ndarray, "example output"], scale: float
) -> Float[np.ndarray, "example output"]:
    """Softmax probabilities of the wrong outputs at scale · W, up to one common factor.

    A margin of 50 already rounds 1 − p to 0 in float64, so everything stays in logarithms until the
    largest weight is 1: dual bounds do not depend on the common factor.
    """
    # log p(wrong) = −h − log(1 + Σ exp(−h)), by shifting with the largest of 0 and −h.
    log_ratio = -scale * margins
    shift = np.maximum(log_ratio.max(axis=1, keepdims=True), 0.0)
    total = np.log(np.exp(-shift) + np.exp(log_ratio - shift).sum(axis=1, keepdims=True)) + shift
    log_weight = log_ratio - total
    return np.exp(log_weight - log_weight.max())


def best_residual_bound(
    problem: MaxMarginProblem,
    margins: Float[np.ndarray, "example output"],
    norm: Norm,
    scale: float,
    search: bool = True,
) -> tuple[float, float]:
    """(dual bound, scale) from the residuals of W: at `scale`, and with `search` the best of several."""
    if not search:
        return dual_bound(problem, residual_weights(margins, scale), norm), float(scale)
    reference = _reference_margin(margins)
    candidates = {scale} | ({float(s) for s in _SHARPNESS / reference} if reference > 0 else set())
    bounds = {s: dual_bound(problem, residual_weights(margins, s), norm) for s in sorted(candidates)}
    best = max(bounds, key=lambda s: bounds[s])
    for factor in (0.5, 2.0):  # the grid is coarse: look once at both neighbours of the best
        bounds[best * factor] = dual_bound(problem, residual_weights(margins, best * factor), norm)
    best = max(bounds, key=lambda s: bounds[s])
    return bounds[best], best


def _reference_margin(margins: Float[np.ndarray, "example output"]) -> float:
    worst = margins.min(axis=1)
    return float(worst.min()) if worst.min() > 0 else float(np.median(np.abs(worst)))


def refined_residual_bound(
    problem: MaxMarginProblem, margins: Float[np.ndarray, "example output"], norm: Norm
) -> tuple[float, float]:
    """(dual bound, scale) of the best mixture of the residuals' parts, one per kind of constraint.

    A kind is the example's split and relation with the wrong output's kind. At the max-margin solution of a
    balanced task the dual weights are constant on the tight constraints of each kind, so sharp residuals,
    mixed right, are exact.
    """
    reference = _reference_margin(margins)
    if reference <= 0:
        return 0.0, 1.0
    kinds = _constraint_kinds(problem)
    bounds = []
    for scale in np.array(_REFINED_SHARPNESS) / reference:
        parts = []
        for kind in np.unique(kinds[np.isfinite(margins)]):
            of_kind = np.where(kinds == kind, margins, np.inf)
            parts.append(np.exp(-scale * (of_kind - of_kind.min())))
        weights = _best_mixture(problem, parts, norm)
        bounds.append((dual_bound(problem, weights, norm), float(scale)))
    return max(bounds)


def _constraint_kinds(problem: MaxMarginProblem) -> Int[np.ndarray, "example output"]:
    """A number for every split and relation of the example with the kind of the output.

    Kinds of outputs are facts, implications of each relation, and other tokens.
    """
    task, triples = problem.task, problem.task.training_triples
    kind = np.where(problem.column_relation < 0, task.n_relations, problem.column_relation)
    asked = task.implied_relations * triples.split + np.maximum(triples.relation - IMPLICATION, 0)
    return (task.n_relations + 1) * asked[:, None] + kind


def _best_mixture(
    problem: MaxMarginProblem, parts: list[np.ndarray], norm: Norm
) -> Float[np.ndarray, "example output"]:
    """Cutting planes for: maximise Σ w_c (Σ part c) subject to dual_norm(Σ w_c G_c) <= 1, w >= 0.

    The dual norm is the largest pairing with the primal unit ball; every step adds the ball's point that
    the current mixture violates most. Stops at 1e-4, or after 60 steps: any mixture gives a valid bound.
    """
    from scipy.optimize import linprog  # a third of a second, and only refining needs it

    matrices = [problem.dual_matrix(part) for part in parts]
    totals = np.array([part.sum() for part in parts])
    stack = np.stack([matrix.ravel() for matrix in matrices])
    cuts = [stack @ norm.ball_point(matrix).ravel() for matrix in matrices]
    cuts.append(stack @ norm.ball_point(np.sum(matrices, axis=0)).ravel())
    best, best_bound = np.ones(len(parts)), 0.0
    for _ in range(60):
        top = 10.0 / np.array([cuts[c][c] for c in range(len(parts))])
        found = linprog(
            -totals, A_ub=np.array(cuts), b_ub=np.ones(len(cuts)), bounds=np.stack([0 * top, top], 1)
        )
        if found.x is None:
            break
        # Halfway to the best mixture so far: plain cutting planes jump between corners.
        for mixture in (found.x, (found.x + best) / 2 if best_bound else found.x):
            G = (mixture @ stack).reshape(matrices[0].shape)
            point = norm.ball_point(G)
            length = float(np.vdot(point, G))
            cuts.append(stack @ point.ravel())
            if totals @ mixture / length > best_bound:
                best, best_bound = mixture / length, totals @ mixture / length
        if -found.fun <= best_bound * (1 + 1e-4):
            break
    return np.einsum("c,ceo->eo", best, np.stack(parts))
