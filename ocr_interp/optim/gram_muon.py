"""Muon where bfloat16 is slow."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_PANELS = 3
"""Two thirds of the work of a whole product, in blocks still large enough for a fast one."""


class FullPrecisionMuon(torch.optim.Muon):
    """torch.optim.Muon ("match_rms_adamw") that orthogonalises in the gradients' own precision.

    torch's turns them to bfloat16, which a processor without such instructions multiplies 25 times slower.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all matrices that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                buffer = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(buffer, group["momentum"])  # Nesterov's, as torch's default
                update = orthogonalised(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-0.2 * group["lr"] * max(parameter.shape) ** 0.5)
        return loss


def orthogonalised(
    gradient: Float[Tensor, "row column"], coefficients: tuple[float, float, float], steps: int, eps: float
) -> Float[Tensor, "row column"]:
    """A matrix with its singular values brought near 1 (Newton-Schulz, quintic).

    All that is multiplied but the matrix itself is a polynomial in its Gram matrix, so symmetric: half of
    each such product need not be computed, and a matrix twice as wide as high is left out of the
    iteration altogether.
    """
    wide = gradient.T if gradient.shape[0] > gradient.shape[1] else gradient
    X = wide / wide.norm().clamp(min=eps)
    if X.shape[1] >= 2 * X.shape[0] and steps:
        X = _gram_polynomial(X, coefficients, steps) @ X
    else:
        for _ in range(steps):
            X = _factor(_symmetric_product(X, X.T), coefficients) @ X
    return X.T if gradient.shape[0] > gradient.shape[1] else X


def _gram_polynomial(
    X: Float[Tensor, "row column"], coefficients: tuple[float, float, float], steps: int
) -> Float[Tensor, "row row"]:
    """The product of the factors of all steps, with the Gram matrix updated instead of X."""
    gram, product = _symmetric_product(X, X.T), None
    for step in range(steps):
        factor = _factor(gram, coefficients)
        product = factor if product is None else _symmetric_product(factor, product)
        if step < steps - 1:
            gram = _symmetric_product(_symmetric_product(factor, gram), factor)
    assert product is not None
    return product


def _factor(
    gram: Float[Tensor, "row row"], coefficients: tuple[float, float, float]
) -> Float[Tensor, "row row"]:
    """a I + b G + c G^2: what one step multiplies X by."""
    a, b, c = coefficients
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
