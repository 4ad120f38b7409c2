"""Finds the figures, modules of the studies that have a constant FIGURE, without importing them."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import analyses
from analyses.house.figure import Figure
from ocr_interp.errors import OcrInterpError, unknown_name


@dataclass(frozen=True)
class Found:
    """A figure of the code.

    Attributes:
        script: study and module, e.g. "paper.theorem_3"; the name of the figure.
        path: its file.
    """

    script: str
    path: Path

    def load(self) -> Figure:
        """The figure itself; imports its module.

        Raises:
            OcrInterpError: FIGURE is not a Figure.
        """
        figure = importlib.import_module(f"{analyses.__name__}.{self.script}").FIGURE
        if not isinstance(figure, Figure):
            raise OcrInterpError(f"FIGURE in {self.path} must be a Figure, got {type(figure).__name__}")
        return figure


def find_figures() -> list[Found]:
    """All figures: studies in the order of `analyses.STUDIES`, others after them, modules by name."""
    importlib.invalidate_caches()
    found = []
    for study in sorted(_studies(), key=lambda study: (_rank(study.name), study.name)):
        for path in sorted(study.glob("*.py")):
            if _declares_figure(path):
                found.append(Found(f"{study.name}.{path.stem}", path))
    return found


def choose(found: Sequence[Found], names: Sequence[str]) -> list[Found]:
    """The figures with these names: "paper.theorem_3", "theorem_3", or "paper" for the whole study.

    Raises:
        UnknownNameError: no figure or study has that name; the message lists close matches.
    """
    chosen: set[str] = set()
    for name in names:
        matching = {one.script for one in found if name in (one.script, *one.script.split("."))}
        if not matching:
            raise unknown_name("figure", name, [one.script for one in found])
        chosen |= matching
    return [one for one in found if one.script in chosen]


def _studies() -> list[Path]:
    folders = (Path(place) for place in analyses.__path__)
    studies = (path for folder in folders for path in folder.iterdir() if path.is_dir())
    return [path for path in studies if path.name != "house" and path.name.isidentifier()]


def _rank(study: str) -> int:
    return analyses.STUDIES.index(study) if study in analyses.STUDIES else len(analyses.STUDIES)


def _declares_figure(path: Path) -> bool:
    """Whether a module assigns FIGURE at its top level; True also for a file that cannot be parsed.

    Its error is then reported when it is drawn, and the other figures are drawn anyway.
    """
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except SyntaxError:
        return True
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in body if isinstance(node, ast.AnnAssign)]
    return any(isinstance(target, ast.Name) and target.id == "FIGURE" for target in targets)
