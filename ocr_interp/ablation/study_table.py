"""The rows of an ablation study and the file that they are kept in."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd

from ocr_interp.errors import RunError
from ocr_interp.storage.tensors import write_atomic

KEYS = ("study", "spec", "description", "control", "seed", "split")
"""Columns that say what a row is; TOUCHED and the metrics follow. `study` is the fingerprint of weights and
data."""

TOUCHED = "touched"
"""Column: how many positions of a prompt are acted on, mean over the split; several parts are added up."""

Row = dict[str, Any]


class StudyRows:
    """Rows of one study, read from its file where there is one, and written whole after each evaluation.

    Args:
        path: a CSV file; None keeps the rows in memory alone.
        study: fingerprint of what is studied.
        metrics: names of the measured columns.

    Raises:
        RunError: a file of another study, with other columns, or damaged.
    """

    def __init__(self, path: Path | None, study: str, metrics: tuple[str, ...]) -> None:
        self._path, self._metrics = path, metrics
        self._rows = _read(path, study, metrics)

    def has(self, key: Row) -> bool:
        """Whether rows with these entries are there."""
        return any(all(row[name] == value for name, value in key.items()) for row in self._rows)

    def add(self, rows: list[Row]) -> None:
        """Adds the rows of one evaluation."""
        self._rows += rows
        if self._path is None:
            return
        buffer = io.StringIO()
        self.table().to_csv(buffer, index=False, na_rep="nan")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path, buffer.getvalue().encode())

    def table(self) -> pd.DataFrame:
        """All rows."""
        return pd.DataFrame(self._rows, columns=[*KEYS, TOUCHED, *self._metrics])


def _read(path: Path | None, study: str, metrics: tuple[str, ...]) -> list[Row]:
    if path is None or not path.exists():
        return []
    try:
        table = pd.read_csv(path, dtype="str", keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is no table of a study ({error}): move it away") from None
    columns = [*KEYS, TOUCHED, *metrics]
    if list(table.columns) != columns:
        raise RunError(
            f"{path} must have the columns {columns}, got {list(table.columns)}: choose another path, or the "
            "same metrics in the same order"
        )
    others = sorted(set(table["study"]) - {study})
    if others:
        raise RunError(
            f"{path} is of study {others[0]}, this one is {study} (other weights, step, examples, "
            "eval_draws, batch_size or custom metrics): choose another path, or delete the file"
        )
    numbers: Any = {"seed": int} | dict.fromkeys(
        (TOUCHED, *metrics), float
    )  # Python's own reading gives every bit back
    try:
        return [{str(k): numbers.get(k, str)(v) for k, v in row.items()} for row in table.to_dict("records")]
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}): delete it and run the study again") from None
