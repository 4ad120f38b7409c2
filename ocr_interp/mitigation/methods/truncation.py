"""The trained matrix without one end of its spectrum, by degenerate block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from ocr_interp.checks import check_choice, check_count, check_number
from ocr_interp.errors import ConfigError
from ocr_interp.linalg.spectrum import spectrum_of
from ocr_interp.mitigation.aim import Aim
from ocr_interp.mitigation.methods.base import Mitigation


@dataclass(frozen=True)
class Truncation(Mitigation):
    """Drops singular directions after training.

    Attributes:
        drop: "top", the largest block of the pairs; "tail", what is smaller than the blocks of the pairs and
            of the relations together; "random", as many directions as "top", drawn on the output side.
        count: how many directions to drop from the top, or to keep before the tail; whole blocks are taken,
            so it may be more. 0: n_facts - 1 from the top; before the tail one more per implied relation.
        tolerance: a block holds the singular values within this share of the largest one.

    Source: a truncated tail, arXiv 2606.07596; dropped top entries, arXiv 2504.09522.
    """

    name: ClassVar[str] = "truncation"
    label: ClassVar[str] = "truncation"

    drop: str = "tail"
    count: int = 0
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        check_choice("drop", self.drop, ("top", "tail", "random"))
        check_count("count", self.count, 0)
        check_number("tolerance", self.tolerance, at_least=0)

    def finished(
        self, W: Float[np.ndarray, "route input output"], aim: Aim, seed: int
    ) -> Float[np.ndarray, "route input output"]:
        """W without the directions.

        Raises:
            ConfigError: a count that is no smaller than the number of directions.
        """
        task, most = aim.task, min(aim.shape)
        if self.count >= most:
            raise ConfigError(f"count must be < {most}, the directions that there are, got {self.count}")
        count = self.count or task.n_facts - 1 + (task.implied_relations if self.drop == "tail" else 0)
        if self.drop == "random":
            drawn = np.random.default_rng([seed, 4]).normal(size=(task.n_answers, count))
            basis, _ = np.linalg.qr(drawn)
            return W - (W @ basis) @ basis.T
        found = spectrum_of(W[0], np.eye(W.shape[2]), self.tolerance)
        ends = np.cumsum(found.multiplicities)
        first = int(np.searchsorted(ends, count))
        top = np.sum([block.component for block in found.blocks[: first + 1]], axis=0)
        return (top if self.drop == "tail" else W[0] - top)[None]

    def controls(self, aim: Aim) -> Mapping[str, Mitigation]:
        """Random directions."""
        return {"without random directions": replace(self, drop="random")}


MITIGATION = Truncation
