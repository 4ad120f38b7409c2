"""A progress bar over the runs of a sweep, on stderr."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ocr_interp.sweeps.records import RunRecord

Update = Callable[[Sequence[RunRecord]], None]


@contextmanager
def sweep_bar(n_runs: int, n_there: int, show: bool) -> Iterator[Update]:
    """Shows how many runs have ended, and how, while the block runs; gives the function that adds some."""
    if not show:
        yield lambda records: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True)) as bar:
        shown, counts = bar.add_task("", total=n_runs, completed=n_there), Counter()

        def update(records: Sequence[RunRecord]) -> None:
            counts.update(record.status for record in records)
            text = ", ".join(f"{count} {status}" for status, count in counts.items())
            bar.update(shown, advance=len(records), description=text)

        yield update
