"""Gradient projection: what other prompts tell may not move values along the unwanted answers' features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.checks import check_flag
from ocr_interp.devices import seeded_generator
from ocr_interp.mitigation.aim import Aim
from ocr_interp.mitigation.descent import Descent, Steering
from ocr_interp.mitigation.methods.base import Mitigation


@dataclass(frozen=True)
class Projection(Mitigation):
    """Facts and wanted relations move W_V only across the span of W_O's columns of unwanted answers.

    Attributes:
        random: a fixed random subspace of as many dimensions instead, as a control.

    Source: gradients without a subspace (GRASP, arXiv 2605.27676), here in a model of one layer.
    """

    name: ClassVar[str] = "projection"
    label: ClassVar[str] = "projected gradients"
    knows: ClassVar[str] = "unwanted"

    random: bool = False

    def __post_init__(self) -> None:
        check_flag("random", self.random)

    def steering(self, descent: Descent, seed: int) -> Steering:
        """Takes the subspace out of what other prompts do to the values."""
        aim, unwanted = descent.aim, list(descent.aim.unwanted_relations)
        # Places and not a mask: a GPU would have to count a mask at every step, and be waited for.
        places = np.flatnonzero(np.isin(aim.task.answer_relation, unwanted))
        columns = torch.from_numpy(places).to(descent.device)
        others = torch.from_numpy(~np.isin(descent.told.relation, unwanted)).to(descent.device).unsqueeze(1)
        shape = (aim.task.n_answers, len(places))
        generator = seeded_generator("cpu", seed, 3)
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64).to(descent.device)

        def moves(pull: Float[Tensor, "prompt output"]) -> dict[str, Tensor]:
            found = descent.pull_back(pull)
            span = drawn if self.random else descent.parameters["W_O"][:, columns]
            basis, _ = torch.linalg.qr(span)
            of_others = descent.pull_back(pull * others)["W_V"]
            return {**found, "W_V": found["W_V"] - (of_others @ basis) @ basis.mT}

        return moves

    def controls(self, aim: Aim) -> Mapping[str, Mitigation]:
        """A random subspace of the same size."""
        return {"random projection": Projection(random=True)}


MITIGATION = Projection
