"""Muon's orthogonalisation in full precision, for stacks of small matrices and for one large matrix.

Both functions run the quintic Newton-Schulz iteration of torch.optim.Muon and differ in which products
they form, so in the last bits. They stay two: a stack wants few calls, a large matrix few
multiplications, and results on disk were made with each.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration s <- a s + b s^3 + c s^5 of every singular value, as in torch.optim.Muon."""

_PANELS = 3
"""Two thirds of the work of a whole product, in blocks still large enough for a fast one."""


def orthogonalised_stack(
    matrices: Float[Tensor, "stack row column"], steps: int, eps: float = 1e-7
) -> Float[Tensor, "stack row column"]:
    """Each matrix with its singular values pushed towards 1 (0.7 to 1.2).

    A matrix gets the same bits alone as among others. A norm below eps counts as eps, so that the
    matrix comes out smaller.

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
    """The same of one matrix, with fewer multiplications, which pays where it is large.

    All that is multiplied but the matrix itself is a polynomial in its Gram matrix, so symmetric: half of
    each such product need not be computed, and a matrix twice as wide as high is left out of the
    iteration altogether.
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
