"""Trains several run directories together: the same files as `train` writes into each, in less time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from ocr_interp.configuration.run import RunConfig
from ocr_interp.errors import ConfigError, TrainingDivergedError
from ocr_interp.running.interruption import asked_to_stop
from ocr_interp.training.lockstep import Lockstep, stack_key
from ocr_interp.training.loop import Training
from ocr_interp.training.run import Run
from ocr_interp.training.store import Checkpoint, RunStore


def train_together(configs: Sequence[RunConfig], run_dirs: Sequence[str | Path]) -> list[Run]:
    """Trains runs of one shape together step by step, each into its own directory.

    On a CPU every directory gets, bit for bit, the files that `train` writes for the same run. Runs that
    were stopped earlier are resumed, in groups at equal steps; complete ones are only read.

    Args:
        configs: the runs; they must agree in shapes, kind of model and data, and logged steps (`stack_key`).
        run_dirs: one directory per run.

    Returns: the runs, in order. Ctrl-C or SIGTERM ends all at the next logged step and keeps everything.

    Raises:
        ConfigError: runs that cannot be trained together, or not one directory for each.
        RunError, RunBusyError: a directory holds something else, is damaged, in use, or cannot be written.
        TrainingDivergedError: a loss that is NaN or infinite; raised after all other runs have ended.
    """
    paths = [Path(run_dir) for run_dir in run_dirs]
    if len(paths) != len(configs) or len(set(paths)) != len(paths):
        raise ConfigError(
            f"every run needs a directory of its own, got {len(configs)} runs and "
            f"{len(set(paths))} different directories"
        )
    if len({stack_key(config) for config in configs}) > 1:
        raise ConfigError(
            "runs that are trained together must have equal shapes, kinds of models and data, and logged "
            "steps: group them by ocr_interp.training.lockstep.stack_key, or train each with train()"
        )
    stores = [RunStore(path) for path in paths]
    diverged: list[TrainingDivergedError] = []
    with ExitStack() as opened, asked_to_stop() as interrupted:
        for store, config in zip(stores, configs, strict=True):
            opened.enter_context(store.opened(config))
        for group in _groups(configs, stores):
            diverged += _train_group(group, interrupted)
    if diverged:
        raise diverged[0]
    return [store.read_run() for store in stores]


_Member = tuple[RunConfig, RunStore, Checkpoint | None]


def _groups(configs: Sequence[RunConfig], stores: Sequence[RunStore]) -> list[list[_Member]]:
    """The incomplete runs, grouped by the step they are at."""
    by_step: dict[int, list[_Member]] = {}
    for config, store in zip(configs, stores, strict=True):
        checkpoint = store.read_checkpoint()
        if checkpoint is None:
            by_step.setdefault(-1, []).append((config, store, None))  # step 0 is still to be measured
        elif checkpoint.status not in ("finished", "learned"):
            by_step.setdefault(checkpoint.step, []).append((config, store, checkpoint))
    return list(by_step.values())


def _train_group(group: Sequence[_Member], interrupted: Callable[[], bool]) -> list[TrainingDivergedError]:
    """Trains runs from the same step until each has ended; returns the errors of those that diverged."""
    lockstep = _SharedLockstep([config for config, _, _ in group])
    going: list[tuple[Training, RunStore]] = []
    for place, (config, store, checkpoint) in enumerate(group):
        training = Training(config, lockstep, place)
        if checkpoint is not None:
            training.restore(checkpoint)
        going.append((training, store))
    diverged: list[TrainingDivergedError] = []
    for target in going[0][0].targets():
        rows: list[tuple[Training, RunStore, dict[str, float]]] = []
        for training, store in going:
            try:
                rows.append((training, store, training.advance(target)))
            except TrainingDivergedError as error:
                diverged.append(error)
        stop = interrupted()
        for training, store, row in rows:
            training.keep(row, store, stop)
        on = [(training, store) for training, store, _ in rows if training.status == "unfinished"]
        if not on:
            break
        if len(on) < len(going):
            lockstep.keep([training.place for training, _ in on], target)
            for place, (training, _) in enumerate(on):
                training.place = place
        going = on
    return diverged


class _SharedLockstep(Lockstep):
    """A lockstep in which every run asks for the same steps; the first request trains them for all."""

    _trained: tuple[int, int] | None = None
    _bad: list[int | None]

    def advance(self, first: int, target: int) -> Float[Tensor, "run step"]:
        if self._trained != (first, target):
            super().advance(first, target)
            self._bad = super().first_bad_steps(first, target)
            self._trained = (first, target)
        return self.losses[:, : target - first]

    def first_bad_steps(self, first: int, target: int) -> list[int | None]:
        return self._bad
