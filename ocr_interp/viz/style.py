"""One look for all figures, and the numbers beside every picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

HELD_OUT = "#cc3311"
"""Colour of the frame around what was never told."""

DIVERGING = "PuOr_r"
"""Colours of signed weights: purple below zero, orange above, readable without red and green."""


@contextmanager
def figure_style() -> Iterator[None]:
    """The look of the project while the block runs; pictures come out the same to the byte."""
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
        path: without suffix, e.g. figures/figure_2_ov_weights.
        numbers: what is drawn; arrays are rounded to 6 significant digits.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path.with_suffix(".png"), bbox_inches="tight", metadata={"Software": None})
    fig.savefig(path.with_suffix(".svg"), bbox_inches="tight", metadata={"Date": None})
    path.with_suffix(".json").write_text(json.dumps(_plain(numbers), indent=1) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Numbers as JSON has them: arrays as lists, 6 significant digits, NaN as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
