"""The style of all figures, and saving figures with their numbers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure

from ocr_interp.storage.atomic import write_atomic
from ocr_interp.storage.plain import plain, printable

HELD_OUT = "#cc3311"
"""Colour of the frame around the block that was never told."""

DIVERGING = "PuOr_r"
"""Colour map of signed weights: purple below zero, orange above; readable with red-green blindness."""


@contextmanager
def figure_style() -> Iterator[None]:
    """Sets the project's style while the block runs; pictures are reproducible to the byte."""
    fixed = {"svg.hashsalt": "ocr-interp", "savefig.dpi": 200, "figure.dpi": 100, "svg.fonttype": "path"}
    with (
        sns.axes_style("ticks"),
        sns.plotting_context("paper", font_scale=1.1),
        mpl.rc_context(fixed),  # pyright: ignore[reportArgumentType]
    ):
        yield


def save_figure(fig: Figure, path: Path, numbers: dict[str, Any]) -> None:
    """Writes path.png, path.svg and path.json with the numbers that the figure shows.

    Args:
        fig: the figure.
        path: path without suffix, e.g. figures/figure_2_ov_weights.
        numbers: the numbers of the figure; arrays are rounded to 6 significant digits.

    Raises:
        RunError: the file cannot be written; an earlier file is left unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for form, silent in (("png", "Software"), ("svg", "Date")):
        picture = io.BytesIO()
        fig.savefig(picture, format=form, bbox_inches="tight", metadata={silent: None})
        content = picture.getvalue()
        if form == "svg":  # matplotlib copies labels into comments as they are
            content = printable(content.decode()).encode()
        write_atomic(path.with_suffix(f".{form}"), content)
    table = json.dumps(plain(numbers, 6), indent=1) + "\n"
    write_atomic(path.with_suffix(".json"), table.encode())
