"""Progress of a sweep step by step, on stderr."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ocr_interp.configuration.run import RunConfig
from ocr_interp.running.progress import Move, Show, progress_bar
from ocr_interp.sweeps.records import RunRecord


class SweepProgress:
    """Counts the steps of all runs of a sweep; stacks may report from several threads.

    Args:
        move: is told the number of steps done and which runs have ended.
        n_runs: number of runs, with those that were there before.
        n_there: number of those.
        steps_there: number of their steps.
    """

    def __init__(self, move: Move, n_runs: int, n_there: int, steps_there: int) -> None:
        self._move, self._n_runs, self._n_there, self._steps_there = move, n_runs, n_there, steps_there
        self._steps: dict[str, int] = {}
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def trained(self, configs: Sequence[RunConfig], step: int) -> None:
        """Runs that are trained together have reached a step; the last one is told by `ended`."""
        if any(step < config.train.steps for config in configs):
            self._add({config.fingerprint: step for config in configs})

    def ended(self, records: Sequence[RunRecord]) -> None:
        """Runs have ended; steps that a run did not need count as done."""
        done = {record.run: record.config.train.steps for record in records}
        self._add(done, [record.status for record in records])

    def _add(self, steps: dict[str, int], statuses: Sequence[str] = ()) -> None:
        with self._lock:
            self._steps |= steps
            self._counts.update(statuses)
            ended = ", ".join(f"{count} {status}" for status, count in self._counts.items())
            text = f"{self._n_there + self._counts.total()} of {self._n_runs} runs ended"
            self._move(self._steps_there + sum(self._steps.values()), text + (f" ({ended})" if ended else ""))


@contextmanager
def sweep_bar(
    configs: Sequence[RunConfig], missing: Sequence[RunConfig], show: Show
) -> Iterator[SweepProgress]:
    """Shows the steps of all runs while the block runs.

    Args:
        configs: all runs of the sweep.
        missing: those of them that are to be trained.
        show: as in `progress_bar`.
    """
    total, to_do = (sum(config.train.steps for config in runs) for runs in (configs, missing))
    with progress_bar("sweep", total, total - to_do, show) as move:
        yield SweepProgress(move, len(configs), len(configs) - len(missing), total - to_do)
