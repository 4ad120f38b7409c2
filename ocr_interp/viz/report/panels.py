"""The parts of a report as data, and how many of their numbers a page has room for."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from ocr_interp.storage.plain import plain, printable

DIGITS = 5
"""Significant digits of numbers in a page; files of the results have all of them."""

LEVELS = 127
"""Levels of a quantized entry on either side of zero."""

MOST_ROWS = 400
"""Rows of a history in a page; the others are left out, which the page says."""

MATRIX_BYTES = 1_500_000
"""Bytes of all quantized matrices of a report, before they are written as text (4/3 of that)."""

LONGEST = 300
"""Most letters of a label."""


@dataclass(frozen=True)
class Panel:
    """One interactive part of a page.

    Attributes:
        kind: which script draws it: "curves", "heatmap", "geometry", "circuit", "bars" or "table".
        title: what it shows, a few words.
        text: what one sees, and what was left out or rounded.
        data: what the script reads: values that JSON can hold.
    """

    kind: str
    title: str
    text: str
    data: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Section:
    """One result.

    Attributes:
        title: its name.
        facts: names and values, shown as a list.
        panels: its parts.
        steps: of a slider that moves all panels together; empty without one.
        words: the result as text for a terminal; empty for none.
        notes: what is missing, and why.
        verdict: what the result shows, in a sentence or two; empty for none.
    """

    title: str
    facts: tuple[tuple[str, str], ...] = field(repr=False)
    panels: tuple[Panel, ...] = field(repr=False)
    steps: tuple[int, ...] = ()
    words: str = field(default="", repr=False)
    notes: tuple[str, ...] = ()
    verdict: str = ""


def label(text: object) -> str:
    """A text of others as one that can be shown: control characters written out, long ones cut."""
    shown = printable(str(text))
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"


def split_name(split: str) -> str:
    """A split in words: "held-out implication"."""
    return split.replace("held_out", "held-out").replace("_", " ")


def numbers(values: Any) -> Any:
    """Numbers with DIGITS significant digits, as lists; NaN and infinite ones are None."""
    return plain(np.asarray(values, dtype=np.float64), DIGITS)


def quantized(
    matrices: Sequence[Float[np.ndarray, "row column"]],
) -> tuple[str, list[float]]:
    """Matrices as one byte per entry: base64 of all, and what a full level of each is worth.

    An entry is level / LEVELS × worth, so its error is at most worth / (2 LEVELS).
    """
    worth = [float(np.abs(matrix).max(initial=0.0)) for matrix in matrices]
    levels = [
        np.rint(matrix / (most or 1.0) * LEVELS).astype(np.int8)
        for matrix, most in zip(matrices, worth, strict=True)
    ]
    return base64.b64encode(b"".join(level.tobytes() for level in levels)).decode(), worth


def thinned(count: int, most: int, keep: Iterable[int] = ()) -> Int[np.ndarray, " kept"]:
    """Indices of at most `most` of `count` rows and of those to keep: dense at the start, the last one in."""
    if count <= most:
        return np.arange(count)
    half = most // 2
    early = np.geomspace(1, count, half) - 1
    found = np.unique(np.concatenate([early, np.linspace(0, count - 1, most - half), np.asarray(list(keep))]))
    return np.unique(np.rint(found).astype(np.int64))


def table_panel(title: str, table: pd.DataFrame, text: str, file: str, most: int = MOST_ROWS) -> Panel:
    """A table that can be sorted and downloaded, thinned to `most` rows.

    Args:
        title, text: of the panel.
        table: any table; numbers are rounded to DIGITS digits.
        file: name of the CSV file that the page offers.
        most: largest number of rows.
    """
    rows = thinned(len(table), most)
    shown = table.iloc[rows]
    columns, cells = [], []
    for place, name in enumerate(shown.columns):
        column = shown.iloc[:, place]
        numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        columns.append({"name": label(name), "numeric": numeric})
        cells.append(numbers(column) if numeric else [_cell(value) for value in column])
    left_out = f" {len(rows):,} of {len(table):,} rows are shown." if len(rows) < len(table) else ""
    rounded = f" Numbers have {DIGITS} digits." if any(column["numeric"] for column in columns) else ""
    data = {"columns": columns, "cells": cells, "file": file}
    return Panel("table", title, f"{text}{left_out}{rounded}".strip(), data)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return label(value)


def chart(
    name: str,
    x: str,
    y: str,
    series: Sequence[Mapping[str, Any]],
    lines: Sequence[tuple[str, float]] = (),
    *,
    log_x: bool = False,
    log_y: bool = False,
    marks: bool = False,
) -> dict[str, Any]:
    """One set of axes for a panel of kind "curves".

    Args:
        name: of the chart, where a panel has several to choose from.
        x, y: labels of the axes, with units.
        series: each with "name" and the lists "x" and "y"; optional "group", whose members share a colour.
        lines: horizontal lines: label and height; those that are not finite are left out.
        log_x, log_y: whether the axes start as logarithmic ones.
        marks: whether points are marked.
    """
    return {
        "name": label(name),
        "x": label(x),
        "y": label(y),
        "series": [
            {**one, "name": label(one["name"]), "group": label(one.get("group", one["name"]))}
            for one in series
        ],
        "lines": [{"name": label(of), "y": value} for of, value in lines if np.isfinite(value)],
        "log_x": log_x,
        "log_y": log_y,
        "marks": marks,
    }


def defined(table: pd.DataFrame, column: str) -> bool:
    """Whether a table has a column with a finite number in it."""
    return column in table and bool(np.isfinite(table[column].to_numpy(dtype=np.float64)).any())


def curve(name: str, history: pd.DataFrame, column: str, group: str | None = None) -> dict[str, Any]:
    """One column of a history as a series of a chart."""
    found = {"name": name, "x": history["step"].tolist(), "y": numbers(history[column])}
    return found if group is None else {**found, "group": group}
