"""How training goes on without a method: as a factorized model on the plain training set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.maps.base import Draw, LinearMap, Parameters
from ocr_interp.maps.factorized import Factorized
from ocr_interp.mitigation.descent import Descent
from ocr_interp.mitigation.methods.base import normal_start


@dataclass(frozen=True, eq=False)
class Beside(LinearMap):
    """Frozen matrices, one per route, and one factorized update for all of them."""

    name: ClassVar[str] = "beside"
    label: ClassVar[str] = "a factorized update beside frozen matrices"

    base: Any = None

    @property
    def n_routes(self) -> int | None:
        """As many as there are frozen matrices."""
        return len(self.base)

    def shapes(self, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
        """W_V [input, d_head] and W_O [d_head, output]."""
        d_head = self.width(n_out)
        return {"W_V": (n_in, d_head), "W_O": (d_head, n_out)}

    def start(self, draw: Draw) -> dict[str, Tensor]:
        """Normal entries."""
        shapes = self.shapes(draw.n_tokens, draw.n_tokens)
        return {name: draw.normal(name, *shape) for name, shape in shapes.items()}

    def product(self, parameters: Parameters) -> Float[Any, "*run route input output"]:
        """The frozen matrices, each with the update."""
        return self.base + (parameters["W_V"] @ parameters["W_O"]).unsqueeze(-3)

    def gradients(
        self, parameters: Parameters, grad: Float[Any, "*run route input output"]
    ) -> dict[str, Float[Any, "..."]]:
        """Of the update, which all routes have."""
        of_all = grad.sum(-3)
        return {"W_V": of_all @ parameters["W_O"].mT, "W_O": parameters["W_V"].mT @ of_all}


def without_method(
    descent: Descent,
    used: Float[np.ndarray, "route input output"],
    trained: Float[np.ndarray, "route input output"],
    entries: float,
    seed: int,
) -> Descent:
    """The descent that goes on.

    Args:
        descent: with the method, at its end.
        used: the matrices after `Mitigation.finished`.
        trained: before it.
        entries, seed: of the update that is trained beside several matrices.
    """
    aim, routes = descent.aim, descent.routes
    W = torch.from_numpy(used)
    linear_map: LinearMap = Factorized(d_head=min(aim.shape))
    if len(W) > 1:
        linear_map = Beside(base=W.to(descent.device), d_head=min(aim.shape))
        parameters = normal_start(linear_map.shapes(*aim.shape), entries, seed)
    elif isinstance(descent.linear_map, Factorized) and np.array_equal(used, trained):
        linear_map, parameters = descent.linear_map, descent.parameters
    else:
        U, s, Vh = torch.linalg.svd(W[0], full_matrices=False)
        parameters = {"W_V": U * s.sqrt(), "W_O": s.sqrt().unsqueeze(1) * Vh}
    return Descent(aim, aim.told, linear_map, routes, parameters, device=descent.device)
