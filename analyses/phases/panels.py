"""What phase diagrams have in common: the numbers of a row, and heat maps over two axes.

A cell whose training set is not fitted says nothing about out-of-context reasoning; it has a hollow marker or
a hatch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from analyses.phases.grids import at_the_end

MARKERS = {"factorized": "o", "non_factorized": "s"}

SUMMARISED = (
    "beta",
    "margin_ratio",
    "held_out/accuracy",
    "held_out_implication/accuracy_in_set",
    "held_out/loss",
    "train_margin",
    "train_loss",
    "gap_nuclear",
    "gap_frobenius",
)


@dataclass(frozen=True)
class Row:
    """The runs of one recipe over the values of one axis or two.

    Attributes:
        table: table of `phases.grids.trained`, or a part of it.
        by: its columns that tell cells apart.
        title: names the recipe.
        beta: the predicted β and margin ratio by kind of model, one value or one interval (low, high) for
            each value; a kind without a prediction is left out.
    """

    table: pd.DataFrame
    by: Sequence[str]
    title: str
    beta: Mapping[str, Sequence[float | tuple[float, float]]] = field(default_factory=dict)


def row_numbers(rows: Sequence[Row]) -> dict[str, Any]:
    """The numbers of every cell of some rows, and the predicted β."""
    return {
        f"{k}: {row.title}": {"predicted_beta": dict(row.beta), "cells": cells(row.table, row.by)}
        for k, row in enumerate(rows)
    }


def cells(table: pd.DataFrame, by: Sequence[str]) -> list[dict[str, Any]]:
    """Numbers of each cell and model: by seed, at the end, and which seeds fitted the training set."""
    found = []
    for key, group in at_the_end(table).groupby([*by, "ov"], sort=True):
        names: Any = key
        cell: dict[str, Any] = dict(zip([*by, "ov"], names, strict=True))
        cell |= {"steps": int(group["steps"].iloc[0]), "fitted": group["fitted"].tolist()}
        found.append(cell | {column: group[column].tolist() for column in SUMMARISED})
    return found


def power(value: float) -> str:
    """A power of ten, or a short number."""
    exponent = np.log10(value) if value > 0 else 0.5
    exact = abs(exponent - round(exponent)) < 1e-9 and abs(exponent) > 1.5
    short = f"{value:.0e}".replace("e-0", "e-") if 0 < value < 0.01 else f"{value:g}"
    return f"$10^{{{round(exponent)}}}$" if exact else short


def draw_map(
    ax: Axes,
    values: pd.DataFrame,
    fitted: pd.DataFrame | None,
    title: str,
    limits: tuple[float, float] = (0.0, 1.0),
    colors: str = "cividis",
    fontsize: float | None = None,
) -> Any:
    """A heat map with its numbers; cells that are not fitted are hatched.

    Args:
        ax: axes to draw on.
        values: rows by columns, drawn from the bottom up.
        fitted: whether each cell fitted, of the same shape; None for a prediction.
        title: title of the panel.
        limits: values of the first and last colour.
        colors: name of the colours.
        fontsize: size of the numbers in points; that of the style, if left out.
    """
    shown = values.to_numpy(dtype=float)
    told = np.ones_like(shown, dtype=bool) if fitted is None else fitted.to_numpy(dtype=bool)
    evidence = np.isfinite(shown) & told
    image = ax.imshow(
        np.where(evidence, shown, np.nan),
        origin="lower",
        cmap=colors,
        vmin=limits[0],
        vmax=limits[1],
        aspect="auto",
    )
    for (y, x), value in np.ndenumerate(shown):
        if told[y, x] and not evidence[y, x]:
            ax.text(x, y, "none", ha="center", va="center", color="0.5")
            continue
        if not evidence[y, x]:
            ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fc="none", ec="0.6", hatch="////", lw=0))
            continue
        dark = (value - limits[0]) / (limits[1] - limits[0]) < 0.5
        ax.text(
            *(x, y, f"{round(value, 2) + 0.0:.2f}"),
            ha="center",
            va="center",
            color="white" if dark else "black",
            fontsize=fontsize,
        )
    ax.set_xticks(range(values.shape[1]), [str(v) for v in values.columns])
    ax.set_yticks(range(values.shape[0]), [str(v) for v in values.index])
    ax.set_title(title, loc="left", fontsize=10)
    ax.tick_params(length=0)
    return image
