"""Histories of runs and sweeps as charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ocr_interp.sweeps.result import SweepResult
from ocr_interp.task import SPLITS
from ocr_interp.training.run import Run
from ocr_interp.viz.report.panels import (
    MOST_ROWS,
    Panel,
    Section,
    chart,
    curve,
    defined,
    label,
    numbers,
    split_name,
    table_panel,
    thinned,
)
from ocr_interp.viz.text.sweep import describe_sweep

COMPARED = (
    ("held_out_implication/loss", "loss of held-out implications, nats", True),
    ("held_out_implication/accuracy", "accuracy of held-out implications", False),
    ("beta", "β, held-out over training implications", False),
    ("train_loss", "training loss, nats", True),
    ("train_margin", "smallest training margin, logits", False),
    ("nuclear_norm", "nuclear norm of diag(a) W_OV, logits", False),
    ("gap_nuclear", "certified gap to the smallest nuclear norm", True),
    ("gap_frobenius", "certified gap to the smallest Frobenius norm", True),
    ("effective_rank", "effective rank", False),
)
"""Columns that runs are compared by: name, label with unit, whether the axis is logarithmic."""

MOST_CURVES, MOST_POINTS = 150, 12_000
"""Largest number of curves in a chart, and of points in all of its curves."""


def run_charts(run: Run, predicted: Mapping[str, float], keep: Sequence[int] = ()) -> list[Panel]:
    """Losses, β beside its predictions, certificates and accuracies of a run, over its steps.

    Args:
        run: a run with its history.
        predicted: label -> β of a prediction, drawn as horizontal lines.
        keep: steps whose rows are not left out.
    """
    history = run.history
    kept = [int(k) for k in np.flatnonzero(history["step"].isin(list(keep)))]
    rows = history.iloc[thinned(len(history), MOST_ROWS, kept)]
    few = f" {len(rows):,} of {len(history):,} logged rows are drawn." if len(rows) < len(history) else ""
    splits = [split for split in SPLITS if defined(history, f"{split}/loss")]
    losses = [curve(split_name(split), rows, f"{split}/loss") for split in splits]
    losses += [curve("training batches", rows, "train_loss")] if defined(history, "train_loss") else []
    trained = after_the_start(rows)
    accuracies = [curve(split_name(split), rows, f"{split}/accuracy") for split in splits]
    charts = [
        (
            "Losses",
            "Cross-entropy over the vocabulary. Held-out implications were never told.",
            losses,
            (),
            True,
        ),
        (
            "β, the share that is deduced",
            "How strongly a held-out implication is written, relative to a told one: 0 is silence, 1 as if "
            "told, below 0 pushed away. Lines: where gradient descent from a small start goes by theory "
            "(saddle), and the solutions of smallest norm, of this run's attention. No point at step 0, "
            "where β is a ratio of two random numbers.",
            [curve("β of the run", trained, "beta")] if defined(trained, "beta") else [],
            tuple(predicted.items()),
            False,
        ),
        (
            "Certificate",
            "A gap of 0.1 proves that the norm, at training margin 1, is at most 10 % above the smallest "
            "possible one. No points while a training margin is not positive.",
            [curve(f"{name.removeprefix('gap_')} norm", rows, name) for name in _gaps(history)],
            (),
            True,
        ),
        ("Accuracy", "Share of prompts whose right answer beats every other answer.", accuracies, (), False),
    ]
    units = ("loss, nats", "β", "certified relative gap", "accuracy")
    return [
        Panel("curves", title, text + few, {"charts": [chart(title, "step", y, series, lines, log_y=log)]})
        for (title, text, series, lines, log), y in zip(charts, units, strict=True)
        if series
    ]


def after_the_start(history: pd.DataFrame) -> pd.DataFrame:
    """A history without step 0: ratios of untrained weights, like β, mean nothing."""
    return history.loc[history["step"] > 0]


def _gaps(history: pd.DataFrame) -> list[str]:
    named = [str(name) for name in history.columns]
    return [name for name in named if name.startswith("gap_") and defined(history, name)]


def comparison(runs: Mapping[str, Run]) -> Section:
    """Several runs over each other, and their last rows as a table."""
    charts = _compared([(name, name, run.history) for name, run in runs.items()])
    last = [{"run": name, "status": run.status, **run.history.iloc[-1]} for name, run in runs.items()]
    panels = (
        Panel("curves", "Runs over training", "Choose what is compared; a button hides a run.", charts),
        table_panel("Last logged rows", pd.DataFrame(last), "One row per run.", "runs.csv"),
    )
    return Section("Comparison", (("runs", str(len(runs))),), panels)


def sweep_section(title: str, result: SweepResult) -> Section:
    """The runs of a sweep: their curves, their last values against each axis, and the table of runs."""
    names = [str(name) for name in result.runs["run"]]
    chosen = [names[k] for k in thinned(len(names), MOST_CURVES)]
    table = result.table
    of_run = dict(list(table.groupby("run", sort=False)))
    values = result.runs.set_index("run")
    first = next(iter(result.axes), None)
    histories = []
    for name in chosen:
        if name not in of_run:
            continue
        point = ", ".join(f"{axis} {values.loc[name, axis]}" for axis in result.axes)
        group = str(values.loc[name, first]) if first is not None else name
        histories.append((point or name, group, of_run[name]))
    panels = [
        table_panel("Runs", result.final(), "One row per run, its last logged step.", "sweep.csv", 2_000)
    ]
    if histories:
        left_out = f" {len(histories)} of {len(names)} runs are drawn." if len(histories) < len(names) else ""
        text = f"One curve per run, coloured by {first or 'run'}.{left_out}"
        panels.insert(0, Panel("curves", "Curves", text, _compared(histories)))
        against = _against_axes(result)
        if against["charts"]:
            panels.insert(1, Panel("curves", "Last values against the axes", "One point per run.", against))
    counts = result.runs["status"].value_counts()
    facts = (
        ("runs", f"{len(names):,}"),
        ("axes", ", ".join(result.axes) or "none"),
        ("outcomes", ", ".join(f"{count:,} {status}" for status, count in counts.items())),
    )
    return Section(label(title), facts, tuple(panels), words=describe_sweep(result))


def _compared(histories: Sequence[tuple[str, str, pd.DataFrame]]) -> dict[str, Any]:
    """Charts of COMPARED over named and grouped histories."""
    each = max(12, min(MOST_ROWS, MOST_POINTS // max(len(histories), 1)))
    charts = []
    for column, y, log in COMPARED:
        series = []
        for name, group, history in histories:
            shown = after_the_start(history) if column == "beta" else history
            if defined(shown, column):
                series.append(curve(name, shown.iloc[thinned(len(shown), each)], column, group))
        if series:
            charts.append(chart(y, "step", y, series, log_y=log))
    return {"charts": charts}


def _against_axes(result: SweepResult) -> dict[str, Any]:
    """Charts of the last values of COMPARED against each axis of numbers, grouped by the other axes."""
    final, charts = result.final(), []
    axes = [axis for axis in result.axes if axis != "seed"]
    for axis in axes:
        if not pd.api.types.is_numeric_dtype(final[axis]) or len(set(final[axis])) < 2:
            continue
        others = [other for other in axes if other != axis]
        for column, y, log in COMPARED[:3]:
            if not defined(final, column):
                continue
            series = []
            for name, rows in _points(final, others)[:MOST_CURVES]:
                rows = rows.sort_values(axis)
                x = [float(value) for value in rows[axis]]
                series.append({"name": name, "x": x, "y": numbers(rows[column])})
            charts.append(chart(f"{y} against {axis}", axis, y, series, log_y=log, marks=True))
    return {"charts": charts}


def _points(final: pd.DataFrame, axes: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """The rows by their values on some axes, named by these."""
    if not axes:
        return [("all runs", final)]
    named = final[list(axes)].astype(str).agg(", ".join, axis=1)
    return [(name, final.loc[named == name]) for name in dict.fromkeys(named)]
