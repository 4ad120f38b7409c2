"""A smaller or larger start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ocr_interp.checks import check_number
from ocr_interp.maps.base import LinearMap
from ocr_interp.mitigation.aim import Aim
from ocr_interp.mitigation.methods.base import Mitigation


@dataclass(frozen=True)
class Start(Mitigation):
    """The factorized model from entries of another size; a large one deduces less (docs/theory.md §10).

    Attributes:
        entries: standard deviation of the entries of the factors.
    """

    name: ClassVar[str] = "start"
    label: ClassVar[str] = "start"

    entries: float = 0.5

    def __post_init__(self) -> None:
        check_number("entries", self.entries, above=0)

    def start(self, aim: Aim, linear_map: LinearMap, entries: float, seed: int) -> dict[str, Tensor]:
        """The same draws in this size."""
        return super().start(aim, linear_map, self.entries, seed)


MITIGATION = Start
