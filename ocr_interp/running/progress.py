"""A progress bar on stderr for long computations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Move = Callable[[int, str], None]
"""A function of the amount done and a text to show beside the bar."""


@contextmanager
def progress_bar(label: str, total: int, done: int = 0, show: bool | None = None) -> Iterator[Move]:
    """Shows how much is done and how long the rest will take, while the block runs.

    Args:
        label: what is counted; shown before the bar.
        total: total amount to do.
        done: amount that was done before.
        show: whether to show it; None shows it where stderr is a terminal.

    Returns: as a context, the function that moves the bar.
    """
    if not (sys.stderr.isatty() if show is None else show):
        yield lambda done, text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label, markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    told = TextColumn("{task.description}", markup=False)  # names from users may hold brackets
    with Progress(*columns, told, console=Console(stderr=True)) as bar:
        shown = bar.add_task("", total=total, completed=done)
        yield lambda done, text: bar.update(shown, completed=done, description=text)
