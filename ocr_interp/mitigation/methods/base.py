"""What a method may change: data, map, routes, start, steps, optimiser, and what is done after training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.devices import seeded_generator
from ocr_interp.maps.base import LinearMap
from ocr_interp.maps.factorized import Factorized
from ocr_interp.mitigation.aim import Aim
from ocr_interp.mitigation.descent import Descent, Steering
from ocr_interp.triples import Triples


@dataclass(frozen=True)
class Mitigation:
    """A method; its options are the fields of the dataclass. Every part has a default: that of doing nothing.

    A method must not touch what it does not say that it knows: `aim.unwanted` if it knows "nothing", and
    answers of `aim.untold` without "examples".

    Attributes:
        name: the name of its file, or the one that it is registered under.
        label: in figures and tables.
        knows: what it must be told beside the training set: "nothing"; "unwanted", which relation that is;
            "prompts", also untold subjects to ask about it; "examples", also answers for them; "features",
            what the base model knows of the answers.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    knows: ClassVar[str] = "nothing"

    def told(self, aim: Aim, seed: int) -> Triples:
        """The training set; may tell other answers for implications of `aim.untold`."""
        return aim.told

    def asked(self, aim: Aim, seed: int) -> Triples:
        """Untold prompts that it uses without an answer; they are not measured, if others are left."""
        return aim.untold.select(np.zeros(len(aim.untold), dtype=bool))

    def linear_map(self, aim: Aim, seed: int) -> LinearMap:
        """The parameterisation, for `aim.shape` and float64."""
        return Factorized(d_head=aim.task.n_answers)

    def routes(self, aim: Aim) -> tuple[int, ...]:
        """For a map with one matrix per route: the route of each relation's prompts. Else zeros."""
        return (0,) * aim.task.n_relations

    def start(self, aim: Aim, linear_map: LinearMap, entries: float, seed: int) -> dict[str, Tensor]:
        """Parameters at the start, float64; by default normal with standard deviation `entries`."""
        return normal_start(linear_map.shapes(*aim.shape), entries, seed)

    def steering(self, descent: Descent, seed: int) -> Steering:
        """The function that makes moves of a pull on the logits; asked for once, before the first step."""
        return descent.pull_back

    def optimizer_and_rate(self) -> tuple[str, float] | None:
        """Name of an optimiser and learning rate; None: descent with limited steps."""
        return None

    def finished(
        self, W: Float[np.ndarray, "route input output"], aim: Aim, seed: int
    ) -> Float[np.ndarray, "route input output"]:
        """The matrices as they are used, from the trained ones; may return W itself."""
        return W

    def controls(self, aim: Aim) -> Mapping[str, Mitigation]:
        """By label: as much of the same without what it knows; empty if it knows nothing."""
        return {}


def normal_start(shapes: Mapping[str, tuple[int, ...]], entries: float, seed: int) -> dict[str, Tensor]:
    """Normal entries of this standard deviation, float64 on the CPU, one stream for each parameter."""
    return {
        name: entries * torch.randn(shape, generator=seeded_generator("cpu", seed, k), dtype=torch.float64)
        for k, (name, shape) in enumerate(shapes.items())
    }
