"""W_OV itself is trained: the paper's non-factorized model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.errors import ConfigError
from ocr_interp.maps.base import Draw, LinearMap, Parameters


class NonFactorized(LinearMap):
    """One matrix: small parameters mean a small Frobenius norm.

    Source: Huang et al. 2025, section 3; docs/theory.md §1.
    """

    name: ClassVar[str] = "non_factorized"
    label: ClassVar[str] = "non-factorized $W_{OV}$"
    colour: ClassVar[str] = "#de8f05"
    norm: ClassVar[str | None] = "frobenius"
    starts: ClassVar[tuple[str, ...]] = ("product", "entries", "constant", "symmetric")
    array_native: ClassVar[bool] = True
    takes_d_head: ClassVar[bool] = True
    token_rows: ClassVar[frozenset[str]] = frozenset({"W_OV"})

    def width(self, n_tokens: int) -> int:
        """The vocabulary's size: there is no width to choose.

        Raises:
            ConfigError: a d_head other than the size of the vocabulary.
        """
        if self.d_head is not None and self.d_head != n_tokens:
            raise ConfigError(
                f"d_head must be None or d_vocab = {n_tokens} for ov='non_factorized' (W_OV is one square "
                f"matrix), got {self.d_head}: for a narrow OV circuit use ov='factorized'"
            )
        return n_tokens

    def shapes(self, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
        """W_OV [input, output]."""
        return {"W_OV": (n_in, n_out)}

    def start(self, draw: Draw) -> dict[str, Tensor]:
        """The product of the factorized model's start, entries of the factors' size, or a constant."""
        n = draw.n_tokens
        if draw.init == "symmetric":
            W_V, W_O = draw.symmetric()
            return {"W_OV": W_V @ W_O}
        if draw.init == "constant":
            return {"W_OV": torch.full((n, n), 1e-4 * draw.scale, dtype=torch.float64)}
        if draw.init == "entries":
            return {"W_OV": draw.normal("W_OV", n, n)}
        return {"W_OV": draw.normal("W_V", n, draw.d_head) @ draw.normal("W_O", draw.d_head, n)}

    def product(self, parameters: Parameters) -> Float[Any, "*run input output"]:
        """The parameter itself."""
        return parameters["W_OV"]

    def gradients(
        self, parameters: Parameters, grad: Float[Any, "*run input output"]
    ) -> dict[str, Float[Any, "..."]]:
        """The gradient of W_OV itself."""
        return {"W_OV": grad}

    def product_into(
        self, parameters: Mapping[str, Tensor], out: Float[Tensor, "run input output"]
    ) -> Float[Tensor, "run input output"]:
        """The parameter itself; the memory is not used."""
        return parameters["W_OV"]

    def pull_back(
        self,
        parameters: Mapping[str, Tensor],
        grad: Float[Tensor, "run input output"],
        out: Mapping[str, Tensor],
    ) -> None:
        """The gradient, already written in place, or a copy of it."""
        if out["W_OV"] is not grad:
            out["W_OV"].copy_(grad)

    def gradient_memory(self, gradients: Mapping[str, Tensor]) -> Tensor | None:
        """The gradient of the one parameter."""
        return gradients["W_OV"]


MAP = NonFactorized
