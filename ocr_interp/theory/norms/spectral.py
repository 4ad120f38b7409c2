"""The spectral norm, the largest singular value: the norm of Muon's steepest descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ocr_interp.theory.norms.base import (
    ControlDualWeights,
    DualWeights,
    UnitarilyInvariantNorm,
    largest_of,
    largest_singular_value,
    sum_of,
)


class Spectral(UnitarilyInvariantNorm):
    """Schatten infinity. Its dual is the nuclear norm; its minimisers are not unique.

    Source: docs/theory.md, "The missing entry", "Dual weights" and "Uniqueness".
    """

    name, label = "spectral", "spectral norm"

    def value(self, W: Float[np.ndarray, "row column"]) -> float:
        return largest_singular_value(W)

    def of_spectrum(
        self, values: Float[np.ndarray, " value"], multiplicity: Float[np.ndarray, " value"]
    ) -> float:
        return largest_of(values, multiplicity)

    def dual_of_spectrum(
        self, values: Float[np.ndarray, " value"], multiplicity: Float[np.ndarray, " value"]
    ) -> float:
        return sum_of(values, multiplicity)

    def ball_point(self, G: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
        U, s, Vt = np.linalg.svd(G, full_matrices=False)
        rank = s > 1e-12 * s[0]
        return U[:, rank] @ Vt[rank]

    def shrink(
        self, values: Float[np.ndarray, " value"], multiplicity: Float[np.ndarray, " value"], step: float
    ) -> Float[np.ndarray, " value"]:
        """Caps the values so that their sum, with multiplicities, falls by `step`."""
        if multiplicity @ values <= step:
            return np.zeros_like(values)
        order = np.argsort(-values)
        # With the first j values capped at c: Σ multiplicity (value − c) = step. The right j is the last
        # one whose own value is above its cap.
        counted = np.maximum(np.cumsum(multiplicity[order]), 1e-300)
        caps = (np.cumsum((multiplicity * values)[order]) - step) / counted
        above = np.flatnonzero((values[order] > caps) & (multiplicity[order] > 0))
        return np.minimum(values, caps[above[-1]])

    def atom(self, W: Any) -> Any:
        import cvxpy as cp

        return cp.sigma_max(W)

    def combine(self, atoms: Sequence[Any], multiplicity: Sequence[float]) -> Any:
        import cvxpy as cp

        return cp.maximum(*atoms, 0)

    def held_out_coefficient(self, m_train: int, m_test: int, implied: int) -> float:
        return -min(m_train / m_test, 1 / implied)

    def dual_weights(self, n: int, m_train: int, m_test: int, implied: int) -> DualWeights:
        if n > m_train + max(implied * m_train, m_test):
            return DualWeights(0.0, 0.0, 0.0, 1.0)
        return (
            DualWeights(1.0, 1.0, 0.0, 0.0)
            if implied * m_train <= m_test
            else DualWeights(1.0, 0.0, 1.0, 0.0)
        )

    def control_dual_weights(self, n: int, m_test: int, others: int, length: float) -> ControlDualWeights:
        return ControlDualWeights(1 / n, 0.0)


NORM = Spectral()
