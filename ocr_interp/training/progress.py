"""A progress bar with the losses, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from ocr_interp.configuration.run import RunConfig

Update = Callable[[int, Mapping[str, float]], None]


@contextmanager
def progress_bar(config: RunConfig, step: int, show: bool) -> Iterator[Update]:
    """Shows steps, rate and losses while the block runs; gives the function that moves it on."""
    if not show:
        yield lambda step, row: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(config.model.ov),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("training {task.fields[train]:.4f}, held-out implication {task.fields[held_out]:.4f}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        nan = float("nan")
        shown = bar.add_task("", total=config.train.steps, completed=step, train=nan, held_out=nan)

        def update(step: int, row: Mapping[str, float]) -> None:
            held_out = row["held_out_implication/loss"]
            bar.update(shown, completed=step, train=row["train_loss"], held_out=held_out)

        yield update
