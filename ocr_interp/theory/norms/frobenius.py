"""The Frobenius norm, the length of W as a vector: the norm of the W-SVM problem."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from ocr_interp.theory.norms.base import ControlDualWeights, DualWeights, UnitarilyInvariantNorm


class Frobenius(UnitarilyInvariantNorm):
    """Schatten 2, its own dual. Half its square is minimised: one cone less, and a linear prox.

    Source: docs/theory.md, "The missing entry", "Dual weights" and "Uniqueness".
    """

    name, label = "frobenius", "Frobenius norm"
    is_unique = True
    stated_squared = True

    def value(self, W: Float[np.ndarray, "row column"]) -> float:
        return float(np.linalg.norm(W))

    def dual_value(self, G: Float[np.ndarray, "row column"]) -> float:
        return float(np.linalg.norm(G))

    def of_spectrum(
        self, values: Float[np.ndarray, " value"], multiplicity: Float[np.ndarray, " value"]
    ) -> float:
        return float(np.sqrt(np.sum(multiplicity * values**2)))

    def dual_of_spectrum(
        self, values: Float[np.ndarray, " value"], multiplicity: Float[np.ndarray, " value"]
    ) -> float:
        return self.of_spectrum(values, multiplicity)

    def ball_point(self, G: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
        return G / np.linalg.norm(G)

    def objective(self, value: float) -> float:
        return value**2 / 2

    def shrink(
        self, values: Float[np.ndarray, " value"], multiplicity: Float[np.ndarray, " value"], step: float
    ) -> Float[np.ndarray, " value"]:
        return values * self.shrink_factor(step)

    def shrink_factor(self, step: float) -> float:
        return 1 / (1 + step)

    def atom(self, W: Any) -> Any:
        import cvxpy as cp

        return cp.sum_squares(W)

    def beta_with_trained_attention(self, m_train: int, m_test: int) -> tuple[float, float]:
        """0: trained attention leaves the solution as it is."""
        return 0.0, 0.0

    def held_out_coefficient(self, m_train: int, m_test: int, implied: int) -> float:
        return 0.0

    def dual_weights(self, n: int, m_train: int, m_test: int, implied: int) -> DualWeights:
        return DualWeights(1 / n, 1 / n, 1 / n, 1 / ((implied + 1) * m_train))

    def control_dual_weights(self, n: int, m_test: int, others: int, length: float) -> ControlDualWeights:
        other = 1 / (n * m_test * length**2 * (n + others))
        return ControlDualWeights(float((1 - others * other) / n), float(other))


NORM = Frobenius()
