"""ocr-interp export: writes a run as the weights of a HookedTransformer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ocr_interp.cli.arguments.files import check_output, read_snapshot, say


@dataclass(frozen=True)
class Export:
    """Write a run as the state_dict of a HookedTransformer, a .safetensors file."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """directory of the run"""
    file: Annotated[Path, tyro.conf.Positional]
    """the file to write, e.g. model.safetensors"""
    step: int | None = None
    """step of a snapshot to use instead of the end of training"""

    def run(self) -> None:
        check_output(self.file, (".safetensors",))
        snapshot = read_snapshot(self.run_dir, self.step)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        snapshot.export(self.file)
        say(f"step {snapshot.step:,} of {self.run_dir}: {self.file}")
