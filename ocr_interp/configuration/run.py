"""All that decides the outcome of a run, and its fingerprint."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ocr_interp.checks import as_tuples
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import unknown_name
from ocr_interp.task import FactRecallTask

FORMAT_VERSION = 1
"""Version of the files of a run; a newer one is refused when read."""

_ADDED_LATER = {
    field.name: field.default
    for field in dataclasses.fields(TrainConfig)
    if field.name.startswith(("muon_", "second_"))
    or field.name in ("scores_lr", "switch_step", "optimizer_options")
}
"""Fields that runs on disk may be older than: at their defaults they do not change a fingerprint."""


@dataclass(frozen=True)
class RunConfig:
    """All that decides the outcome of a run: task, model, recipe.

    Attributes:
        task: the fact-recall task.
        model: the kind of model and its start.
        train: the recipe, with the seed.
    """

    task: FactRecallTask
    model: ModelConfig
    train: TrainConfig

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` gives the configuration back."""
        return {
            "task": self.task.to_dict(),
            "model": dataclasses.asdict(self.model),
            "train": dataclasses.asdict(self.train),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """The configuration of a `to_dict`; a field that this version does not know raises."""
        for name, part in (("model", ModelConfig), ("train", TrainConfig)):
            known = [field.name for field in dataclasses.fields(part)]
            for field in values[name]:
                if field not in known:
                    raise unknown_name(f"{name} field", field, known)
        return cls(
            FactRecallTask.from_dict(values["task"]),
            ModelConfig(**as_tuples(values["model"])),
            TrainConfig(**as_tuples(values["train"])),
        )

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of the configuration and the file format: files of one run share it."""
        values = self.to_dict()
        for name, default in _ADDED_LATER.items():
            if values["train"][name] == default:
                del values["train"][name]
        if not values["model"]["ov_options"]:
            del values["model"]["ov_options"]
        text = json.dumps([FORMAT_VERSION, values], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def differences(self, other: RunConfig) -> list[str]:
        """The fields in which two configurations differ, as "train.lr: 0.005 != 0.01"."""
        mine, theirs = self.to_dict(), other.to_dict()
        return [
            f"{part}.{field}: {mine[part][field]!r} != {theirs[part][field]!r}"
            for part in mine
            for field in mine[part]
            if mine[part][field] != theirs[part][field]
        ]
