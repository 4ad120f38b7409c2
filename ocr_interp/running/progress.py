"""Progress of long computations: a bar on a terminal or in a notebook, plain lines elsewhere if asked for."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

Move = Callable[[int, str], None]
"""A function of the amount done and a text to show beside it."""

Show = bool | Literal["lines"] | None
"""True: a bar; False: nothing; "lines": plain lines, for logs; None: a bar on a terminal or in a notebook."""

FRAME = 0.2
"""Seconds between two pictures of a bar in a notebook."""

LINES, LONGEST_SILENCE = 20, 30.0
"""About how many plain lines there are, and the seconds after which there is one more."""


def bar_or_lines() -> Show:
    """A bar where stderr is a terminal, plain lines elsewhere: what commands show."""
    return True if sys.stderr.isatty() else "lines"


@contextmanager
def progress_bar(
    label: str, total: int, done: int = 0, show: Show = None, unit: str = "steps"
) -> Iterator[Move]:
    """Shows how much is done and how fast, while the block runs.

    Args:
        label: what is worked on; shown first.
        total: total amount to do.
        done: amount that was done before.
        show: how to show it.
        unit: what the amounts count, for plain lines.

    Returns: as a context, the function that is told the amount done.
    """
    notebook = None if show is False or show == "lines" else _notebook()
    if show is None:
        show = sys.stderr.isatty() or notebook is not None
    if not show:
        yield lambda done, text: None
    elif notebook is not None:
        bar = _NotebookBar(notebook, label, total, done, unit)
        try:
            yield bar.move
        finally:
            bar.draw()
    elif show == "lines":
        yield _PlainLines(label, total, done, unit).move
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(label, markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        told = TextColumn("{task.description}", markup=False)  # names from users may hold brackets
        with Progress(*columns, told, console=Console(stderr=True)) as bar:
            shown = bar.add_task("", total=total, completed=done)
            yield lambda done, text: bar.update(shown, completed=done, description=text)


def _notebook() -> Any:
    """The module that shows things in the notebook in which this runs; None elsewhere."""
    shell = sys.modules.get("IPython")  # who has not imported it is in no notebook
    found = None if shell is None else shell.get_ipython()
    if found is None or not hasattr(found, "kernel"):
        return None
    import IPython.display

    return IPython.display


class _NotebookBar:
    """One bar of HTML in the output of a cell, drawn again in its place; it stays when the work is done."""

    def __init__(self, notebook: Any, label: str, total: int, done: int, unit: str) -> None:
        self.html, self.label, self.total, self.unit = notebook.HTML, label, total, unit
        self.done, self.text, self.drawn = done, "", time.monotonic()
        self.shown = notebook.display(self.html(self._html()), display_id=True)

    def move(self, done: int, text: str) -> None:
        self.done, self.text = done, text
        if time.monotonic() - self.drawn >= FRAME:
            self.draw()

    def draw(self) -> None:
        self.drawn = time.monotonic()
        self.shown.update(self.html(self._html()))

    def _html(self) -> str:
        told = f"{self.label} {self.done:,}/{self.total:,} {self.unit} {self.text}"
        bar = f'<progress value="{self.done}" max="{max(self.total, 1)}"></progress>'
        return f"<div>{bar} <code>{html.escape(told)}</code></div>"


class _PlainLines:
    """Writes a line for the first amount and for the last, and about LINES in between."""

    def __init__(self, label: str, total: int, done: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.begun = False
        self.before = done, time.monotonic()

    def move(self, done: int, text: str) -> None:
        (before, at), now = self.before, time.monotonic()
        due = done - before >= self.total / LINES or now - at >= LONGEST_SILENCE
        if self.begun and not due and done < self.total:
            return
        speed = f" ({(done - before) / max(now - at, 1e-9):,.3g} {self.unit}/s)" if done > before else ""
        sys.stderr.write(f"{self.label} {done:,}/{self.total:,} {self.unit}: {text}{speed}\n")
        sys.stderr.flush()
        self.begun, self.before = True, (done, now)
