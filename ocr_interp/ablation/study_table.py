"""The rows of an ablation study, and the file that stores them.

Each row of the file ends in its seal, the digest of its other cells: a cell that was changed is refused when
the study goes on, and rows without a seal, as earlier versions wrote them, are measured again.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ocr_interp.errors import RunError
from ocr_interp.storage.atomic import write_atomic
from ocr_interp.storage.reading import read_bytes
from ocr_interp.storage.seals import SEAL, seal_of
from ocr_interp.storage.tables import columns_of, csv_bytes

KEYS = ("study", "spec", "description", "control", "seed", "split")
"""Columns that identify a row; TOUCHED and the metrics follow. `study` is the fingerprint of weights and
data.

A file may have more metrics than are requested, which are kept, or fewer: rows that lack a requested metric
are measured again."""

TOUCHED = "touched"
"""Column: number of edited positions per prompt, mean over the split; the sum over several interventions."""

Row = dict[str, Any]

_DELETE = "delete that line, or the file, and run the study again: it measures what is missing"
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
        rows, unsealed = _read(path, study)
        self._rows = rows
        # Rows of an earlier version stay in the file until they are measured again.
        self._unsealed = unsealed

    def has(self, key: Row) -> bool:
        """Whether there are rows with these entries and all metrics."""
        found = [row for row in self._rows if _agrees(row, key)]
        return bool(found) and all(metric in row for row in found for metric in self._metrics)

    def add(self, rows: list[Row]) -> None:
        """Adds the rows of one evaluation; earlier rows with the same entries keep their other metrics."""
        for row in rows:
            key = {name: row[name] for name in KEYS}
            self._unsealed = [each for each in self._unsealed if not _agrees(each, key)]
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
        rows = [*self._unsealed, *({**row, SEAL: _seal(row)} for row in self._rows)]
        fixed = (*KEYS, TOUCHED, SEAL)
        columns = [*KEYS, TOUCHED, *(name for name in columns_of(rows) if name not in fixed), SEAL]
        table = pd.DataFrame(rows, columns=columns)
        for name in columns:
            gaps = [name not in row for row in rows]
            if any(gaps):
                table[name] = table[name].astype(object)
                table.loc[gaps, name] = ""
        return table


def read_rows(path: Path) -> tuple[str, list[Row]]:
    """The study and the sealed rows of a file of a study, all metrics.

    Raises:
        RunError: no such file, no table of a study, of several studies, damaged, or without a sealed row.
    """
    if not path.exists():
        raise RunError(f"{path} is missing: name the .csv file that `ocr-interp ablate -o` wrote")
    studies = sorted(set(_texts(path)["study"]))
    if len(studies) != 1:
        raise RunError(f"{path} must hold the rows of one study, got {len(studies)}: measure it again")
    rows, unsealed = _read(path, studies[0])
    if not rows:
        why = "rows of an earlier version have no seal" if unsealed else "it is empty"
        raise RunError(f"{path} has no rows that can be trusted ({why}): run the study again")
    return studies[0], rows


def _agrees(row: Row, key: Row) -> bool:
    return all(row[name] == value for name, value in key.items())


def _seal(row: Row) -> str:
    """The digest of the cells of a row, as they are written."""
    return seal_of({name: str(value) if name in KEYS else repr(float(value)) for name, value in row.items()})


def _read(path: Path | None, study: str) -> tuple[list[Row], list[Row]]:
    """The rows of a file that have their seal, and those that have none."""
    if path is None or not path.exists():
        return [], []
    table = _texts(path)
    others = sorted(set(table["study"]) - {study})
    if others:
        raise RunError(
            f"{path} is of study {others[0]}, this one is {study} (other weights, step, examples, "
            "eval_draws, batch_size or custom metrics): choose another path, or delete the file"
        )
    rows: list[Row] = []
    unsealed: list[Row] = []
    for line, texts in enumerate(table.to_dict("records"), start=2):
        seal = texts.pop(SEAL, "")
        try:
            row = _typed(texts)
        except (ValueError, AttributeError) as error:
            raise RunError(f"{path} is damaged (line {line}: {error}): {_DELETE}") from None
        if seal and seal != _seal(row):
            raise RunError(
                f"{path} was changed after it was written (line {line}, {row['spec']!r}, is not "
                f"that of its seal): {_DELETE}"
            )
        (rows if seal else unsealed).append(row)
    return rows, unsealed


def _texts(path: Path) -> pd.DataFrame:
    """The cells of a file as texts.

    Raises:
        RunError: no table of a study.
    """
    try:
        table = pd.read_csv(io.BytesIO(read_bytes(path)), dtype="str", keep_default_na=False)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise RunError(f"{path} is no table of a study ({error}): move it away") from None
    columns = [*KEYS, TOUCHED]
    if list(table.columns[: len(columns)]) != columns:
        raise RunError(
            f"{path} must begin with the columns {columns}, got {list(table.columns)}: choose another path"
        )
    return table


def _typed(texts: Mapping[Any, str]) -> Row:
    """A row with its types, from texts; empty metrics were not measured. float() restores every bit."""
    row: Row = {name: texts[name] for name in KEYS} | {"seed": int(texts["seed"])}
    measured = {str(name): text for name, text in texts.items() if name not in KEYS}
    return row | {name: float(text) for name, text in measured.items() if text}
