"""Curves over training: runs, bands over seeds, sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from ocr_interp.errors import unknown_name
from ocr_interp.storage.plain import printable
from ocr_interp.sweeps.result import SweepResult
from ocr_interp.training.run import Run
from ocr_interp.viz.style import current_style

BAND = ("pi", 100)
"""Seaborn's error bar for bands from the smallest to the largest seed, without assumed distribution."""


def plot_band(
    ax: Axes, histories: Sequence[pd.DataFrame], column: str, color: str, label: str, **line: object
) -> Axes:
    """Draws the median over seeds of a history column against the step, with a band over all seeds.

    Args:
        ax: axes to draw on; step 0 is left out, so that the axis can be logarithmic.
        histories: one table per seed.
        column: a column of a history.
        color, label, line: look of the line, as in seaborn.lineplot.

    Returns: the axes.

    >>> from matplotlib.figure import Figure
    >>> import pandas as pd
    >>> seeds = [pd.DataFrame({"step": [0, 1, 2], "beta": [0.0, b, b]}) for b in (0.4, 0.6)]
    >>> plot_band(Figure().subplots(), seeds, "beta", "#0173b2", "two seeds").lines[0].get_ydata()
    array([0.5, 0.5])
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
    return ax


def plot_runs(
    ax: Axes, runs: Run | Mapping[str, Run], column: str, *, lines: Mapping[str, float] | None = None
) -> Axes:
    """Draws a column of the history of one run, or of several by name, against the step.

    Args:
        ax: axes to draw on.
        runs: the runs; a single one has no legend.
        column: a column of their histories, e.g. "beta" or "held_out_implication/loss". Of "beta" step 0 is
            left out: β of random weights is a ratio of two random numbers.
        lines: horizontal lines by name, e.g. {"saddle": run.saddle.beta}.

    Returns: the axes.

    Raises:
        UnknownNameError: a column that a history does not have.

    >>> from matplotlib.figure import Figure
    >>> from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, train
    >>> recipe = TrainConfig(steps=20, batch_size=12, device="cpu")
    >>> run = train(FactRecallTask(3, 1, 2), ModelConfig(d_head=8), recipe, progress=False)
    >>> plot_runs(Figure().subplots(), run, "beta", lines={"fully deduced": 1.0}).get_ylabel()
    'beta'
    """
    named = {"": runs} if isinstance(runs, Run) else dict(runs)
    for k, (name, run) in enumerate(named.items()):
        if column not in run.history:
            raise unknown_name("column of a history", column, list(run.history.columns))
        colour = current_style().colour(k)
        history = run.history[run.history["step"] > 0] if column == "beta" else run.history
        ax.plot(history["step"], history[column], color=colour, label=printable(name))
    heights = dict(lines or {})
    for height in heights.values():
        ax.axhline(height, color=current_style().neutral, ls="--", lw=1.1)
    low, high = ax.get_ylim()
    for name, height in heights.items():
        below = height > high - 0.12 * (high - low)  # its name would stick out of the axes
        text = ax.annotate(
            f"{printable(name)} {height:.3g}",
            (1, height),
            (-3, -3 if below else 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="top" if below else "bottom",
            parse_math=False,
        )
        text.set_path_effects([withStroke(linewidth=3, foreground=ax.get_facecolor())])
    if len(named) > 1:
        ax.legend(frameon=False)
    ax.set(xlabel="training step", ylabel=column)
    return ax


def plot_sweep(
    ax: Axes, result: SweepResult, column: str, *, x: str = "step", hue: str | None = None
) -> Axes:
    """Draws a column of a sweep: the median over runs and a band over all of them.

    Args:
        ax: axes to draw on.
        result: the sweep; `result.select(...)` takes a part of it.
        column: a measured column, e.g. "beta".
        x: "step" for curves, or an axis of the sweep for the last values against it.
        hue: an axis of the sweep whose values have a line each; None draws one line over all runs.

    Returns: the axes.

    Raises:
        UnknownNameError: a column or an axis that the sweep does not have.

    >>> from matplotlib.figure import Figure
    >>> from ocr_interp import FactRecallTask, TrainConfig, sweep
    >>> recipe = TrainConfig(steps=4, batch_size=12, device="cpu")
    >>> result = sweep({"lr": [0.01, 0.1]}, task=FactRecallTask(3, 1, 2), train=recipe, progress=False)
    >>> plot_sweep(Figure().subplots(), result, "train_loss", x="lr").get_xlabel()
    'lr'
    """
    for axis in (x, hue):
        if axis not in ("step", None, *result.axes):
            raise unknown_name("axis of the sweep", axis, ("step", *result.axes))
    curves = result.curves(column)
    shown = curves if x == "step" else curves.groupby("run", sort=False).tail(1)
    groups = [("", shown)]
    if hue is not None:
        groups = [(str(value), rows) for value, rows in shown.groupby(hue, sort=False)]
    marker = None if x == "step" else "o"
    for k, (name, rows) in enumerate(groups):
        colour = current_style().colour(k)
        values = pd.DataFrame(rows.groupby(x, sort=True)[column].agg(["median", "min", "max"]))
        at = np.asarray(values.index)
        middle, low, high = (np.asarray(values[name], dtype=np.float64) for name in ("median", "min", "max"))
        ax.plot(at, middle, color=colour, label=printable(name), marker=marker)
        ax.fill_between(at, low, high, color=colour, alpha=0.18, lw=0)
    if hue is not None:
        ax.legend(title=hue, frameon=False)
    ax.set(xlabel="training step" if x == "step" else x, ylabel=column)
    return ax
