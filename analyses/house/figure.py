"""What a figure is: the pictures it leaves, what it needs and costs, how it is drawn, what it claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

from analyses.house.claims import Claim
from analyses.house.experiments import Experiment
from ocr_interp.errors import ConfigError

Measured = TypeVar("Measured")
Cost = Literal["quick", "slow"]


def no_claims(measured: Any) -> list[Claim]:
    """The claims of a figure that only shows."""
    return []


@dataclass(frozen=True)
class Figure(Generic[Measured]):
    """One figure; a module of a study has it as its constant `FIGURE`.

    Attributes:
        pictures: names of what it leaves, each as .png, .svg and .json; none for claims without a picture.
        draw: takes the folder of runs and that of figures, writes the pictures, returns what was measured.
        claims: from what `draw` returned to the claims about it.
        cost: "quick" is part of `ocr-interp reproduce`, "slow" of `--all` and `--only` alone.
        experiments: what it needs to be trained before it is drawn.
    """

    pictures: tuple[str, ...]
    draw: Callable[[Path, Path], Measured]
    claims: Callable[[Measured], Sequence[Claim]] = no_claims
    cost: Cost = "quick"
    experiments: tuple[Experiment, ...] = ()

    def __post_init__(self) -> None:
        if self.cost not in get_args(Cost):
            raise ConfigError(f"the cost of a figure must be 'quick' or 'slow', got {self.cost!r}")
