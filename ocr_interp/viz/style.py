"""The style of all figures, which a user can change, and saving figures with their numbers."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure

from ocr_interp.errors import unknown_name
from ocr_interp.storage.atomic import write_atomic
from ocr_interp.storage.plain import plain, printable

HELD_OUT = "#cc3311"
"""Colour of the frame around the block that was never told."""

DIVERGING = "PuOr_r"
"""Colour map of signed weights: purple below zero, orange above; readable with red-green blindness."""

SEQUENTIAL = "Blues"
"""Colour map of sizes."""


@dataclass(frozen=True)
class Style:
    """Colours and sizes that all drawings share; changed with `figure_style(name=value)`.

    Attributes:
        held_out: colour of what was never told.
        diverging: name of the colour map of signed weights.
        positive, negative: colours of contributions for and against an answer.
        neutral: colour of baselines and predictions.
        palette: colours of lines and kinds, in order; seaborn's for colour-blind readers.
        context: seaborn's context: "paper", "notebook", "talk" or "poster".
        font_scale: factor of all font sizes.
        rc: further settings of matplotlib, which win over all others.
    """

    held_out: str = HELD_OUT
    diverging: str = DIVERGING
    positive: str = "#0173b2"
    negative: str = "#de8f05"
    neutral: str = "0.45"
    palette: tuple[str, ...] = (
        *("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#949494"),
        *("#ece133", "#56b4e9"),
    )
    context: Literal["paper", "notebook", "talk", "poster"] = "paper"
    font_scale: float = 1.1
    rc: Mapping[str, Any] = field(default_factory=dict)

    def colour(self, k: int) -> str:
        """The k-th colour of the palette, which starts again at its end."""
        return self.palette[k % len(self.palette)]


_CURRENT: ContextVar[Style] = ContextVar("style of figures")


def current_style() -> Style:
    """The style that drawings use now: that of the innermost `figure_style` block, else the project's."""
    return _CURRENT.get(Style())


@contextmanager
def figure_style(style: Style | None = None, **changes: Any) -> Iterator[Style]:
    """Sets a style while the block runs; pictures are reproducible to the byte.

    Args:
        style: the style; None changes the current one.
        changes: fields of it with other values.

    Raises:
        UnknownNameError: a field that a style does not have.

    >>> with figure_style(held_out="black", font_scale=1.5) as style:
    ...     style.held_out, current_style().font_scale
    ('black', 1.5)
    >>> current_style().held_out
    '#cc3311'
    """
    known = [each.name for each in dataclasses.fields(Style)]
    for name in changes:
        if name not in known:
            raise unknown_name("field of a style", name, known)
    chosen = dataclasses.replace(style or current_style(), **changes)
    fixed = {"svg.hashsalt": "ocr-interp", "savefig.dpi": 200, "figure.dpi": 100, "svg.fonttype": "path"}
    before = _CURRENT.set(chosen)
    try:
        with (
            sns.axes_style("ticks"),
            sns.plotting_context(chosen.context, font_scale=chosen.font_scale),
            mpl.rc_context({**fixed, **chosen.rc}),  # pyright: ignore[reportArgumentType]
        ):
            yield chosen
    finally:
        _CURRENT.reset(before)


def save_figure(fig: Figure, path: Path, numbers: dict[str, Any], digits: int | None = 6) -> None:
    """Writes path.png, path.svg and path.json with the numbers that the figure shows.

    Args:
        fig: the figure.
        path: path without suffix, e.g. figures/figure_2_ov_weights.
        numbers: the numbers of the figure.
        digits: significant digits to which they are rounded; None keeps all.

    Raises:
        RunError: the file cannot be written; an earlier file is left unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for form in ("png", "svg"):
        write_atomic(path.with_suffix(f".{form}"), picture_of(fig, form))
    table = json.dumps(plain(numbers, digits), indent=1) + "\n"
    write_atomic(path.with_suffix(".json"), table.encode())


def picture_of(fig: Figure, form: str) -> bytes:
    """A figure as a file's content, equal to the byte in every process.

    Args:
        fig: the figure.
        form: "png", "svg" or "pdf".
    """
    silent = {"png": "Software", "svg": "Date", "pdf": "CreationDate"}[form]
    picture = io.BytesIO()
    fig.savefig(picture, format=form, bbox_inches="tight", metadata={silent: None})
    content = picture.getvalue()
    # matplotlib copies labels into comments as they are
    return printable(content.decode()).encode() if form == "svg" else content
