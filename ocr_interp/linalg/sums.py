"""Checks that contributions sum to their totals."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ocr_interp.errors import AttributionError

TOLERANCE = 1e-10
"""How far a sum of contributions may be from its total, relative to the sum of their sizes (at least 1),
in float64."""


def checked_residual(parts: Float[np.ndarray, "..."], total: float, eps: float, what: str) -> float:
    """Sum of the parts minus the total.

    Args:
        parts: contributions.
        total: what they must sum to.
        eps: machine precision of the model's arithmetic; 2.2e-16 allows TOLERANCE, coarser ones more.
        what: name of the total in the message.

    Raises:
        AttributionError: they do not sum to it.
    """
    residual = float(parts.sum()) - total
    allowed = max(TOLERANCE, 1e3 * eps if eps > 1e-15 else 0.0) * max(1.0, float(np.abs(parts).sum()))
    if not abs(residual) <= allowed:
        raise AttributionError(
            f"contributions to {what} must sum to {total:.12g}, got {total + residual:.12g} (difference "
            f"{residual:.3g}, allowed {allowed:.1g}): the model computes something that the decomposition "
            "does not know, e.g. hooks that edit it or a logit cap"
        )
    return residual
