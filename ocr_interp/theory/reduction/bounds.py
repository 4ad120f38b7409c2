"""Bounds of the optimal norm from blocks and dual weights of a reduced problem."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from ocr_interp.theory.norms import UnitarilyInvariantNorm
from ocr_interp.theory.reduction.margins import ExampleMap, singular_values
from ocr_interp.theory.reduction.symmetry import Blocks


@dataclass(frozen=True)
class Accuracy:
    """How far what a solution reports may be from the optimum; NaN where nothing is known.

    Attributes:
        margin: of held-out margins among the implications and overall, in logits at training margin 1.
        value: of singular values of W.
        proved: whether the errors are proved (`solver.ranges`) or estimated (`solver.accuracy`).
        unique: False if other matrices of the same norm were found (`solver.minimisers`): the errors are then
            the distances to them. True if there are none, None if it is not known.
        ranges: smallest and largest margin among the implications, of every held-out group of the reduced
            problem; None if they are not known.
    """

    margin: float
    value: float
    proved: bool
    unique: bool | None = None
    ranges: Float[np.ndarray, "group end"] | None = field(repr=False, default=None)


EXACT = Accuracy(0.0, 0.0, True)
"""Of a closed form."""

UNKNOWN = Accuracy(float("nan"), float("nan"), False)
"""Of a single point: nothing to compare it with."""


@dataclass(frozen=True)
class ReducedSolution:
    """The best primal and dual points found; `primal` and `dual` are bounds, whatever the method did.

    Attributes:
        blocks: W at smallest training margin 1, as blocks; zero blocks if no margin became positive.
        weights: dual weights [example group, distinct value], >= 0, of one example and one output.
        primal, dual: upper and lower bound of the optimal norm.
        iterations: steps taken; 0 for methods without steps.
        accuracy: error bars of margins and singular values.
    """

    blocks: Blocks
    weights: Float[np.ndarray, "example value"] = field(repr=False)
    primal: float
    dual: float
    iterations: int
    accuracy: Accuracy = UNKNOWN

    @property
    def gap(self) -> float:
        """primal / dual − 1; inf before there are both bounds."""
        return self.primal / self.dual - 1 if self.dual > 0 else np.inf


def dual_blocks(examples: ExampleMap, weights: Float[np.ndarray, "example value"]) -> Blocks:
    """Σ μ_k A_k as blocks, for weights >= 0 that vanish where multiplicity does."""
    push = -weights
    push[np.arange(len(push)), examples.correct] = (examples.multiplicity * weights).sum(axis=1)
    return examples.adjoint(examples.from_values(push))


def reduced_dual_bound(
    examples: ExampleMap, weights: Float[np.ndarray, "example value"], norm: UnitarilyInvariantNorm
) -> float:
    """Lower bound of the optimal norm from dual weights; 0 if they all vanish."""
    total = float(examples.scale**2 @ (examples.multiplicity * weights).sum(axis=1))
    if total == 0:
        return 0.0
    values, count = singular_values(examples.reduced, dual_blocks(examples, weights))
    return total / norm.dual_of_spectrum(values, count)


def smallest_margin(examples: ExampleMap, blocks: Blocks) -> float:
    """Smallest training margin, in logits."""
    return float(examples.margins(examples.values(examples.logits(blocks))).min())
