"""The outcome of a sweep as text for a terminal."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ocr_interp.sweeps.result import SweepResult
from ocr_interp.viz.text.undefined import Numbers

MEASURES = {
    "train_loss": "train loss",
    "held_out_implication/loss": "held-out loss",
    "held_out_implication/accuracy": "held-out accuracy",
    "beta": "beta",
}
"""Columns shown, as means over seeds at the last logged step; held-out means held-out implications."""

ABOUT = (
    "means over seeds at the last step; held-out: implications never told; losses in nats, over the "
    "vocabulary; accuracy: the right answer beats all other answers"
)

MAX_LINES = 60


def describe_sweep(result: SweepResult) -> str:
    """One line per point: means of MEASURES over seeds, and the range of the loss; errors come first."""
    final, axes = result.final(), [axis for axis in result.axes if axis != "seed"]
    header = [*axes, "runs", *MEASURES.values(), "held-out loss, range"]
    groups = [group for _, group in final.groupby(axes, sort=False, dropna=False)] if axes else [final]
    numbers = Numbers()
    lines = [
        [*(_plain(group[axis].iloc[0]) for axis in axes), *_measured(group, numbers)] for group in groups
    ]
    widths = [max(len(line[k]) for line in [header, *lines]) for k in range(len(header))]
    shown = [
        "  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
        for line in [header, *lines]
    ]
    if len(shown) > MAX_LINES:
        shown = [*shown[:MAX_LINES], f"... {len(lines) - MAX_LINES + 1} more points: table.csv has all"]
    counts = ", ".join(f"{n} {status}" for status, n in result.runs["status"].value_counts().items())
    bad = result.runs[result.runs["message"] != ""]
    failures = [f"  {row['run']}: {row['message']}" for _, row in bad.head(5).iterrows()]
    said = [*numbers.notes, ABOUT]
    return "\n".join([f"{len(result.runs)} runs: {counts}", *failures, "", *shown, *said])


def _measured(group: pd.DataFrame, numbers: Numbers) -> list[str]:
    """Number of runs that finished or learned, their means, and the range of the held-out loss."""
    good = group[group["status"].isin(("finished", "learned"))]
    values = {column: np.asarray(good[column], dtype=float) for column in MEASURES}
    loss = values["held_out_implication/loss"]
    spread = f"{loss.min():.3g} to {loss.max():.3g}" if np.isfinite(loss).any() else "none"
    why_not = (
        "the task has no held-out implications, or none to compare them with"
        if len(good)
        else "no run of this point finished or learned"
    )
    means = [float(each.mean()) if len(each) else np.nan for each in values.values()]
    return [f"{len(good)}/{len(group)}", *(numbers.show(mean, ".4g", why_not) for mean in means), spread]


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
