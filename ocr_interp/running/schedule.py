"""The steps at which a run is logged, and those at which it gets a snapshot."""

from __future__ import annotations

from collections.abc import Sequence


def logged_steps(steps: int, every: int) -> list[int]:
    """The steps that get a row in the history: 0, every `every` steps, and the last."""
    return sorted({*range(0, steps + 1, every), steps})


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
    nearest = {min(logged, key=lambda step: abs(step - target)) for target in wanted}
    return sorted({first, *nearest, last})
