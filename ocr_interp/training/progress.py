"""A progress bar with the losses of a run, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from ocr_interp.configuration.run import RunConfig
from ocr_interp.running.progress import progress_bar

Update = Callable[[int, Mapping[str, float]], None]


@contextmanager
def training_bar(config: RunConfig, step: int, show: bool | None) -> Iterator[Update]:
    """Shows steps, rate and losses while the block runs; yields the function that takes a step and a row."""
    with progress_bar(config.model.ov, config.train.steps, step, show) as move:

        def update(step: int, row: Mapping[str, float]) -> None:
            train, held_out = row["train_loss"], row["held_out_implication/loss"]
            move(step, f"training {train:.4f}, held-out implication {held_out:.4f}")

        yield update
