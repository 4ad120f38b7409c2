"""Muon's orthogonalisation in full precision, for stacks of small matrices and for one large matrix.

Both functions run the quintic Newton-Schulz iteration of torch.optim.Muon and differ in the products that
they form, hence in the last bits. Both are kept: a stack is faster with few calls, a large matrix with few
multiplications, and stored results were made with each.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration s <- a s + b s^3 + c s^5 of every singular value, as in torch.optim.Muon."""

_PANELS = 3
"""Panels of a symmetric product: two thirds of the work of a full one, in blocks large enough to be fast."""


def orthogonalised_stack(
    matrices: Float[Tensor, "stack row column"], steps: int, eps: float = 1e-7
) -> Float[Tensor, "stack row column"]:
    """Each matrix with its singular values pushed towards 1 (0.7 to 1.2).

    A matrix gets the same bits alone as in a stack. A norm below eps counts as eps, so that the result is
    smaller.

    Source: the Newton-Schulz iteration of torch.optim.Muon.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    X = (matrices.mT if tall else matrices).contiguous()
    X = X / X.flatten(1).norm(dim=1).clamp(min=eps)[:, None, None]
    for _ in range(steps):
        gram = X @ X.mT
        X = torch.baddbmm(X, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), X, beta=a)
    return X.mT if tall else X


def orthogonalised(
    matrix: Float[Tensor, "row column"], steps: int, eps: float = 1e-7
) -> Float[Tensor, "row column"]:
    """`orthogonalised_stack` for one matrix, with fewer multiplications: faster for large matrices.

    All factors except the matrix itself are polynomials in its Gram matrix, hence symmetric: only part of
    each such product is computed. A matrix at least twice as wide as high takes part in the last product
    only.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.T if tall else matrix
    X = wide / wide.norm().clamp(min=eps)
    if X.shape[1] >= 2 * X.shape[0] and steps:
        X = _gram_polynomial(X, steps) @ X
    else:
        for _ in range(steps):
            X = _factor(_symmetric_product(X, X.T)) @ X
    return X.T if tall else X


def _gram_polynomial(X: Float[Tensor, "row column"], steps: int) -> Float[Tensor, "row row"]:
    """The product of the factors of all steps, with the Gram matrix updated instead of X."""
    gram = _symmetric_product(X, X.T)
    product = factor = _factor(gram)
    for _ in range(steps - 1):
        gram = _symmetric_product(_symmetric_product(factor, gram), factor)
        factor = _factor(gram)
        product = _symmetric_product(factor, product)
    return product


def _factor(gram: Float[Tensor, "row row"]) -> Float[Tensor, "row row"]:
    """a I + b G + c G^2: what one step multiplies X by."""
    a, b, c = COEFFICIENTS
    factor = _symmetric_product(gram, gram).mul_(c).add_(gram, alpha=b)
    factor.diagonal().add_(a)
    return factor


def _symmetric_product(
    A: Float[Tensor, "row inner"], B: Float[Tensor, "inner row"]
) -> Float[Tensor, "row row"]:
    """A B, known to be symmetric: upper panels are computed, the rest is their mirror image."""
    n = len(A)
    edges = [n * part // _PANELS for part in range(_PANELS + 1)]
    product = A.new_empty(n, n)
    for start, end in pairwise(edges):
        panel = A[start:end] @ B[:, start:]
        product[start:end, start:] = panel
        product[end:, start:end] = panel[:, end - start :].T
    return product
