"""Resample: replaces values by those of another sequence of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from ocr_interp.ablation.edits.base import Edit
from ocr_interp.ablation.where.base import Place, Replacement
from ocr_interp.errors import ModelError


@dataclass(frozen=True)
class Resample(Edit):
    """Sets the chosen entries to those of another sequence of the batch, at the same position.

    The donors are a random permutation with a single cycle (Sattolo's algorithm), so no sequence is its own
    donor. Each forward pass inside `ablated` draws the next permutation of the seed. At a site every sequence
    of the batch can be a donor; on a path only those with a token of the path.

    Attributes:
        seed: seed of the permutations; or a torch.Generator on the CPU, whose state advances, so that the
            edit is not repeatable.

    Raises:
        ModelError: in the forward pass, fewer than two sequences to exchange.
    """

    seed: int | torch.Generator = 0

    former_names: ClassVar = {"Resample": "ResampleAblation"}

    needs_others: ClassVar = True

    def prepare(self, place: Place) -> Replacement:
        generator = self.seed
        if not isinstance(generator, torch.Generator):
            generator = torch.Generator().manual_seed(generator)

        def replacement(value: Tensor, mask: Tensor) -> Tensor:
            rows = place.sharing(mask)
            if len(rows) == 1:
                holding, hint = "", ""
                if place.by_query:
                    holding, hint = f" with {place.name}", ", or tokens of the others among inputs too"
                raise ModelError(f"resampling needs >= 2 sequences{holding}, got 1: pass more prompts{hint}")
            if not len(rows):
                return value
            drawn = value[rows[donors(len(rows), generator).to(rows.device)]]
            if len(rows) == len(value):
                return drawn
            other = value.clone()
            other[rows] = drawn
            return other

        return replacement


def donors(count: int, generator: torch.Generator) -> Int[Tensor, " batch"]:
    """A random permutation with a single cycle, so without fixed points (Sattolo's algorithm)."""
    order = list(range(count))
    for last in range(count - 1, 0, -1):
        other = int(torch.randint(last, (1,), generator=generator))
        order[last], order[other] = order[other], order[last]
    return torch.tensor(order)


EDIT = Resample
