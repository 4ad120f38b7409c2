"""Frobenius norms of all products of two lists of matrices, without forming a product.

‖A B‖² = tr(AᵀA · BBᵀ) is the inner product of two d_model × d_model Gram matrices, so all pairs are one
matrix product of lists of flattened Grams. These are never held whole: a block of their rows at a time is
made, used and thrown away, and since they are symmetric, half of each. Squares lose half of the digits
where ‖A B‖ is far below ‖A‖ ‖B‖ / √d_model; in float64 enough are left.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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
        left, right: matrices [row, d_model] stacked by shape; the product is over d_model.
    """
    d_model = left[0].shape[2]
    sides = [_by_shape(side) for side in (left, right)]
    counts = [len(order) for _, order in sides]
    step = max(1, min(d_model, MOST_BYTES // (sum(counts) * d_model * left[0].element_size())))
    total = left[0].new_zeros(*counts)
    for start in range(0, d_model, step):
        stop = min(start + step, d_model)
        # What is right of the block on the diagonal is below it once more.
        for columns, times in ((slice(start, stop), 1.0), (slice(stop, d_model), 2.0)):
            if columns.start < columns.stop:
                mine, other = (_grams(stacks, slice(start, stop), columns) for stacks, _ in sides)
                total.addmm_(mine, other.mT, alpha=times)
    (_, rows), (_, columns) = sides
    found = torch.empty_like(total)
    found[rows[:, None], columns[None]] = total
    return found.clamp(min=0)


def _by_shape(side: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """The matrices in as few stacks as they have shapes, and where each of them stood."""
    starts = [0, *np.cumsum([len(stack) for stack in side]).tolist()]
    members: dict[int, list[int]] = {}
    for k, stack in enumerate(side):
        members.setdefault(stack.shape[1], []).append(k)
    stacks = [torch.cat([side[k] for k in chosen]) for chosen in members.values()]
    order = [i for chosen in members.values() for k in chosen for i in range(starts[k], starts[k + 1])]
    return stacks, torch.tensor(order, device=side[0].device)


def _grams(stacks: Sequence[Tensor], rows: slice, columns: slice) -> Float[Tensor, "matrix entry"]:
    """A block of every Gram matrix, flattened."""
    found = [(stack[:, :, rows].mT @ stack[:, :, columns]).flatten(1) for stack in stacks]
    return found[0] if len(found) == 1 else torch.cat(found)


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
