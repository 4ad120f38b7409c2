"""sweep(axes, ...) -> SweepResult: trains a grid of configurations, many models at once; resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from ocr_interp.checks import check_choice, check_count, check_flag
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.data import NoisyBatches, count_noise_multisets
from ocr_interp.devices import resolve_device
from ocr_interp.errors import ConfigError, OcrInterpError, RunError
from ocr_interp.models.starts import initial_weights
from ocr_interp.running.interruption import terminated_as_by_ctrl_c
from ocr_interp.running.progress import Show
from ocr_interp.sweeps.engines import LocalEngine, StackOptions
from ocr_interp.sweeps.grid import Axes, Point, grid_points
from ocr_interp.sweeps.progress import sweep_bar
from ocr_interp.sweeps.records import RunRecord
from ocr_interp.sweeps.result import SweepResult, differing_columns, in_order, make_result
from ocr_interp.sweeps.stacks import make_stacks
from ocr_interp.sweeps.store import SweepStore
from ocr_interp.task import FactRecallTask

ENGINES = ("local", "ray")
STACK_ON_CPU, STACK_ON_GPU = 16, 256
"""Runs trained together by default: few enough for a core's cache, many enough to use a GPU."""


def sweep(
    axes: Axes,
    *,
    task: FactRecallTask | None = None,
    model: ModelConfig | None = None,
    train: TrainConfig | None = None,
    path: str | Path | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    stack: int | None = None,
    certificates: bool = True,
    keep_weights: bool = False,
    progress: Show = None,
) -> SweepResult:
    """Trains every point of a grid, runs of one shape together; with a path, only points not yet in it.

    On a CPU each run equals `train(task, model, train)` with one thread to the bit, whichever runs it is
    trained together with; on a GPU it equals it up to rounding.

    Args:
        axes: field -> values, of which every combination is trained, or a list of points
            (`sweeps.grid.grid_points`). A recipe's snapshots and checkpoints are not written.
        task, model, train: configuration of everything that is not an axis; None is the default, the
            paper's.
        path: folder of the sweep. Runs that are already in it are not trained again, and runs of other
            points are left alone, so axes can get more values later. Each stack is written when all its
            runs have ended.
        engine: "local" trains in this process, "ray" on a Ray cluster.
        workers: stacks trained at the same time, one thread each; None is 1 with "local" and the number of
            the cluster's CPUs with "ray".
        ray_address: address of a Ray cluster; "auto" uses the cluster that is running, None starts one on
            this machine. Only with engine="ray".
        stack: runs of one shape trained together; None is 16 on a CPU and 256 on a GPU.
        certificates: whether to compute certified gaps of the norms at every logged step; without them a
            row takes about half the time, and the columns gap_nuclear and gap_frobenius are NaN.
        keep_weights: whether to keep the weights at the last step of each run.
        progress: True shows a progress bar over the steps of all runs on stderr, "lines" plain lines, False
            nothing; None a bar on a terminal. With "ray" it moves when a stack has ended.

    Returns: the runs of this grid. A run whose loss is not finite ("diverged") or that an error ended, such
        as lack of memory ("failed", tried again by the next call), has a message and does not stop the
        others. Ctrl-C or SIGTERM ends the sweep; stacks that were written stay.

    Raises:
        UnknownNameError, ConfigError: an axis, a point or an option that is not allowed; the message names
            it. Raised before anything is trained.
        RunBusyError, RunError: the folder is in use, or holds something else.
    """
    check_choice("engine", engine, ENGINES)
    for name, value in (("workers", workers), ("stack", stack)):
        if value is not None:
            check_count(name, value, 1)
    for name, value in (("certificates", certificates), ("keep_weights", keep_weights)):
        check_flag(name, value)
    if ray_address is not None and engine != "ray":
        raise ConfigError(f"ray_address must be None unless engine='ray', got {ray_address!r}")
    points = grid_points(axes, task, model, train)
    _refuse_invalid(points)
    configs = [point.config for point in points]
    options = StackOptions(certificates, keep_weights)
    if engine == "ray":
        from ocr_interp.sweeps.distributed import RayEngine

        run_stacks = RayEngine(ray_address, workers).run
    else:
        run_stacks = LocalEngine(workers or 1).run
    names = tuple(dict.fromkeys(name for point in points for name in point.values))
    settings = {"certificates": certificates, "keep_weights": keep_weights}
    if path is None:
        records = _train_missing(configs, {}, run_stacks, stack, options, progress, None)
        return make_result([records[c.fingerprint] for c in configs], names, settings, None)
    store = SweepStore(Path(path))
    with store.opened(settings):
        there = {name: r for name, r in store.read_records().items() if r.status != "failed"}
        records = _train_missing(configs, there, run_stacks, stack, options, progress, store)
        everything = _result_of_folder(store)
        store.write_tables(everything.runs, everything.table)
    chosen = [records[config.fingerprint] for config in configs]
    return make_result(chosen, names, store.read_settings(), store.path)


def load_sweep(path: str | Path) -> SweepResult:
    """All runs that have ended in the folder of a sweep; its axes are the columns in which they differ.

    Raises:
        RunError: no sweep there, none of its runs has ended, or a damaged file.
    """
    return _result_of_folder(SweepStore(Path(path)))


def _result_of_folder(store: SweepStore) -> SweepResult:
    settings, records = store.read_settings(), list(store.read_records().values())
    if not records:
        raise RunError(f"{store.path} holds no run that has ended yet")
    names = differing_columns([record.config for record in records])
    return make_result(in_order(records, names), names, settings, store.path)


def _refuse_invalid(points: Sequence[Point]) -> None:
    """Raises ConfigError for the first point that cannot be trained, before anything is trained."""
    checked: set[Any] = set()
    for point in points:
        config = point.config
        recipe = config.train
        key = (config.task, config.model, recipe.data, recipe.batch_size, recipe.device)
        if key in checked:
            continue
        checked.add(key)
        try:
            resolve_device(recipe.device, config.model.dtype)
            initial_weights(config.task, config.model, recipe.seed)
            if recipe.data == "noisy":
                NoisyBatches(config.task, recipe.batch_size, recipe.seed)
            elif recipe.data == "exhaustive":
                count_noise_multisets(config.task, len(config.task.triples))
        except OcrInterpError as error:
            raise ConfigError(f"invalid point ({point.label}): {error}") from None


def _train_missing(
    configs: Sequence[RunConfig],
    there: dict[str, RunRecord],
    run_stacks: Callable[..., None],
    stack: int | None,
    options: StackOptions,
    progress: Show,
    store: SweepStore | None,
) -> dict[str, RunRecord]:
    """Trains the missing runs; returns all records by name."""
    records = dict(there)
    missing = [config for config in configs if config.fingerprint not in records]
    stacks = make_stacks(missing, stack or _stack_size(missing))
    with sweep_bar(configs, missing, progress) as shown:

        def finished(ended: list[RunRecord]) -> None:
            if store is not None:
                store.write_part(ended)
            records.update((record.run, record) for record in ended)
            shown.ended(ended)

        if stacks:
            with terminated_as_by_ctrl_c():
                run_stacks(stacks, options, finished, shown.trained)
    return records


def _stack_size(configs: Iterable[RunConfig]) -> int:
    devices = {resolve_device(config.train.device, config.model.dtype).type for config in configs}
    return STACK_ON_CPU if devices <= {"cpu"} else STACK_ON_GPU
