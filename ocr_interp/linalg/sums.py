"""Checks that contributions sum to their totals."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ocr_interp.errors import AttributionError

TOLERANCE = 1e-10
"""How far a sum of contributions may be from its total, relative to their sizes, in float64."""


def tolerance_of(eps: float) -> float:
    """How far numbers of a machine precision may be apart, relative to what they are summed from."""
    return TOLERANCE if eps <= 1e-15 else max(1e-4, 8 * eps)


def checked_residual(
    parts: Float[np.ndarray, "..."], total: float, eps: float, what: str, size: float | None = None
) -> float:
    """Sum of the parts minus the total.

    Args:
        parts: contributions.
        total: what they must sum to.
        eps: machine precision of the model's arithmetic; 2.2e-16 allows TOLERANCE, coarser ones more.
        what: name of the total in the message.
        size: of the products that the parts are made of, where they cancel inside the parts; without it the
            sum of the parts' sizes. The difference allowed is relative to it.

    Raises:
        AttributionError: they do not sum to it.
    """
    residual = float(parts.sum()) - total
    allowed = tolerance_of(eps) * max(size or 0.0, float(np.abs(parts).sum()), abs(total))
    if not abs(residual) <= allowed:
        raise AttributionError(
            f"contributions to {what} must sum to {total:.12g}, got {total + residual:.12g} (difference "
            f"{residual:.3g}, allowed {allowed:.1g}): the model computes something that the decomposition "
            "does not know, e.g. hooks that edit it or a logit cap"
        )
    return residual
