"""A picture that says one sentence, drawn from its numbers alone: those just measured, or those of its JSON.

python -m analyses.house.drawing ablation_paths   (draws it again from figures/ablation_paths.json)
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure as Picture

from ocr_interp.errors import unknown_name
from ocr_interp.storage.plain import plain
from ocr_interp.viz.style import figure_style, save_figure

WIDTH = 6.6
"""Width in inches at which a page shows a picture."""

SMALLEST = 6.5
"""Smallest text of a picture, in points at that width."""

_LETTERS = 74
"""Letters of a title's line."""


@dataclass(frozen=True)
class Drawing:
    """One picture.

    Attributes:
        title: what it shows, in one sentence; stands above it and first in its JSON. Where runs are still
            added, a function from the numbers to the sentence that they bear out.
        draw: function from the numbers of the JSON to a picture that is WIDTH inches wide.
        digits: significant digits of the numbers in the JSON; None keeps all.
    """

    title: str | Callable[[dict[str, Any]], str]
    draw: Callable[[dict[str, Any]], Picture]
    digits: int | None = 6

    def sentence(self, numbers: dict[str, Any]) -> str:
        """The title of these numbers."""
        return self.title if isinstance(self.title, str) else self.title(plain(numbers, self.digits))

    def picture(self, numbers: dict[str, Any]) -> Picture:
        """The picture of these numbers with its title."""
        with figure_style(font_scale=0.9):
            fig = self.draw(plain(numbers, self.digits))
            lines = textwrap.fill(self.sentence(numbers), _LETTERS)
            fig.suptitle(lines, x=0.01, ha="left", fontsize=9.5, fontweight="bold", linespacing=1.25)
        return fig

    def write(self, path: Path, numbers: dict[str, Any]) -> None:
        """Writes path.png, path.svg and path.json, which has the title and all numbers."""
        fig = self.picture(numbers)
        with figure_style(font_scale=0.9):
            save_figure(fig, path, {"title": self.sentence(numbers), **numbers}, self.digits)
        plt.close(fig)


def read_numbers(path: Path) -> dict[str, Any]:
    """The numbers of a picture's JSON, without its title."""
    numbers = json.loads(path.read_text(encoding="utf-8"))
    return {name: value for name, value in numbers.items() if name != "title"}


def _may_draw(path: Path, names: Sequence[str]) -> bool:
    """Whether a module may draw one of some pictures; loading all modules takes a while."""
    return not names or any(f'"{name}"' in path.read_text(encoding="utf-8") for name in names)


def main() -> None:
    from analyses.house.discovery import find_figures

    parser = argparse.ArgumentParser(description="Draws pictures again from the numbers of their JSON.")
    parser.add_argument("names", nargs="*", help="names of pictures; all that can be drawn so, if left out")
    parser.add_argument("--figures", type=Path, default=Path("figures"))
    options = parser.parse_args()
    figures = list(find_figures())
    known: dict[str, Drawing] = {}
    for found in sorted(figures, key=lambda found: not _may_draw(found.path, options.names)):
        if options.names and known.keys() >= set(options.names):
            break  # modules that mention a picture are read first: the others need not be loaded
        known |= found.load().drawings
    for name in options.names or known:
        if name not in known:
            raise unknown_name("picture that is drawn from its numbers", name, known)
        path = options.figures / name
        known[name].write(path, read_numbers(path.with_suffix(".json")))


if __name__ == "__main__":
    main()
