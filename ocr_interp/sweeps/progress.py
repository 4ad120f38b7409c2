"""A progress bar over the runs of a sweep, on stderr."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ocr_interp.running.progress import progress_bar
from ocr_interp.sweeps.records import RunRecord

Update = Callable[[Sequence[RunRecord]], None]


@contextmanager
def sweep_bar(n_runs: int, n_there: int, show: bool | None) -> Iterator[Update]:
    """Shows how many runs have ended, by status, while the block runs; yields the function that adds runs."""
    counts: Counter[str] = Counter()
    with progress_bar("runs", n_runs, n_there, show) as move:

        def update(records: Sequence[RunRecord]) -> None:
            counts.update(record.status for record in records)
            text = ", ".join(f"{count} {status}" for status, count in counts.items())
            move(n_there + counts.total(), text)

        yield update
