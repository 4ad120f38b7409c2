"""Everything that determines the result of a run, and its fingerprint."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ocr_interp.checks import from_fields
from ocr_interp.configuration.fields import changed_fields, differences, fingerprint
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.task import FactRecallTask

FORMAT_VERSION = 2
"""Version of the files of a run; a newer one is refused when read."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines the result of a run: task, model, training recipe.

    Attributes:
        task: the fact-recall task.
        model: the model and its initialisation.
        train: the recipe, with the seed.
    """

    task: FactRecallTask
    model: ModelConfig
    train: TrainConfig

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` restores the configuration."""
        return {
            "task": self.task.to_dict(),
            "model": dataclasses.asdict(self.model),
            "train": dataclasses.asdict(self.train),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """The configuration from the values of `to_dict`, also of an earlier version with fewer fields.

        Raises:
            UnknownNameError: a field that this version does not know.
            ConfigError: a value that is not allowed.
        """
        return cls(
            FactRecallTask.from_dict(values["task"]),
            from_fields(ModelConfig, "model", values["model"]),
            from_fields(TrainConfig, "train", values["train"]),
        )

    @property
    def has_noise(self) -> bool:
        """Whether the prompts of the recipe hold noise tokens."""
        return self.train.data != "noise_free" and self.task.n_noise > 0 and self.task.seq_len > 3

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of the fields that differ from their defaults: files of one run share it."""
        defaults = RunConfig(type(self.task)(), type(self.model)(), type(self.train)())
        return fingerprint(FORMAT_VERSION, changed_fields(self.to_dict(), defaults.to_dict()))

    def differences(self, other: RunConfig) -> list[str]:
        """The fields in which two configurations differ, as "train.lr: 0.005 != 0.01"."""
        return differences(self.to_dict(), other.to_dict())
