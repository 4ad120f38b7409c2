"""The result of a sweep: its runs, their curves, and the versions and settings that made them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ocr_interp.checks import as_tuples
from ocr_interp.configuration.run import RunConfig
from ocr_interp.errors import OcrInterpError, unknown_name
from ocr_interp.models.weights import TokenWeights
from ocr_interp.storage.notebooks import ShownAsTable
from ocr_interp.storage.tables import columns_of, history_table
from ocr_interp.sweeps.grid import FIELDS, config_columns
from ocr_interp.sweeps.records import RunRecord
from ocr_interp.sweeps.store import SweepStore
from ocr_interp.training.run import Run
from ocr_interp.training.tracking import COLUMNS

OUTCOME_COLUMNS = ("run", "status", "message", "seconds", "trained_on")
"""Columns of the table of runs beside the fields of the configurations, as in `RunRecord`."""

SHOWN_COLUMNS = (
    *("status", "step", "train_loss", "held_out_implication/loss", "held_out_implication/accuracy"),
    *("beta", "nuclear_norm", "gap_nuclear"),
)
"""Columns of `SweepResult.final` that a notebook shows beside the axes."""


@dataclass(frozen=True)
class SweepResult(ShownAsTable):
    """The runs of a sweep, also those that an earlier call into the same folder trained.

    Attributes:
        axes: the columns of the sweep's axes; after `load_sweep`, the columns in which the runs differ.
        runs: one row per run: OUTCOME_COLUMNS and every field of its configuration.
        table: one row per run and logged step: "run", the axes, "status", and the columns of the histories
            (`training.tracking`): losses in nats, margins in logits, beta, norms, certified gaps. A column
            that a run's history lacks is NaN in its rows.
        provenance: versions and settings that the runs were made with.
        path: the folder; None if the sweep is only in memory.
    """

    axes: tuple[str, ...]
    runs: pd.DataFrame
    table: pd.DataFrame
    provenance: Mapping[str, Any]
    path: Path | None
    _records: Mapping[str, RunRecord] = dataclasses.field(repr=False)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {status}" for status, n in self.runs["status"].value_counts().items())
        return f"SweepResult({len(self.runs)} runs over {', '.join(self.axes) or 'no axis'}: {counts})"

    def _in_notebooks(self) -> pd.DataFrame:
        final = self.final()
        return final.loc[:, [name for name in ("run", *self.axes, *SHOWN_COLUMNS) if name in final]]

    def final(self) -> pd.DataFrame:
        """One row per run: axes, outcome, and the metrics at its last logged step (NaN without one)."""
        last = self.table.groupby("run", sort=False).tail(1).drop(columns=[*self.axes, "status"])
        outcome = self.runs[["run", *self.axes, *OUTCOME_COLUMNS[1:]]]
        return outcome.merge(last, on="run", how="left", validate="one_to_one")

    def curves(self, column: str) -> pd.DataFrame:
        """One row per run and logged step: the run, the axes, the step and one metric.

        Raises:
            UnknownNameError: a column that is not measured.
        """
        known = [name for name in self.table.columns if name not in ("run", *self.axes, "status")]
        if column not in known:
            raise unknown_name("column", column, known)
        return self.table.loc[:, ["run", *self.axes, "step", column]]

    def select(self, **values: Any) -> SweepResult:
        """The runs whose configuration has these values, by column of `runs`; options as pairs or a dict.

        Raises:
            UnknownNameError: a column that does not exist.
            OcrInterpError: no run has these values.
        """
        keep = pd.Series(True, index=self.runs.index)
        for column, value in values.items():
            if column not in self.runs.columns:
                raise unknown_name("column", column, self.runs.columns)
            if isinstance(value, Mapping | list):
                keep &= self.runs["run"].map(lambda run, c=column, v=value: _has(self.config(run), c, v))
            elif value is None:
                keep &= self.runs[column].isna()
            elif isinstance(value, tuple):  # one value; pandas would compare it with the whole column
                keep &= self.runs[column].map(lambda found, value=value: found == value)
            else:
                keep &= self.runs[column] == value
        if not keep.any():
            raise OcrInterpError(f"no run of this sweep has {values}")
        runs = self.runs.loc[keep].reset_index(drop=True)
        table = self.table.loc[self.table["run"].isin(list(runs["run"]))].reset_index(drop=True)
        return dataclasses.replace(self, runs=runs, table=table)

    def run(self, name: str) -> Run:
        """One run with its history and weights, as `train` returns it.

        Raises:
            UnknownNameError: no such run in this sweep.
            OcrInterpError: the sweep kept no weights, or the run diverged or failed.
        """
        record = self._record(name)
        history, weights = history_table(record.rows), self._weights(record)
        step = int(history["step"].iloc[-1])
        return Run(record.config, step, weights, history, record.status, None)

    def config(self, name: str) -> RunConfig:
        """The configuration of a run."""
        return self._record(name).config

    def _record(self, name: str) -> RunRecord:
        """The record of a run by its name, or by the name of its files of version 1."""
        for run in self.runs["run"]:
            if name in (run, self._records[run].stamp):
                return self._records[run]
        raise unknown_name("run", name, self.runs["run"])

    def _weights(self, record: RunRecord) -> TokenWeights:
        if record.status not in ("finished", "learned"):
            raise OcrInterpError(f"run {record.run} has no weights: it {record.status} ({record.message})")
        if not self.provenance["keep_weights"]:
            raise OcrInterpError("this sweep kept no weights: pass keep_weights=True and a new path")
        if record.weights is not None or self.path is None:
            assert record.weights is not None
            return record.weights
        return SweepStore(self.path).read_weights(record)


def _has(config: RunConfig, column: str, value: Any) -> bool:
    """Whether a configuration is what it would be with this value, e.g. options without their defaults."""
    part, field = FIELDS[column]
    mine = getattr(config, part)
    try:
        return dataclasses.replace(mine, **{field: as_tuples(value)}) == mine
    except OcrInterpError:  # options that this run's parameterisation or optimiser does not have
        return False


def make_result(
    records: Sequence[RunRecord], axes: Sequence[str], provenance: Mapping[str, Any], path: Path | None
) -> SweepResult:
    """The tables of runs, in the order of the records."""
    outcomes, rows = [], []
    for record in records:
        config = config_columns(record.config)
        outcome = {name: getattr(record, name) for name in OUTCOME_COLUMNS}
        outcomes.append({**outcome, **config})
        chosen = {axis: config[axis] for axis in axes}
        rows += [{"run": record.run, **chosen, "status": record.status, **row} for row in record.rows]
    measured = columns_of([row for record in records for row in record.rows]) or list(COLUMNS)
    table = pd.DataFrame(rows, columns=["run", *axes, "status", *measured]).astype({"step": "int64"})
    by_name = {record.run: record for record in records}
    return SweepResult(tuple(axes), pd.DataFrame(outcomes), table, provenance, path, by_name)


def differing_columns(configs: Sequence[RunConfig]) -> tuple[str, ...]:
    """The columns in which configurations differ."""
    rows = [config_columns(config) for config in configs]
    return tuple(column for column in rows[0] if any(row[column] != rows[0][column] for row in rows))


def in_order(records: Sequence[RunRecord], columns: Sequence[str]) -> list[RunRecord]:
    """Records sorted by columns of their configurations; numbers come before text, None comes last."""

    def key(record: RunRecord) -> list[tuple[bool, bool, Any]]:
        values = config_columns(record.config)
        found = [values[column] for column in columns]
        numbers = [isinstance(value, int | float) for value in found]
        return [(v is None, not n, v if n else str(v)) for v, n in zip(found, numbers, strict=True)]

    return sorted(records, key=key)
