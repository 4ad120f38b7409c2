"""Frobenius norms of all products of two lists of matrices, without forming a product.

‖A B‖² = tr(AᵀA · BBᵀ) is the inner product of two d_model × d_model Gram matrices, so all pairs are one
matrix product of lists of flattened Grams. These are never held whole: a block of their rows at a time is
made, used and thrown away, and since they are symmetric, half of each. In float64 the squares lose nothing
that matters: every term of the sum over directions is positive.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

MOST_BYTES = 2**28
"""Memory for the blocks of Gram matrices at one time."""


def squared_products(
    left: Sequence[Float[Tensor, "_ _ d_model"]], right: Sequence[Float[Tensor, "_ _ d_model"]]
) -> Float[Tensor, "left right"]:
    """‖A Bᵀ‖² of every matrix A of the left and every B of the right.

    Args:
        left, right: matrices [row, d_model] stacked by shape; the rows are contracted within each matrix,
            d_model between them.
    """
    d_model = left[0].shape[2]
    counts = [sum(len(stack) for stack in side) for side in (left, right)]
    row_bytes = sum(counts) * d_model * left[0].element_size()
    step = max(1, min(d_model, MOST_BYTES // row_bytes))
    total = left[0].new_zeros(*counts)
    for start in range(0, d_model, step):
        stop = min(start + step, d_model)
        mine, other = (_gram_rows(side, start, stop) for side in (left, right))
        own = stop - start
        total += mine[:, :, :own].flatten(1) @ other[:, :, :own].flatten(1).mT
        if stop < d_model:
            # What is right of the block on the diagonal is below it once more.
            total += 2 * (mine[:, :, own:].flatten(1) @ other[:, :, own:].flatten(1).mT)
    return total.clamp(min=0)


def _gram_rows(side: Sequence[Tensor], start: int, stop: int) -> Float[Tensor, "matrix row column"]:
    """Rows start..stop of all Gram matrices, from column `start` on."""
    return torch.cat([stack[:, :, start:stop].mT @ stack[:, :, start:] for stack in side])


def squares(side: Sequence[Float[Tensor, "_ _ d_model"]]) -> Float[Tensor, " matrix"]:
    """‖A‖² of every matrix."""
    return torch.cat([stack.pow(2).sum((1, 2)) for stack in side])


def fourth_powers(side: Sequence[Float[Tensor, "_ _ d_model"]]) -> Float[Tensor, " matrix"]:
    """Sum of the fourth powers of the singular values of every matrix, ‖A Aᵀ‖²."""
    found = []
    for stack in side:
        small = stack if stack.shape[1] <= stack.shape[2] else stack.mT
        found.append((small @ small.mT).pow(2).sum((1, 2)))
    return torch.cat(found)


def moments_of_chance(
    left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor], d_model: int
) -> tuple[float, Float[Tensor, "left right"]]:
    """Mean and standard deviation of the squared score ‖A Q B‖² / ‖A‖² ‖B‖² over all rotations Q.

    Exact, so that no matrix is drawn: A and B keep their spectra, and how they lie to each other is Haar
    random. The mean is 1 / d_model whatever the spectra.

    Args:
        left, right: squares and fourth powers of all matrices of each side.
        d_model: dimensions of the stream.

    Source: second moments of the orthogonal group, Collins & Śniady 2006, doi:10.1007/s00220-006-1554-3.
    """
    a, b = (fourth / square.pow(2).clamp(min=1e-300) for square, fourth in (left, right))
    a, b, d = a[:, None], b[None], d_model
    if d == 1:
        return 1.0, (a * b) * 0
    second = ((d + 1) * (1 + 2 * a * b) - 2 * (a + b + a * b)) / (d * (d - 1) * (d + 2))
    return 1 / d, (second - 1 / d**2).clamp(min=0).sqrt()
