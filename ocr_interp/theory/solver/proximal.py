"""The two exact steps of the splitting method: shrinking a spectrum, projecting logits on their margins."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from ocr_interp.theory.norms import UnitarilyInvariantNorm
from ocr_interp.theory.reduction.margins import ExampleMap
from ocr_interp.theory.reduction.symmetry import Blocks, ReducedProblem


def shrink(reduced: ReducedProblem, blocks: Blocks, norm: UnitarilyInvariantNorm, step: float) -> Blocks:
    """argmin over X of step · f(X) + ½‖X − blocks‖², f as in `Norm.objective`.

    The blocks' multiplicities weigh both terms alike, so singular values shrink as those of W would.
    """
    factor = norm.shrink_factor(step)
    if factor is not None:
        return blocks * factor
    s, rebuild = _decompose(blocks.constant[None])
    s = s[0]
    if not reduced.has_pairs:
        return Blocks(rebuild(norm.shrink(s, np.ones(len(s)), step)[None])[0], blocks.pair)
    s_pair, rebuild_pair = _decompose(blocks.pair)
    values = np.concatenate([s, s_pair.ravel()])
    count = np.concatenate([np.ones(len(s)), np.repeat(reduced.pair_multiplicity, s_pair.shape[1])])
    new = norm.shrink(values, count, step)
    new_pair = new[len(s) :].reshape(s_pair.shape)
    return Blocks(rebuild(new[: len(s)][None])[0], rebuild_pair(new_pair))


def _decompose(
    A: Float[np.ndarray, "matrix row column"],
) -> tuple[Float[np.ndarray, "matrix value"], Callable[[np.ndarray], np.ndarray]]:
    """Singular values, and the map from smaller ones to the matrices with the same singular vectors.

    From the Gram matrix, which costs half as much as a singular value decomposition: A V diag(new / s) Vᵀ
    needs no left vectors, and small values, where a Gram matrix is inexact, are those that shrink to 0
    (nuclear norm) or stay as they are (spectral norm). Bounds do not depend on it.
    """
    tall = A.shape[1] >= A.shape[2]
    B = A if tall else A.transpose(0, 2, 1)
    squared, V = np.linalg.eigh(B.transpose(0, 2, 1) @ B)
    s = np.sqrt(np.maximum(squared, 0.0))

    def rebuild(new: np.ndarray) -> np.ndarray:
        ratio = np.divide(new, s, out=np.zeros_like(s), where=s > 0)
        out = (B @ (V * ratio[:, None, :])) @ V.transpose(0, 2, 1)
        return out if tall else out.transpose(0, 2, 1)

    return s, rebuild


class MarginProjection:
    """Projects every example's logits on {correct − wrong >= 1}; keeps the thresholds to start from.

    The nearest point moves the correct logit up to t and every wrong one above t − 1 down to it, with
    t − correct = Σ (wrong − (t − 1))₊ over wrong outputs. The left side minus the right is concave and
    increasing in t, so Newton's method ends after finitely many steps from anywhere.

    Args:
        multiplicity: how often each wrong logit of each example occurs; 0 for the correct one.
        correct: column of each example's correct logit.
    """

    def __init__(
        self, multiplicity: Float[np.ndarray, "example value"], correct: Int[np.ndarray, " example"]
    ) -> None:
        self._count, self._wrong = multiplicity, multiplicity > 0
        self._correct = (np.arange(len(correct)), correct)
        self._threshold: Float[np.ndarray, " example"] | None = None

    def __call__(self, values: Float[np.ndarray, "example value"]) -> Float[np.ndarray, "example value"]:
        """The projection, with distinct logits counted as often as they occur."""
        correct = values[self._correct]
        t = correct if self._threshold is None else self._threshold
        for _ in range(50):
            excess = values + (1 - t[:, None])
            active = self._count * (excess > 0)
            step = (t - correct - (active * excess).sum(axis=1)) / (1 + active.sum(axis=1))
            t = t - step
            if np.max(np.abs(step)) <= 1e-13 * max(1.0, float(np.max(np.abs(t)))):
                break
        self._threshold = t
        projected = np.where(self._wrong, np.minimum(values, t[:, None] - 1), values)
        projected[self._correct] = t
        return projected


class NormalEquations:
    """(I + α EᵀE)⁻¹ for the map E from blocks to logits: diagonal but for the shared rows."""

    def __init__(self, examples: ExampleMap, alpha: float) -> None:
        reduced = examples.reduced
        self._n, shared = reduced.n_groups, reduced.constant_shape[0] - reduced.n_groups
        n, scale = self._n, examples.scale
        told = np.bincount(examples.rows, minlength=n).astype(np.float64)
        # F: what an example group takes from the relations (and the constant feature).
        F = np.zeros((len(scale), shared))
        F[np.arange(len(scale)), examples.relations] = scale
        if reduced.feature:
            F[:, -1] = reduced.feature * scale
        coupling = F[:n].copy()
        np.add.at(coupling, examples.rows[n:], F[n:])
        self._diagonal = (1 + alpha * told)[:, None]
        self._coupling = alpha * coupling
        schur = np.eye(shared) + alpha * F.T @ F - self._coupling.T @ (self._coupling / self._diagonal)
        self._schur_inverse = np.linalg.inv(schur)
        self._pair_diagonal = np.ones((*reduced.pair_shape[:2], 1))
        if reduced.has_pairs:
            self._pair_diagonal[reduced.row_type, reduced.row_offset, 0] += alpha * told

    def solve(self, right: Blocks) -> Blocks:
        """X with X + α EᵀE X = right."""
        n = self._n
        subjects = right.constant[:n] / self._diagonal
        shared = self._schur_inverse @ (right.constant[n:] - self._coupling.T @ subjects)
        subjects = subjects - (self._coupling @ shared) / self._diagonal
        return Blocks(np.concatenate([subjects, shared]), right.pair / self._pair_diagonal)
