"""W_OV = W_V W_O, both trained: the paper's factorized model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.maps.base import Draw, LinearMap, Parameters


class Factorized(LinearMap):
    """Two factors: small ½(‖W_V‖² + ‖W_O‖²) makes the nuclear norm of W_OV small.

    Source: Huang et al. 2025, section 3; docs/theory.md §1.
    """

    name: ClassVar[str] = "factorized"
    label: ClassVar[str] = "factorized $W_V W_O$"
    colour: ClassVar[str] = "#0173b2"
    norm: ClassVar[str | None] = "nuclear"
    starts: ClassVar[tuple[str, ...]] = ("product", "entries", "symmetric")
    no_start: ClassVar[Mapping[str, str]] = {
        "constant": "constant factors are a saddle that gradient descent never leaves; use init='product', "
        "or ov='non_factorized'"
    }
    array_native: ClassVar[bool] = True
    takes_d_head: ClassVar[bool] = True
    token_rows: ClassVar[frozenset[str]] = frozenset({"W_V"})
    has_factors: ClassVar[bool] = True
    hooked_trained: ClassVar[frozenset[str]] = frozenset({"W_V", "W_O"})

    def shapes(self, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
        """W_V [input, d_head] and W_O [d_head, output]."""
        d_head = self.width(n_out)
        return {"W_V": (n_in, d_head), "W_O": (d_head, n_out)}

    def start(self, draw: Draw) -> dict[str, Tensor]:
        """Normal factors, or those of Theorem 3."""
        if draw.init == "symmetric":
            W_V, W_O = draw.symmetric()
            return {"W_V": W_V, "W_O": W_O}
        shapes = self.shapes(draw.n_tokens, draw.n_tokens)
        return {name: draw.normal(name, *shape) for name, shape in shapes.items()}

    def product(self, parameters: Parameters) -> Float[Any, "*run input output"]:
        """W_V W_O."""
        return parameters["W_V"] @ parameters["W_O"]

    def gradients(
        self, parameters: Parameters, grad: Float[Any, "*run input output"]
    ) -> dict[str, Float[Any, "..."]]:
        """G W_Oᵀ and W_Vᵀ G."""
        return {"W_V": grad @ parameters["W_O"].mT, "W_O": parameters["W_V"].mT @ grad}

    def factors(self, parameters: Parameters) -> tuple[Any, Any]:
        """The parameters themselves."""
        return parameters["W_V"], parameters["W_O"]

    def product_into(
        self, parameters: Mapping[str, Tensor], out: Float[Tensor, "run input output"]
    ) -> Float[Tensor, "run input output"]:
        """W_V W_O without a temporary."""
        return torch.bmm(parameters["W_V"], parameters["W_O"], out=out)

    def pull_back(
        self,
        parameters: Mapping[str, Tensor],
        grad: Float[Tensor, "run input output"],
        out: Mapping[str, Tensor],
    ) -> None:
        """`gradients` without temporaries."""
        torch.bmm(grad, parameters["W_O"].mT, out=out["W_V"])
        torch.bmm(parameters["W_V"].mT, grad, out=out["W_O"])


MAP = Factorized
