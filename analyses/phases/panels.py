"""How a phase diagram is drawn: rows of panels over one axis, and heat maps over two.

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
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from analyses.house.looks import COLORS, NAMES
from analyses.phases.grids import OV_KINDS, at_the_end

EARLY = 0.1
"""Share of the steps at which the dashed lines are measured."""

MARKERS = {"factorized": "o", "non_factorized": "s"}

SHOWN = {
    "beta": "held-out coefficient β",
    "margin_ratio": "held-out / training margin",
    "held_out/accuracy": "held-out accuracy",
    "gap": "certified gap to the smallest norm",
    "train_loss": "training loss (nats)",
}
"""Column -> label, in the order of the panels. The gap is that of each model's own norm."""

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

GAPS = {"factorized": "gap_nuclear", "non_factorized": "gap_frobenius"}


@dataclass(frozen=True)
class Row:
    """One row of panels.

    Attributes:
        table: table of `phases.grids.trained`, or a part of it.
        x: column of the axis; its values are evenly spaced.
        xlabel, title: texts; the title names the recipe.
        ticks: function from a value to its label.
        beta: the predicted β and margin ratio by kind of model, one value or one interval (low, high) for
            each x; a kind without a prediction is left out.
        ordered: whether the values have an order, so that they are joined by lines.
    """

    table: pd.DataFrame
    x: str
    xlabel: str
    title: str
    ticks: Mapping[Any, str] = field(default_factory=dict)
    beta: Mapping[str, Sequence[float | tuple[float, float]]] = field(default_factory=dict)
    ordered: bool = True

    @property
    def values(self) -> list[Any]:
        """The values of the axis, in order."""
        return list(self.ticks) or sorted(self.table[self.x].unique())


def with_gap(table: pd.DataFrame) -> pd.DataFrame:
    """The table with "gap", the certified gap of each model's own norm."""
    nuclear = table["ov"] == "factorized"
    return table.assign(gap=table["gap_nuclear"].where(nuclear, table["gap_frobenius"]))


def cells(table: pd.DataFrame, by: Sequence[str]) -> list[dict[str, Any]]:
    """Numbers of each cell and model: by seed, at the end, and which seeds fitted the training set."""
    found = []
    for key, group in at_the_end(table).groupby([*by, "ov"], sort=True):
        names: Any = key
        cell: dict[str, Any] = dict(zip([*by, "ov"], names, strict=True))
        cell |= {"steps": int(group["steps"].iloc[0]), "fitted": group["fitted"].tolist()}
        found.append(cell | {column: group[column].tolist() for column in SUMMARISED})
    return found


def draw_row(axes: Sequence[Axes], row: Row, columns: Sequence[str] = tuple(SHOWN)) -> None:
    """All panels of a row: medians over seeds with bands over all of them, dashed an earlier time."""
    for ax, column in zip(axes, columns, strict=True):
        for ov in OV_KINDS:
            _draw_line(ax, row, ov, column)
        if column in ("beta", "margin_ratio"):
            _draw_prediction(ax, row)
        _dress(ax, row, column)
    axes[0].set_title(row.title, loc="left", fontsize=10)


def _draw_line(ax: Axes, row: Row, ov: str, column: str) -> None:
    table = with_gap(row.table)
    table = table.loc[table["ov"] == ov]
    for share in (EARLY, 1.0):
        groups = dict(list(at_the_end(table, share).groupby(row.x)))
        # Infinite gaps of models that are not fitted cannot be drawn.
        numbers = [groups[value][column].replace(np.inf, np.nan) for value in row.values]
        place, middle = np.arange(len(numbers)), np.array([n.median() for n in numbers])
        low, high = [n.min() for n in numbers], [n.max() for n in numbers]
        if share < 1:
            look: dict[str, Any] = {"ls": (0, (2, 2))} if row.ordered else {"ls": "", "marker": "_", "ms": 10}
            ax.plot(place, middle, lw=1, color=COLORS[ov], **look)
            continue
        if row.ordered:
            ax.plot(place, middle, color=COLORS[ov], lw=1.5)
            ax.fill_between(place, low, high, color=COLORS[ov], alpha=0.2, lw=0)
        else:
            ax.vlines(place, low, high, color=COLORS[ov], lw=3, alpha=0.4)
        for k, value in enumerate(row.values):
            filled = bool(groups[value]["fitted"].all())
            ax.plot(
                k,
                middle[k],
                MARKERS[ov],
                ms=5.5,
                color=COLORS[ov],
                mfc=COLORS[ov] if filled else "white",
                zorder=3,
            )
            if not filled and ov == "factorized":
                ax.axvspan(k - 0.5, k + 0.5, fc="none", ec="0.8", hatch="////", lw=0, zorder=0)


def _draw_prediction(ax: Axes, row: Row) -> None:
    for values in row.beta.values():
        low, high = np.array([v if isinstance(v, tuple) else (v, v) for v in values], dtype=float).T
        place = np.arange(len(low))
        if (low < high).any():
            ax.errorbar(
                place, (low + high) / 2, (high - low) / 2, ls="", color="0.2", capsize=7, lw=1.3, zorder=1
            )
        else:
            ax.plot(place, low, ls=(0, (1, 1.2)), color="0.15", lw=1.6, zorder=2)


def _dress(ax: Axes, row: Row, column: str) -> None:
    shown = [row.ticks.get(value, str(value)) for value in row.values]
    ax.set_xticks(range(len(shown)), shown)
    ax.tick_params(axis="x", labelsize=8)
    ax.set(xlabel=row.xlabel, ylabel=SHOWN[column], xlim=(-0.5, len(shown) - 0.5))
    if column in ("gap", "train_loss"):
        ax.set_yscale("log")
    elif column == "held_out/accuracy":
        ax.set_ylim(-0.05, 1.05)
    else:
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        low, high = ax.get_ylim()
        ax.set_ylim(max(low, -0.6), min(max(high, 1.05), 1.3))


def legend_handles(rows: Sequence[Row], dashed: str) -> list[Line2D | Patch]:
    """Legend entries for the colours, markers and lines that occur in these rows."""
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=COLORS[ov], marker=MARKERS[ov], label=NAMES[ov]) for ov in OV_KINDS
    ]
    if any(row.beta for row in rows):
        handles.append(Line2D([], [], color="0.15", ls=(0, (1, 1.2)), lw=1.6, label="predicted"))
    handles.append(Line2D([], [], color="0.4", ls=(0, (2, 2)), lw=1, label=dashed))
    ends = pd.concat([at_the_end(row.table, 1.0) for row in rows])
    unfitted = set(ends.loc[~ends["fitted"].astype(bool), "ov"])
    if unfitted:
        handles.append(
            Line2D([], [], color="0.4", marker="o", mfc="white", ls="", label="training set not fitted")
        )
    if "factorized" in unfitted:
        label = "factorized not fitted: no evidence"
        handles.append(Patch(fc="none", ec="0.6", hatch="////", lw=0, label=label))
    return handles


def draw_map(
    ax: Axes,
    values: pd.DataFrame,
    fitted: pd.DataFrame | None,
    title: str,
    limits: tuple[float, float] = (0.0, 1.0),
    colors: str = "cividis",
) -> Any:
    """A heat map with its numbers; cells that are not fitted are hatched.

    Args:
        ax: axes to draw on.
        values: rows by columns, drawn from the bottom up.
        fitted: whether each cell fitted, of the same shape; None for a prediction.
        title: title of the panel.
        limits: values of the first and last colour.
        colors: name of the colours.
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
            x, y, f"{round(value, 2) + 0.0:.2f}", ha="center", va="center", color="white" if dark else "black"
        )
    ax.set_xticks(range(values.shape[1]), [str(v) for v in values.columns])
    ax.set_yticks(range(values.shape[0]), [str(v) for v in values.index])
    ax.set_title(title, loc="left", fontsize=10)
    ax.tick_params(length=0)
    return image
