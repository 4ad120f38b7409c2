"""W_OV = W_1 W_2 ... W_L, all trained: a deep linear OV circuit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import matmul
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.checks import check_count
from ocr_interp.maps.base import Draw, LinearMap, Parameters

DEEPEST = 32
"""Most factors: products of more have gradients that are 0 or infinite at any start that is drawn."""


@dataclass(frozen=True)
class Deep(LinearMap):
    """L factors: small Σ ‖W_l‖² makes Σ σ^(2/L) of W_OV small, the Schatten-2/L quasi-norm.

    That is no norm for L > 2, so there is no max-margin problem and no certificate: `theory.deep_point` has
    one of its KKT points. With two factors it is `factorized`, to the bit from the same draws.

    Attributes:
        depth: number L of factors, >= 2; inside they are d_head wide.

    Source: docs/theory.md §10, "More than two factors".
    """

    name: ClassVar[str] = "deep"
    label: ClassVar[str] = "deep $W_1 \\cdots W_L$"
    colour: ClassVar[str] = "#029e73"
    starts: ClassVar[tuple[str, ...]] = ("product", "entries")
    no_start: ClassVar[Mapping[str, str]] = {
        "constant": "constant factors are a saddle that gradient descent never leaves; use init='product'",
        "symmetric": "that start is laid out for two factors; use init='product', or ov='factorized'",
    }
    array_native: ClassVar[bool] = True
    takes_d_head: ClassVar[bool] = True
    token_rows: ClassVar[frozenset[str]] = frozenset({"W_1"})

    depth: int = 3

    def __post_init__(self) -> None:
        check_count("option 'depth' of ov='deep'", self.depth, 2, DEEPEST)

    @property
    def norm(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]  # of the depth
        """The nuclear norm of two factors; of more there is none."""
        return "nuclear" if self.depth == 2 else None

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(f"W_{k}" for k in range(1, self.depth + 1))

    def shapes(self, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
        """W_1 [input, d_head], W_2 ... [d_head, d_head], W_L [d_head, output]."""
        widths = [n_in, *[self.width(n_out)] * (self.depth - 1), n_out]
        return dict(zip(self._names, pairwise(widths), strict=True))

    def start(self, draw: Draw) -> dict[str, Tensor]:
        """Normal factors; the first and the last are those that a factorized model has."""
        drawn_as = {self._names[0]: "W_V", self._names[-1]: "W_O"}
        shapes = self.shapes(draw.n_tokens, draw.n_tokens)
        return {name: draw.normal(drawn_as.get(name, name), *shape) for name, shape in shapes.items()}

    def product(self, parameters: Parameters) -> Float[Any, "*run input output"]:
        """W_1 W_2 ... W_L, from the left."""
        return self._up_to_each(parameters)[-1]

    def gradients(
        self, parameters: Parameters, grad: Float[Any, "*run input output"]
    ) -> dict[str, Float[Any, "..."]]:
        """(W_1 ... W_{l−1})ᵀ G (W_{l+1} ... W_L)ᵀ."""
        before, names, found = self._up_to_each(parameters), self._names, {}
        for k in range(self.depth - 1, 0, -1):
            found[names[k]] = before[k - 1].mT @ grad
            grad = grad @ parameters[names[k]].mT
        found[names[0]] = grad
        return {name: found[name] for name in names}

    def product_into(
        self, parameters: Mapping[str, Tensor], out: Float[Tensor, "run input output"]
    ) -> Float[Tensor, "run input output"]:
        """`product`, the last factor multiplied in place."""
        names = self._names
        first = self._up_to_each(parameters, last=-1)[-1]
        return torch.bmm(first, parameters[names[-1]], out=out)

    def pull_back(
        self,
        parameters: Mapping[str, Tensor],
        grad: Float[Tensor, "run input output"],
        out: Mapping[str, Tensor],
    ) -> None:
        """`gradients`, each written where it belongs."""
        before, names = self._up_to_each(parameters, last=-1), self._names
        for k in range(self.depth - 1, 0, -1):
            torch.bmm(before[k - 1].mT, grad, out=out[names[k]])
            if k > 1:
                grad = grad @ parameters[names[k]].mT
            else:
                torch.bmm(grad, parameters[names[k]].mT, out=out[names[0]])

    def _up_to_each(self, parameters: Parameters, last: int | None = None) -> list[Any]:
        """W_1, W_1 W_2, ..., without the factors from index `last` on."""
        return list(accumulate((parameters[name] for name in self._names[:last]), matmul))


MAP = Deep
