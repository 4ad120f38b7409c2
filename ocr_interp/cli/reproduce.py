"""`ocr-interp reproduce`: trains the paper's models, draws the figures, assembles the claims."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ocr_interp.cli.arguments.files import say
from ocr_interp.errors import ConfigError, OcrInterpError, unknown_name


@dataclass(frozen=True)
class Reproduce:
    """Train the paper's models, draw the figures and test the claims (needs the repository's analyses/)."""

    everything: Annotated[bool, tyro.conf.arg(name="all")] = False
    """also draw the slow figures, which take longer than a few minutes"""
    only: tuple[str, ...] = ()
    """draw only these figures or studies, e.g. theorem_3 or paper; --list shows their names"""
    listed: Annotated[bool, tyro.conf.arg(name="list")] = False
    """only list the figures with their cost and claims"""
    failed: bool = False
    """with --list: only the claims that failed: expected, measured, and the pages that explain them"""
    runs: Path = Path("runs")
    """folder of the trained models; models that are already there are not trained again"""
    figures: Path = Path("figures")
    """folder for the figures, their numbers and claims.json"""

    def run(self) -> None:
        if self.failed:
            if not self.listed:
                raise ConfigError("--failed goes with --list, and nothing is drawn then: add --list")
            say("\n".join(_failed_claims(self.figures, self.only)))
            return
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


def _failed_claims(figures: Path, only: Sequence[str]) -> list[str]:
    """The claims of claims.json that failed, and how many did. Imports no figure.

    Raises:
        OcrInterpError: there is no claims.json, or it is damaged.
        UnknownNameError: a name in `only` has no claims there.
    """
    path = figures / "claims.json"
    if not path.is_file():
        raise OcrInterpError(
            f"{path} is not there: name its folder with --figures, or make it with ocr-interp reproduce"
        )
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        claims = [
            (
                entry["script"],
                entry["id"],
                entry["statement"],
                entry["expected"],
                _measured(entry.get("measured", {})),
                f"{entry.get('figure') or entry['id']}.png)",
                entry["holds"],
            )
            for entry in entries
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise OcrInterpError(
            f"{path} is damaged ({error}): restore it, or make it again with ocr-interp reproduce"
        ) from None
    known = tuple(dict.fromkeys(name for script, *_ in claims for name in _names(script)))
    for name in only:
        if name not in known:
            raise unknown_name("figure or study with claims", name, known)
    asked = [claim for claim in claims if not only or not set(only).isdisjoint(_names(claim[0]))]
    failed = [claim for claim in asked if not claim[-1]]
    pages = _pages(figures.parent / "docs")
    lines = []
    for script, name, statement, expected, measured, picture, _ in failed:
        lines += [f"{name}  ({script})", f"    claimed: {statement}", f"    expected: {expected}"]
        lines += [f"    measured: {measured}"] if measured else []
        where = [page for page, text in pages.items() if f"claims.md#{name})" in text]
        where = where or [page for page, text in pages.items() if f"/{picture}" in text]
        lines += [f"    explained in: {', '.join(where)}"] if where else []
    return [*lines, f"{len(failed)} of {len(asked)} claims failed"]


def _measured(values: Mapping[str, Any]) -> str:
    """The first five values, those of several seeds as a range."""
    said = []
    for name, value in list(values.items())[:5]:
        numbers = [each for each in (value if isinstance(value, list) else [value]) if each is not None]
        flat = [each for each in numbers if isinstance(each, int | float)]
        if flat and len(flat) == len(numbers):
            low, high = f"{min(flat):.3g}", f"{max(flat):.3g}"
            said.append(f"{name.replace('_', ' ')} {low if low == high else f'{low} to {high}'}")
    return "; ".join(said)


def _pages(docs: Path) -> dict[str, str]:
    """The pages that explain claims, by name; none where the repository's docs/ are not beside figures/."""
    found = [docs.parent / "README.md", *sorted(docs.rglob("*.md"))]
    return {
        str(path.relative_to(docs.parent)): path.read_text(encoding="utf-8")
        for path in found
        if path.is_file() and path.name not in ("claims.md", "gallery.md")
    }


def _names(script: str) -> tuple[str, str, str]:
    """What a figure is called by: study.module, module, study."""
    study, _, module = script.partition(".")
    return script, module, study


def _repository() -> Path:
    """The folder that holds analyses/: the current directory, or that of an editable installation."""
    for place in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if (place / "analyses" / "house" / "reproduce.py").is_file():
            return place
    raise OcrInterpError(
        "reproduce needs the analyses/ folder of the repository: run it from the root of a clone"
    )
