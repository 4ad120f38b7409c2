"""How far margins and singular values of a found solution are from the optimum's: estimated, not proved.

A certified gap g bounds the norm. Everything else may be off by about the root of it: matrices whose norm is
within g of the optimum differ from it by the root of g times a factor of the task, which can be large. The
factor is measured while the gap falls: numbers that moved by d while the gap fell from G to g have about
d √g / (√G − √g) to go.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ocr_interp.theory.reduction.bounds import UNKNOWN, Accuracy
from ocr_interp.theory.reduction.certificate import among_implications
from ocr_interp.theory.reduction.margins import example_map, singular_values
from ocr_interp.theory.reduction.symmetry import Blocks, ReducedProblem

_SAFETY = 4.0
_ROUNDING = 1e-15
"""Smallest gap that floating-point numbers tell from 0."""
_EARLIER = (2.0, 1000.0)
"""Gaps of earlier points that are compared with the last one, in units of its gap."""


@dataclass(frozen=True)
class _Point:
    gap: float
    margins: Float[np.ndarray, " margin"]
    values: Float[np.ndarray, " value"]


class AccuracyEstimate:
    """Compares the points of one problem at falling gaps.

    Args:
        reduced: the problem.
    """

    def __init__(self, reduced: ReducedProblem) -> None:
        self._reduced, self._held_out = reduced, example_map(reduced, held_out=True)
        self._among = among_implications(self._held_out)
        self._points: list[_Point] = []

    def add(self, gap: float, blocks: Blocks) -> None:
        """Takes a point with smallest training margin 1; one with hardly a smaller gap is left out."""
        gap = max(gap, _ROUNDING)
        if self._points and gap > 0.95 * self._points[-1].gap:
            return
        examples = self._held_out
        margins = examples.margins(examples.values(examples.logits(blocks)))
        among = np.where(self._among, margins, np.inf).min(axis=1, initial=np.inf)
        found = np.concatenate([among, margins.min(axis=1, initial=np.inf)])
        point = _Point(gap, found[np.isfinite(found)], singular_values(self._reduced, blocks)[0])
        if len(self._points) > 1 and gap > 0.7 * self._points[-2].gap:
            self._points[-1] = point  # the last one is always kept, earlier ones at falling gaps
        else:
            self._points.append(point)

    def estimate(self) -> Accuracy:
        """Of the last point; UNKNOWN before there are two earlier ones at larger gaps to compare it with."""
        *earlier, last = self._points or [_Point(0.0, np.zeros(0), np.zeros(0))]
        least, most = (last.gap * factor for factor in _EARLIER)
        errors = []
        for point in (p for p in earlier if least <= p.gap <= most):
            share = _SAFETY * np.sqrt(last.gap) / (np.sqrt(point.gap) - np.sqrt(last.gap))
            moved = (np.abs(last.margins - point.margins), np.abs(last.values - point.values))
            errors.append([share * float(m.max(initial=0.0)) for m in moved])
        if len(errors) < 2:
            return UNKNOWN
        margin, value = np.max(errors, axis=0).tolist()
        return Accuracy(margin, value, proved=False)
