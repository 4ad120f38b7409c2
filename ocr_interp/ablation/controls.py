"""What matched random controls are drawn from; each place and each edit says what its own control is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ocr_interp.ablation.random_positions import RandomPositions
from ocr_interp.hooked.protocol import HookedModel

RANDOM, EQUAL_NORM = "random", "random, equal norm"
"""Names of controls: of the same size, and rescaled to remove equally much."""


@dataclass(frozen=True)
class Draw:
    """One draw of random controls, and the pools that it draws from.

    A draw may hit what the intervention hits: it is one of all that are as large.

    Attributes:
        rng: what the next number is drawn from; it moves on.
        model: says how many heads there are.
        inputs: token ids; positions are drawn that hold one of them.
        outputs: token ids to draw from.
        length: positions of a sequence.
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
        """The draw of a seed."""
        return cls(np.random.default_rng(seed), model, inputs, outputs, length)

    def positions(self) -> RandomPositions:
        """Random positions of each prompt that hold one of `inputs`."""
        return RandomPositions(int(self.rng.integers(2**31)), tuple(self.inputs))

    def some(self, pool: Sequence[int], count: int) -> tuple[int, ...]:
        """As many different entries of a pool, sorted; the whole pool if it has no more."""
        drawn = self.rng.choice(np.asarray(pool), min(count, len(pool)), replace=False)
        return tuple(sorted(int(k) for k in drawn))
