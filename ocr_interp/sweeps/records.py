"""What is known of a run of a sweep once it has ended, and its place in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ocr_interp.configuration.run import RunConfig
from ocr_interp.errors import RunError
from ocr_interp.models.weights import TokenWeights
from ocr_interp.training.tracking import COLUMNS

STATUSES = ("finished", "learned", "diverged", "failed")
"""Of a run: all steps; stopped by stop_when_learned; a loss that was not finite; an error such as lack
of memory, which the next sweep into the same folder tries again."""


@dataclass(frozen=True)
class RunRecord:
    """A run that has ended.

    Attributes:
        config: its configuration.
        status: one of STATUSES.
        message: what went wrong, empty otherwise.
        seconds: its share of the wall-clock time of its stack.
        trained_on: type of the device that trained it.
        rows: its history, a row a logged step, with the columns of `training.tracking`.
        weights: of the last step, where they are kept; not part of the record's file.
    """

    config: RunConfig
    status: str
    message: str
    seconds: float
    trained_on: str
    rows: list[Mapping[str, float]]
    weights: TokenWeights | None = field(default=None, repr=False)

    @property
    def run(self) -> str:
        """The run's name: the fingerprint of its configuration."""
        return self.config.fingerprint

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; numbers in full, so that reading gives back the same bits."""
        return {
            "run": self.run,
            "config": self.config.to_dict(),
            "status": self.status,
            "message": self.message,
            "seconds": self.seconds,
            "trained_on": self.trained_on,
            "rows": [[float(row[column]) for column in COLUMNS] for row in self.rows],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunRecord:
        """The record of a `to_dict`.

        Raises:
            RunError: its configuration does not have the fingerprint that it was written with.
        """
        config = RunConfig.from_dict(values["config"])
        if config.fingerprint != values["run"]:
            raise RunError(f"the configuration of run {values['run']} was changed after it was written")
        rows: list[Mapping[str, float]] = [dict(zip(COLUMNS, row, strict=True)) for row in values["rows"]]
        return cls(config, values["status"], values["message"], values["seconds"], values["trained_on"], rows)
