"""Progress of a run with its losses, on stderr."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from ocr_interp.configuration.run import RunConfig
from ocr_interp.running.progress import Show, progress_bar

Update = Callable[[int, Mapping[str, float]], None]


@contextmanager
def training_bar(config: RunConfig, step: int, show: Show) -> Iterator[Update]:
    """Shows steps, rate and losses while the block runs; yields the function that takes a step and a row."""
    with progress_bar(config.model.ov, config.train.steps, step, show) as move:

        def update(step: int, row: Mapping[str, float]) -> None:
            losses = {"training": row["train_loss"], "held-out implication": row["held_out_implication/loss"]}
            known = [f"{name} {loss:.4f}" for name, loss in losses.items() if not math.isnan(loss)]
            move(step, f"loss {', '.join(known)}" if known else "")

        yield update
