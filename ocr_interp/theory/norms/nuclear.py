"""The nuclear norm, the sum of the singular values: the norm of the OV-SVM problem."""

from __future__ import annotations

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


class Nuclear(UnitarilyInvariantNorm):
    """Schatten 1. Its dual is the spectral norm.

    Source: docs/theory.md, "The missing entry", "Dual weights" and "Uniqueness".
    """

    name, label = "nuclear", "nuclear norm"
    is_unique = True
    has_rank_one_saddle = True
    minimisers_share_modes = True

    def of_spectrum(
        self, values: Float[np.ndarray, " value"], multiplicity: Float[np.ndarray, " value"]
    ) -> float:
        return sum_of(values, multiplicity)

    def dual_of_spectrum(
        self, values: Float[np.ndarray, " value"], multiplicity: Float[np.ndarray, " value"]
    ) -> float:
        return largest_of(values, multiplicity)

    def dual_value(self, G: Float[np.ndarray, "row column"]) -> float:
        return largest_singular_value(G)

    def ball_point(self, G: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
        U, s, Vt = np.linalg.svd(G, full_matrices=False)
        # The mean over a degenerate block, not one vector of it: a symmetric G gets a symmetric cut.
        top = s >= s[0] * (1 - 1e-9)
        return U[:, top] @ Vt[top] / top.sum()

    def shrink(
        self, values: Float[np.ndarray, " value"], multiplicity: Float[np.ndarray, " value"], step: float
    ) -> Float[np.ndarray, " value"]:
        """Soft threshold."""
        return np.maximum(values - step, 0.0)

    def atom(self, W: Any) -> Any:
        import cvxpy as cp

        return cp.normNuc(W)

    def beta_with_trained_attention(self, m_train: int, m_test: int) -> tuple[float, float]:
        """[λ, 2λ / (1 + λ)] with λ = (m_train / m_test)^(2/3), for m_train <= m_test; docs/theory.md §6."""
        if m_train == 0:
            return 0.0, 0.0
        if m_train >= m_test:
            return 1.0, 1.0
        ratio = (m_train / m_test) ** (2 / 3)
        return ratio, 2 * ratio / (1 + ratio)

    def held_out_coefficient(self, m_train: int, m_test: int, implied: int) -> float:
        return float(min(np.sqrt(m_train / (implied * m_test)), 1.0))

    def dual_weights(self, n: int, m_train: int, m_test: int, implied: int) -> DualWeights:
        a, b, kinds = m_train, m_test, implied + 1
        own = float(1 / (kinds * a * np.sqrt(n)))
        if a <= implied * b:
            return DualWeights(0.0, float(1 / (n * np.sqrt(b))), float(1 / (n * np.sqrt(implied * a))), own)
        r, root = np.sqrt(a + b), np.sqrt(kinds)
        fact, held_out, implication = (a - implied * b) / (root * a * r), root / r, r / (root * a)
        return DualWeights(float(fact / n), float(held_out / n), float(implication / n), own)

    def control_dual_weights(self, n: int, m_test: int, others: int, length: float) -> ControlDualWeights:
        other = 1 / (n * m_test * length * np.sqrt(others * (others + n) / n))
        return ControlDualWeights(float((1 / np.sqrt(m_test) - others * other) / n), float(other))


NORM = Nuclear()
