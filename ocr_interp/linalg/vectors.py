"""Cosines of vectors, how much of them lies in a span, and how balanced two factors are."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def cosine_table(
    left: Float[np.ndarray, "a component"], right: Float[np.ndarray, "b component"]
) -> Float[np.ndarray, "a b"]:
    """Cosines of rows; NaN where a row is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (left / np.linalg.norm(left, axis=1)[:, None]) @ (
            right / np.linalg.norm(right, axis=1)[:, None]
        ).T


def span_shares(
    vectors: Float[np.ndarray, "token component"],
    onto: Float[np.ndarray, "other component"],
    tolerance: float,
) -> tuple[Float[np.ndarray, " token"], int]:
    """Share of each row's squared length in the span of other rows, and the dimension of the span."""
    _, s, Vt = np.linalg.svd(onto, full_matrices=False)
    basis = Vt[s > tolerance * max(s[0] if len(s) else 0.0, np.finfo(float).tiny)]
    with np.errstate(divide="ignore", invalid="ignore"):
        return ((vectors @ basis.T) ** 2).sum(1) / (vectors**2).sum(1), len(basis)


def factor_imbalance(
    left: Float[np.ndarray, "input d_head"], right: Float[np.ndarray, "d_head output"]
) -> float:
    """‖LᵀL − RRᵀ‖_F over the mean of ‖LᵀL‖_F and ‖RRᵀ‖_F: 0 for balanced factors, at most 2.

    Gradient flow on the factors keeps LᵀL − RRᵀ constant if the rows are all inputs and the columns the whole
    vocabulary: read the circuit with outputs="vocabulary" to test that.
    """
    inner, outer = left.T @ left, right @ right.T
    size = (np.linalg.norm(inner) + np.linalg.norm(outer)) / 2
    return float(np.linalg.norm(inner - outer) / size) if size else 0.0
