"""`ocr-interp reproduce`: trains the paper's models, draws the figures, assembles the claims."""

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
    """Train the paper's models, draw the figures and test the claims (needs the repository's analyses/)."""

    everything: Annotated[bool, tyro.conf.arg(name="all")] = False
    """also draw the slow figures, which take longer than a few minutes"""
    only: tuple[str, ...] = ()
    """draw only these figures or studies, e.g. theorem_3 or paper; --list shows their names"""
    listed: Annotated[bool, tyro.conf.arg(name="list")] = False
    """only list the figures with their cost and claims"""
    runs: Path = Path("runs")
    """folder of the trained models; models that are already there are not trained again"""
    figures: Path = Path("figures")
    """folder for the figures, their numbers and claims.json"""

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
