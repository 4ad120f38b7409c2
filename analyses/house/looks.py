"""What figures share: labels and colours of the two parameterisations of W_OV, and bands over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ocr_interp.maps import maps

PAPERS_TWO = ("factorized", "non_factorized")
COLORS = {ov: maps[ov].colour for ov in PAPERS_TWO}
NAMES = {ov: maps[ov].label for ov in PAPERS_TWO}


def draw_seeds(
    ax: Axes, places: Sequence[float], by_seed: Sequence[Sequence[float | None]], color: str, **line: Any
) -> None:
    """Draws the median over seeds, and a band from the smallest to the largest.

    Args:
        ax: axes to draw on.
        places: where the values are, e.g. steps; places at which a value is None or 0 are left out.
        by_seed: one list of values per seed.
        color, line: look of the line, as in Axes.plot.
    """
    values = np.array(by_seed, dtype=float)
    there = np.isfinite(values).all(0) & (np.array(places) > 0)
    where, shown = np.array(places)[there], values[:, there]
    ax.fill_between(where, shown.min(0), shown.max(0), color=color, alpha=0.2, lw=0)
    ax.plot(where, np.median(shown, axis=0), color=color, **line)
