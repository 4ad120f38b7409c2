"""The record of a run of a sweep that has ended, in memory and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ocr_interp.checks import check_choice, check_number
from ocr_interp.configuration import version_1
from ocr_interp.configuration.run import RunConfig
from ocr_interp.errors import RunError, shown
from ocr_interp.models.weights import TokenWeights
from ocr_interp.storage.tables import columns_of

STATUSES = ("finished", "learned", "diverged", "failed")
"""How a run ended: all steps done; stopped by stop_when_learned; a loss that was not finite; an error such
as lack of memory. The next sweep into the same folder tries failed runs again."""


@dataclass(frozen=True)
class RunRecord:
    """A run that has ended.

    Attributes:
        config: its configuration.
        status: one of STATUSES.
        message: what went wrong, empty otherwise.
        seconds: its share of the wall-clock time of its stack.
        trained_on: type of the device that trained it.
        rows: its history, one row per logged step.
        weights: weights of the last step if they are kept; they are stored in a file of their own.
        file_name: the name of its files if it differs from the run's name, as for runs of version 1.
    """

    config: RunConfig
    status: str
    message: str
    seconds: float
    trained_on: str
    rows: list[Mapping[str, float]]
    weights: TokenWeights | None = field(default=None, repr=False)
    file_name: str | None = None

    @property
    def run(self) -> str:
        """The run's name: the fingerprint of its configuration."""
        return self.config.fingerprint

    @property
    def stamp(self) -> str:
        """The fingerprint that its files are named by and contain."""
        return self.file_name or self.run

    @classmethod
    def failed(cls, config: RunConfig, error: BaseException, seconds: float = 0.0) -> RunRecord:
        """The record of a run that an error ended, which the message names."""
        first = next(iter(str(error).strip().splitlines()), "")
        message = f"{type(error).__name__}: {first[:500]}"
        return cls(config, "failed", message, seconds, "unknown", [])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, with every digit of the numbers: reading gives back the same bits."""
        columns = columns_of(self.rows)
        return {
            "run": self.run,
            "config": self.config.to_dict(),
            "status": self.status,
            "message": self.message,
            "seconds": self.seconds,
            "trained_on": self.trained_on,
            "columns": columns,
            "rows": [[float(row.get(column, math.nan)) for column in columns] for row in self.rows],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], version: int) -> RunRecord:
        """The record from the values of `to_dict`, of this version or of version 1, which had no "columns".

        Raises:
            RunError: its configuration does not have the fingerprint that it was written with.
        """
        config, run = RunConfig.from_dict(values["config"]), values["run"]
        is_first = version == 1
        expected = version_1.run_fingerprint(values["config"]) if is_first else config.fingerprint
        if expected != run:
            raise RunError(f"the configuration of run {run} was changed after it was written")
        columns = version_1.COLUMNS if is_first else values["columns"]
        rows: list[Mapping[str, float]] = [
            {name: float(value) for name, value in zip(columns, row, strict=True)} for row in values["rows"]
        ]
        told = {name: values[name] for name in ("status", "message", "seconds", "trained_on")}
        check_choice("status", told["status"], STATUSES)
        check_number("seconds", told["seconds"], at_least=0)
        for name in ("message", "trained_on"):
            if not isinstance(told[name], str):
                raise RunError(f"{name} of run {run} must be a text, got {shown(told[name])}")
        if any(not isinstance(name, str) for name in columns):
            raise RunError(f"the columns of run {run} must be texts, got {shown(columns)}")
        return cls(config, **told, rows=rows, file_name=run)
