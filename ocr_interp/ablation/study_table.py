"""The rows of an ablation study, and the file that stores them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ocr_interp.errors import RunError
from ocr_interp.storage.atomic import write_atomic
from ocr_interp.storage.reading import read_bytes
from ocr_interp.storage.tables import columns_of, csv_bytes

KEYS = ("study", "spec", "description", "control", "seed", "split")
"""Columns that identify a row; TOUCHED and the metrics follow. `study` is the fingerprint of weights and
data.

A file may have more metrics than are requested, which are kept, or fewer: rows that lack a requested metric
are measured again."""

TOUCHED = "touched"
"""Column: number of edited positions per prompt, mean over the split; the sum over several interventions."""

Row = dict[str, Any]

_AGAIN = "run the study again: it goes on with what is missing"


class StudyRows:
    """Rows of one study, read from its file if it exists; the file is rewritten after each evaluation.

    Args:
        path: a CSV file; None keeps the rows only in memory.
        study: fingerprint of the study.
        metrics: names of the measured columns.

    Raises:
        RunError: the file belongs to another study, is no table of a study, or is damaged.
    """

    def __init__(self, path: Path | None, study: str, metrics: tuple[str, ...]) -> None:
        self._path, self._metrics = path, metrics
        self._rows = _read(path, study)

    def has(self, key: Row) -> bool:
        """Whether there are rows with these entries and all metrics."""
        found = [row for row in self._rows if _agrees(row, key)]
        return bool(found) and all(metric in row for row in found for metric in self._metrics)

    def add(self, rows: list[Row]) -> None:
        """Adds the rows of one evaluation; earlier rows with the same entries keep their other metrics."""
        for row in rows:
            key = {name: row[name] for name in KEYS}
            earlier = [each for each in self._rows if _agrees(each, key)]
            if earlier:
                earlier[0].update(row)
            else:
                self._rows.append(row)
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path, csv_bytes(self._with_gaps(), missing="nan"), _AGAIN)

    def table(self) -> pd.DataFrame:
        """All rows with the requested metrics."""
        return pd.DataFrame(self._rows, columns=[*KEYS, TOUCHED, *self._metrics])

    def _with_gaps(self) -> pd.DataFrame:
        """All rows with all metrics; values that were not measured are empty texts, to tell them from NaN."""
        columns = [*KEYS, TOUCHED, *(name for name in columns_of(self._rows) if name not in (*KEYS, TOUCHED))]
        table = pd.DataFrame(self._rows, columns=columns)
        for name in columns:
            gaps = [name not in row for row in self._rows]
            if any(gaps):
                table[name] = table[name].astype(object)
                table.loc[gaps, name] = ""
        return table


def _agrees(row: Row, key: Row) -> bool:
    return all(row[name] == value for name, value in key.items())


def _read(path: Path | None, study: str) -> list[Row]:
    if path is None or not path.exists():
        return []
    try:
        table = pd.read_csv(io.BytesIO(read_bytes(path)), dtype="str", keep_default_na=False)
    except (ValueError, OSError) as error:
        raise RunError(f"{path} is no table of a study ({error}): move it away") from None
    columns = [*KEYS, TOUCHED]
    if list(table.columns[: len(columns)]) != columns:
        raise RunError(
            f"{path} must begin with the columns {columns}, got {list(table.columns)}: choose another path"
        )
    others = sorted(set(table["study"]) - {study})
    if others:
        raise RunError(
            f"{path} is of study {others[0]}, this one is {study} (other weights, step, examples, "
            "eval_draws, batch_size or custom metrics): choose another path, or delete the file"
        )
    try:
        return [_typed(row) for row in table.to_dict("records")]
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}): delete it and run the study again") from None


def _typed(texts: Mapping[Any, str]) -> Row:
    """A row with its types, from texts; empty metrics were not measured. float() restores every bit."""
    row: Row = {name: texts[name] for name in KEYS} | {"seed": int(texts["seed"])}
    measured = {str(name): text for name, text in texts.items() if name not in KEYS}
    return row | {name: float(text) for name, text in measured.items() if text}
