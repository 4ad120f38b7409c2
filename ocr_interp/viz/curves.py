"""Curves over training with a band over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

BAND = ("pi", 100)
"""Seaborn's error bar for bands from the smallest to the largest seed, without assumed distribution."""


def plot_band(
    ax: Axes, histories: Sequence[pd.DataFrame], column: str, color: str, label: str, **line: object
) -> None:
    """Draws the median over seeds of a history column against the step, with a band over all seeds.

    Args:
        ax: axes to draw on; step 0 is left out, so that the axis can be logarithmic.
        histories: one table per seed.
        column: a column of a history.
        color, label, line: look of the line, as in seaborn.lineplot.
    """
    together = pd.concat([history.loc[history["step"] > 0] for history in histories], ignore_index=True)
    sns.lineplot(
        together,
        x="step",
        y=column,
        ax=ax,
        estimator="median",
        errorbar=BAND,
        color=color,
        label=label,
        **line,  # pyright: ignore[reportArgumentType]
    )
