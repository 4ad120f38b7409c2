"""The result of a fine-tuning run: the model, and its measurements."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pandas as pd
import torch

from ocr_interp.llm.adapters import methods
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.measuring.measure import Measurement
from ocr_interp.llm.models.loading import LanguageModel
from ocr_interp.llm.training.configuration import FORMAT_VERSION, LLMRunConfig
from ocr_interp.llm.training.update import method_columns


@dataclass(frozen=True)
class FinetuneRun:
    """A fine-tuned model and its measurements during training.

    Attributes:
        config: facts and recipe.
        facts: the fact set.
        step: updates done.
        status: "finished" or "interrupted".
        history: one row per logged step; `store.COLUMNS`, then those of the method (`columns`).
        before: the measurement of the untrained model.
        after: the measurement at the last step.
        seconds: wall-clock time of "train" and "measure", and processor time of both ("cpu").
        lm: the trained model with the update merged into its weights; if it cannot be merged, it stays
            separate and is described by `lm.attached`.
        device: type of the device.
    """

    config: LLMRunConfig
    facts: FactSet
    step: int
    status: str
    history: pd.DataFrame
    before: Measurement
    after: Measurement
    seconds: dict[str, float]
    lm: LanguageModel
    device: str

    @property
    def columns(self) -> dict[str, str]:
        """The columns that the method added to the history: name -> what it measures, with its unit."""
        return method_columns(self.config.train)

    @property
    def why_not_merged(self) -> str | None:
        """Why the update is not merged into the weights of `lm`; None if it is."""
        return None if self.lm.attached is None else self.lm.attached.adapter.why_not_merged

    def to_dict(self) -> dict[str, Any]:
        """The content of result.json: everything that tables and figures need."""
        names = ("torch", "transformers", "numpy", *methods[self.config.train.method].packages)
        beside = {"columns": self.columns, "why_not_merged": self.why_not_merged}
        return {
            "format_version": FORMAT_VERSION,
            "fingerprint": self.config.fingerprint,
            "config": self.config.to_dict(),
            "data": self.facts.name,
            "causal": self.facts.causal,
            "facts": list(self.facts.facts),
            "implications": list(self.facts.implications),
            "scoring": dict(self.after.scoring),
            "step": self.step,
            "history": {name: self.history[name].tolist() for name in self.history.columns},
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "seconds": self.seconds,
            "device": self.device,
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in names},
            **{name: value for name, value in beside.items() if value},
        }
