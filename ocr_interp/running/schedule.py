"""The steps at which a run is logged, and those at which it gets a snapshot."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from ocr_interp.errors import ConfigError

MOST_ROWS = 10**6
"""Most rows of a history: a run keeps them all in memory, some 2 kB each, and writes them all."""

MOST_STEPS_A_ROW = 10**7
"""Most steps from one row to the next, whose losses are kept until then."""


@dataclass(frozen=True)
class LoggedSteps(Sequence[int]):
    """The steps that get a row in the history: 0, every `every` steps, and the last; none is made in advance.

    Attributes:
        steps: the last step.
        every: steps between rows.
    """

    steps: int
    every: int

    def __len__(self) -> int:
        return -(-self.steps // self.every) + 1

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return min(place * self.every, self.steps)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # pyright: ignore[reportAssignmentType]  # as of a list, which it equals


def check_rows(steps: int, log_every: int) -> None:
    """Requires a history of at most MOST_ROWS rows, with at most MOST_STEPS_A_ROW steps between them.

    Raises:
        ConfigError: it has more; the message says the log_every that is allowed.
    """
    if min(steps, log_every) > MOST_STEPS_A_ROW:
        raise ConfigError(
            f"a history must have a row at least every {MOST_STEPS_A_ROW:,} steps, got steps={steps} with "
            f"log_every={log_every}: lower log_every"
        )
    if -(-steps // log_every) + 1 > MOST_ROWS:  # len() itself is bounded
        raise ConfigError(
            f"a history may have at most {MOST_ROWS:,} rows, got steps={steps} with log_every={log_every}: "
            f"log_every must be >= {-(-steps // (MOST_ROWS - 1))}"
        )


def logged_steps(steps: int, every: int) -> LoggedSteps:
    """The steps that get a row in the history: 0, every `every` steps, and the last."""
    return LoggedSteps(steps, every)


def snapshot_steps(logged: Sequence[int], count: int) -> list[int]:
    """The logged steps that get a snapshot, spread evenly in log(step).

    Args:
        logged: steps with a row in the history, in order; the first and the last always get one.
        count: number of snapshots to aim at; 0 for none.
    """
    if count == 0:
        return []
    first, last = logged[0], logged[-1]
    wanted = [last ** (k / max(1, count - 1)) for k in range(count)]
    return sorted({first, *(_nearest(logged, target) for target in wanted), last})


def _nearest(logged: Sequence[int], target: float) -> int:
    """The logged step that is nearest to a number; of two that are as near, the earlier."""
    place = bisect_left(logged, target)
    return min(logged[max(0, place - 1) : place + 1], key=lambda step: abs(step - target))
