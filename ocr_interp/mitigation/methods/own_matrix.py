"""Prompts of unwanted relations have one matrix of their own; all others are factorized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.checks import check_choice
from ocr_interp.maps.base import Draw, LinearMap, Parameters
from ocr_interp.mitigation.aim import Aim
from ocr_interp.mitigation.methods.base import Mitigation, normal_start


@dataclass(frozen=True)
class FactorizedAndMatrix(LinearMap):
    """Route 0: W_V W_O. Route 1: one matrix."""

    name: ClassVar[str] = "factorized_and_matrix"
    label: ClassVar[str] = "factorized, and one matrix"

    @property
    def n_routes(self) -> int | None:
        """Two."""
        return 2

    def shapes(self, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
        """W_V [input, d_head], W_O [d_head, output] and W_own [input, output]."""
        d_head = self.width(n_out)
        return {"W_V": (n_in, d_head), "W_O": (d_head, n_out), "W_own": (n_in, n_out)}

    def start(self, draw: Draw) -> dict[str, Tensor]:
        """Normal entries."""
        shapes = self.shapes(draw.n_tokens, draw.n_tokens)
        return {name: draw.normal(name, *shape) for name, shape in shapes.items()}

    def product(self, parameters: Parameters) -> Float[Any, "*run 2 input output"]:
        """Both matrices."""
        return torch.stack([parameters["W_V"] @ parameters["W_O"], parameters["W_own"]], dim=-3)

    def gradients(
        self, parameters: Parameters, grad: Float[Any, "*run 2 input output"]
    ) -> dict[str, Float[Any, "..."]]:
        """Of the factors from route 0, of the matrix from route 1."""
        first, own = grad[..., 0, :, :], grad[..., 1, :, :]
        return {"W_V": first @ parameters["W_O"].mT, "W_O": parameters["W_V"].mT @ first, "W_own": own}


@dataclass(frozen=True)
class OwnMatrix(Mitigation):
    """A map of its own, not factorized, for what shall be learned by heart.

    Attributes:
        of: whose prompts have it: "unwanted", or "wanted" as a control.
    """

    name: ClassVar[str] = "own_matrix"
    label: ClassVar[str] = "own matrix"
    knows: ClassVar[str] = "unwanted"

    of: str = "unwanted"

    def __post_init__(self) -> None:
        check_choice("of", self.of, ("unwanted", "wanted"))

    def linear_map(self, aim: Aim, seed: int) -> LinearMap:
        """Two factors and a matrix."""
        return FactorizedAndMatrix(d_head=aim.task.n_answers)

    def routes(self, aim: Aim) -> tuple[int, ...]:
        """1 for these relations, else 0."""
        own = aim.unwanted_relations if self.of == "unwanted" else aim.wanted_relations
        return tuple(int(k in own) for k in range(aim.task.n_relations))

    def start(self, aim: Aim, linear_map: LinearMap, entries: float, seed: int) -> dict[str, Tensor]:
        """Normal; the matrix has entries of the size that the product of the factors has."""
        found = normal_start(linear_map.shapes(*aim.shape), entries, seed)
        return {**found, "W_own": found["W_own"] * entries * aim.task.n_answers**0.5}

    def controls(self, aim: Aim) -> Mapping[str, Mitigation]:
        """The same for the wanted relations."""
        return {"own matrix of the wanted": replace(self, of="wanted")}


MITIGATION = OwnMatrix
