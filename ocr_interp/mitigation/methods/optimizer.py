"""Another optimiser, such as Muon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ocr_interp.checks import check_number
from ocr_interp.mitigation.methods.base import Mitigation
from ocr_interp.optim import optimizers


@dataclass(frozen=True)
class Optimizer(Mitigation):
    """The factorized model under an optimiser of `ocr_interp.optim`.

    Attributes:
        optimizer: its name.
        lr: learning rate; gradients are those of the logarithm of the loss.
    """

    name: ClassVar[str] = "optimizer"
    label: ClassVar[str] = "optimiser"

    optimizer: str = "muon"
    lr: float = 0.02

    def __post_init__(self) -> None:
        optimizers.check("optimizer", self.optimizer)
        check_number("lr", self.lr, above=0)

    def optimizer_and_rate(self) -> tuple[str, float] | None:
        """Name and rate."""
        return self.optimizer, self.lr


MITIGATION = Optimizer
