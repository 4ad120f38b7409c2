"""The definition of a figure: its pictures, experiments, cost, drawing function and claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_args

from analyses.house.claims import Claim
from analyses.house.experiments import Experiment
from ocr_interp.errors import ConfigError

if TYPE_CHECKING:
    from analyses.house.drawing import Drawing

Measured = TypeVar("Measured")
Cost = Literal["quick", "slow"]


def no_claims(measured: Any) -> list[Claim]:
    """The claims of a figure that makes none."""
    return []


@dataclass(frozen=True)
class Figure(Generic[Measured]):
    """One figure; a module of a study has it as its constant `FIGURE`.

    Attributes:
        pictures: names of the pictures, each written as .png, .svg and .json; empty for claims without one.
        draw: function of the folder of runs and the folder of figures; writes the pictures and returns the
            measurements.
        claims: function from the measurements that `draw` returned to the claims.
        cost: "quick" figures are drawn by `ocr-interp reproduce`, "slow" ones only with `--all` or `--only`.
        experiments: experiments that must be trained before it is drawn.
        drawings: the pictures that are drawn from the numbers of their JSON alone, by name.
    """

    pictures: tuple[str, ...]
    draw: Callable[[Path, Path], Measured]
    claims: Callable[[Measured], Sequence[Claim]] = no_claims
    cost: Cost = "quick"
    experiments: tuple[Experiment, ...] = ()
    drawings: Mapping[str, Drawing] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.cost not in get_args(Cost):
            raise ConfigError(f"the cost of a figure must be 'quick' or 'slow', got {self.cost!r}")
