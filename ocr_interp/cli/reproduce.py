"""`ocr-interp reproduce`: train the paper's models, draw figures, assemble claims."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ocr_interp.errors import OcrInterpError


@dataclass(frozen=True)
class Reproduce:
    """Train the paper's models and leave its figures and claims (the analyses/ folder of the repository)."""

    everything: Annotated[bool, tyro.conf.arg(name="all")] = False
    """also what takes longer than a few minutes"""
    only: tuple[str, ...] = ()
    """only these figures or studies, e.g. theorem_3 or paper; --list shows them"""
    listed: Annotated[bool, tyro.conf.arg(name="list")] = False
    """show the figures with their cost and claims, and do nothing"""
    runs: Path = Path("runs")
    """where trained models are kept; what is there is not trained again"""
    figures: Path = Path("figures")
    """where figures, their numbers and claims.json go"""

    def run(self) -> None:
        root = str(_repository())
        if root not in sys.path:
            sys.path.insert(0, root)  # analyses/ is a package of the repository, not of the installation
        house = importlib.import_module("analyses.house.reproduce")
        if self.listed:
            house.print_list(self.figures, self.only)
            return
        for folder in (self.runs, self.figures):
            folder.mkdir(parents=True, exist_ok=True)  # before minutes of training, not after
        if house.reproduce(self.runs, self.figures, self.only, self.everything):
            sys.exit(1)


def _repository() -> Path:
    """The folder that holds analyses/: the current directory, or that of an editable installation."""
    for place in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if (place / "analyses" / "house" / "reproduce.py").is_file():
            return place
    raise OcrInterpError(
        "reproduce needs the analyses/ folder of the repository: run it from the root of a clone"
    )
