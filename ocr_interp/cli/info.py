"""ocr-interp info: a run's configuration and results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ocr_interp.cli.arguments.files import read_run, say


@dataclass(frozen=True)
class Info:
    """Show a run's configuration, losses, accuracies, margins and norms."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """directory of the run"""
    columns: bool = False
    """instead, list the columns of its history.csv: the last value of each and what it means"""

    def run(self) -> None:
        run = read_run(self.run_dir)
        from ocr_interp.viz.text.run import describe_columns, describe_run

        say(describe_columns(run) if self.columns else describe_run(run))
