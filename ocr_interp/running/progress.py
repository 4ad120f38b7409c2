"""Progress of long computations on stderr: a bar on a terminal, plain lines elsewhere if asked for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

Move = Callable[[int, str], None]
"""A function of the amount done and a text to show beside it."""

Show = bool | Literal["lines"] | None
"""True: a bar; False: nothing; "lines": plain lines, for logs; None: a bar where stderr is a terminal."""

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
    if show is None:
        show = sys.stderr.isatty()
    if not show:
        yield lambda done, text: None
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
