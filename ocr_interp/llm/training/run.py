"""The result of a fine-tuning run: the model, and its measurements."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ocr_interp.errors import RunError
from ocr_interp.llm.adapters import methods
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.layers.movement import Movement
from ocr_interp.llm.measuring.measure import Measurement
from ocr_interp.llm.measuring.table import LogitTable
from ocr_interp.llm.models.loading import LanguageModel
from ocr_interp.llm.training.configuration import FORMAT_VERSION, LLMRunConfig
from ocr_interp.llm.training.files.store import RunFolder
from ocr_interp.llm.training.update import load_finetuned, method_columns
from ocr_interp.storage.notebooks import ShownAsTable

NOT_MEASURED = {"why_not": "the run is of a version that did not measure it"}
"""The movement of runs of earlier versions."""


@dataclass(frozen=True)
class FinetuneRun(ShownAsTable):
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
        device: type of the device.
        path: the run directory; None if the run is only in memory.
        in_memory: the trained model, for `lm`; None for a run that was read from its directory.
        table: the logits, for `logits`; None for a run that was read from its directory.
        movement: how far every part of every layer moved from the start; a text says why that is not known.
    """

    config: LLMRunConfig
    facts: FactSet
    step: int
    status: str
    history: pd.DataFrame = field(repr=False)
    before: Measurement
    after: Measurement
    seconds: dict[str, float] = field(repr=False)
    device: str
    path: Path | None = None
    in_memory: LanguageModel | None = field(repr=False, default=None)
    table: LogitTable | None = field(repr=False, default=None)
    movement: Movement | str = field(repr=False, default=NOT_MEASURED["why_not"])

    def _in_notebooks(self) -> pd.DataFrame:
        return self.history

    @cached_property
    def lm(self) -> LanguageModel:
        """The trained model with the update merged into its weights.

        An update that cannot be merged stays separate and is described by `lm.attached`. The model of a run
        that was read from its directory is loaded when it is first used.

        Raises:
            ModelError: the run kept no model.
        """
        if self.in_memory is not None:
            return self.in_memory
        assert self.path is not None
        return load_finetuned(self.path)

    @cached_property
    def logits(self) -> LogitTable:
        """The logits of every candidate for every test prompt, at every measurement.

        Raises:
            RunError: the run directory lost them, or is of a version that kept none.
        """
        if self.table is not None:
            return self.table
        assert self.path is not None
        folder = RunFolder(self.path)
        return folder.read_logits(folder.read_result())

    @property
    def keeps_model(self) -> bool:
        """Whether the run directory holds the trained model, or its update."""
        folder = None if self.path is None else RunFolder(self.path)
        return folder is not None and (folder.model_folder.is_dir() or folder.adapter_file.is_file())

    @property
    def columns(self) -> dict[str, str]:
        """The columns that the method added to the history: name -> what it measures, with its unit."""
        return method_columns(self.config.train)

    @property
    def why_not_merged(self) -> str | None:
        """Why the update is not merged into the weights of `lm`; None if it is."""
        return methods[self.config.train.method].why_not_merged

    def to_dict(self) -> dict[str, Any]:
        """The content of result.json: everything that tables and figures need."""
        names = ("torch", "transformers", "numpy", *methods[self.config.train.method].packages)
        moved = self.movement
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
            "movement": {"why_not": moved} if isinstance(moved, str) else moved.to_dict(),
            "seconds": self.seconds,
            "device": self.device,
            "threads": torch.get_num_threads(),
            "matmul_precision": torch.get_float32_matmul_precision(),
            "versions": {name: version(name) for name in names},
            **{name: value for name, value in beside.items() if value},
        }


def stored_run(folder: RunFolder, facts: FactSet) -> FinetuneRun:
    """A finished run as it is on disk.

    Raises:
        RunError: a file that is missing, damaged or was changed.
    """
    result = folder.read_result()
    try:
        return FinetuneRun(
            config=folder.read_config(),
            facts=facts,
            step=int(result["step"]),
            status="finished",
            history=folder.read_history(result),
            before=Measurement.from_dict(result["before"]),
            after=Measurement.from_dict(result["after"]),
            seconds=dict(result["seconds"]),
            device=str(result["device"]),
            path=folder.path,
            movement=Movement.from_dict(result.get("movement", NOT_MEASURED)),
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(
            f"{folder.result_file} is damaged ({error!r}): delete it, and the run is made again"
        ) from None
