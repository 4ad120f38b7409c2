"""The three unitarily invariant norms, their duals, and how each bounds or shrinks a spectrum."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

NORMS = ("nuclear", "frobenius", "spectral")
"""Schatten norms 1, 2 and infinity: sum, root of the sum of squares, and maximum of the singular values."""

DUAL_NORM = {"nuclear": "spectral", "frobenius": "frobenius", "spectral": "nuclear"}
"""The norm whose unit ball bounds the pairing: ⟨G, W⟩ <= dual_norm(G) · norm(W)."""


def norm_of_spectrum(
    singular_values: Float[np.ndarray, " value"],
    norm: str,
    multiplicity: Float[np.ndarray, " value"] | None = None,
) -> float:
    """The norm of a matrix from its singular values.

    Args:
        singular_values: non-negative, in any order.
        norm: one of NORMS.
        multiplicity: how often each value occurs; once if left out.

    Returns: the norm itself (Frobenius: not its square); 0 for an empty spectrum.
    """
    count = np.ones_like(singular_values) if multiplicity is None else multiplicity
    if norm == "nuclear":
        return float(np.sum(count * singular_values))
    if norm == "frobenius":
        return float(np.sqrt(np.sum(count * singular_values**2)))
    return float(np.max(singular_values[count > 0], initial=0.0))


def matrix_norm(W: Float[np.ndarray, "row column"], norm: str) -> float:
    """The norm of a matrix; the spectral one from the smaller Gram matrix, which is several times faster."""
    if norm == "frobenius":
        return float(np.linalg.norm(W))
    if norm == "spectral":
        gram = W @ W.T if W.shape[0] < W.shape[1] else W.T @ W
        return float(np.sqrt(max(float(np.linalg.eigvalsh(gram)[-1]), 0.0)))
    return norm_of_spectrum(np.linalg.svd(W, compute_uv=False), norm)
