"""Tables of numbers in CSV files whose header names the columns.

A history has one row per logged step. Its columns are those of its rows, "step" first: rows that were
written before a column was added have no value there (NaN).
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ocr_interp.errors import RunError
from ocr_interp.storage.reading import read_bytes

STEP = "step"
"""The first column of every history: number of updates."""


MOST_BYTES = 2**30
"""Largest table that is read: a million rows, which no run exceeds, of forty columns."""


def columns_of(rows: Sequence[Mapping[Any, Any]]) -> list[str]:
    """All column names of some rows, in order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def history_table(rows: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    """Rows of a history as a table: steps as integers, all other columns as floating-point numbers."""
    columns = columns_of(rows) or [STEP]
    frame = pd.DataFrame(list(rows), columns=columns)
    return frame.astype({name: "int64" if name == STEP else "float64" for name in columns})


def csv_bytes(table: pd.DataFrame, missing: str = "") -> bytes:
    """The bytes of a CSV file with all digits of every number, so that reading gives back the same bits."""
    text = io.StringIO()
    table.to_csv(text, index=False, lineterminator="\n", na_rep=missing)
    return text.getvalue().encode()


def read_history(path: Path, wanted: Collection[str] | None, advice: str) -> pd.DataFrame:
    """The history in a CSV file, exactly as it was.

    Args:
        path: the file.
        wanted: the columns to read, which must be there; None reads all.
        advice: what to do about a file that is missing or damaged.

    Raises:
        RunError: no such file, a damaged one, or one without a wanted column.
    """
    try:
        # As text first: float() of a string is exact, which a fast CSV parser need not be.
        text = pd.read_csv(io.BytesIO(read_bytes(path, MOST_BYTES)), dtype=str)
    except FileNotFoundError:
        raise RunError(f"{path} is missing: {advice}") from None
    except (ValueError, OSError) as error:
        raise RunError(f"{path} is damaged ({error}): {advice}") from None
    columns = [str(name) for name in text.columns]
    if wanted is not None and len(set(wanted)) < len(wanted):
        raise RunError(f"{path} cannot be read by columns that are named twice: {advice}")
    absent = [name for name in (wanted or ()) if name not in columns]
    if columns[:1] != [STEP] or absent:
        lacks = f"lacks the columns {', '.join(absent[:4])}" if absent else f"must begin with {STEP}"
        raise RunError(f"{path} has other columns than this history ({lacks}): {advice}")
    try:
        return history_table(text.loc[:, list(wanted or columns)].to_dict("records"))
    except (ValueError, OverflowError) as error:
        raise RunError(f"{path} is damaged ({error}): {advice}") from None
