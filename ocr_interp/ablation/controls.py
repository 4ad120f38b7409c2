"""Draws of matched random controls; each place and each edit defines its own control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ocr_interp.ablation.random_positions import RandomPositions
from ocr_interp.hooked.protocol import HookedModel

RANDOM = "random"
"""Name of the controls of the same size."""
EQUAL_NORM = "random, equal norm"
"""Name of the controls that are also rescaled, to remove equally much."""


@dataclass(frozen=True)
class Draw:
    """One draw of random controls, and the pools that it draws from.

    A draw is uniform over all controls of the same size, so it may overlap with the intervention itself.

    Attributes:
        rng: the random generator; its state advances with every draw.
        model: the model; gives the number of heads.
        inputs: token ids; only positions with one of these tokens are drawn.
        outputs: token ids to draw from.
        length: number of positions of a sequence.
    """

    rng: np.random.Generator
    model: HookedModel
    inputs: Sequence[int]
    outputs: Sequence[int]
    length: int

    @classmethod
    def seeded(
        cls, seed: int, model: HookedModel, inputs: Sequence[int], outputs: Sequence[int], length: int
    ) -> Draw:
        """A draw whose generator has this seed."""
        return cls(np.random.default_rng(seed), model, inputs, outputs, length)

    def positions(self) -> RandomPositions:
        """Random positions of each prompt among those with a token of `inputs`."""
        return RandomPositions(int(self.rng.integers(2**31)), tuple(self.inputs))

    def some(self, pool: Sequence[int], count: int) -> tuple[int, ...]:
        """`count` different entries of a pool, sorted; the whole pool if it has fewer."""
        drawn = self.rng.choice(np.asarray(pool), min(count, len(pool)), replace=False)
        return tuple(sorted(int(k) for k in drawn))
