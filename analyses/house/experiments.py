"""Experiments: a task, a kind of model and a recipe, trained with several seeds and kept on disk."""

from __future__ import annotations

import os
import signal
import threading
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from ocr_interp import FactRecallTask, ModelConfig, Run, RunConfig, TrainConfig, load_run

STACK = 6
"""Largest number of runs that are trained together; more gain little (benchmarks/results/sweeps.json)."""

ROW = 15
"""Cost of measuring one logged row, in training steps."""


@dataclass(frozen=True)
class Experiment:
    """A configuration that is trained with every seed and stored in runs/<name>/seed<k>.

    Attributes:
        name: name of its folder.
        task, model, train: configuration of all its runs; the seed of `train` is replaced.
        seeds: one run each.
    """

    name: str
    task: FactRecallTask
    model: ModelConfig
    train: TrainConfig
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)

    def config(self, seed: int) -> RunConfig:
        """The configuration of one run."""
        return RunConfig(self.task, self.model, replace(self.train, seed=seed))

    def path(self, runs: Path, seed: int) -> Path:
        """The directory of one run."""
        return runs / self.name / f"seed{seed}"


Job = list[tuple[RunConfig, Path]]


def train_all(runs: Path, experiments: Iterable[Experiment]) -> None:
    """Trains the missing runs, those of one shape together, in as many processes as there are cores."""
    wanted = [(e.config(seed), e.path(runs, seed)) for e in experiments for seed in e.seeds]
    missing = [(config, path) for config, path in wanted if not _is_complete(path)]
    if not missing:
        return
    cores = os.cpu_count() or 1
    jobs = make_jobs(missing, cores)
    if len(jobs) == 1:
        _train(jobs[0])
        return
    with (
        Progress(console=Console(stderr=True)) as bar,
        ProcessPoolExecutor(min(cores, len(jobs)), get_context("spawn"), end_with_the_parent) as pool,
    ):
        shown = bar.add_task(f"training {len(missing)} models", total=len(missing))
        waiting = {pool.submit(_train, job): len(job) for job in jobs}
        for done in as_completed(waiting):
            done.result()
            bar.advance(shown, waiting[done])


def load_all(runs: Path, experiment: Experiment) -> list[Run]:
    """The runs of an experiment, one per seed, trained if they are missing."""
    train_all(runs, [experiment])
    return [load_run(experiment.path(runs, seed)) for seed in experiment.seeds]


def make_jobs(missing: Job, workers: int) -> list[Job]:
    """Groups runs that can be trained together into stacks, the longest first to keep all cores busy."""
    from ocr_interp.training.lockstep import stack_key

    groups: dict[Any, Job] = defaultdict(list)
    for config, path in missing:
        groups[stack_key(config)].append((config, path))
    jobs = []
    for group in groups.values():
        parts = -(-len(group) // STACK)
        if len(groups) == 1:  # otherwise the other cores would be idle
            parts = max(parts, min(workers, len(group)))
        jobs += [group[k::parts] for k in range(parts)]
    return sorted(jobs, key=_cost, reverse=True)


def _cost(job: Job) -> int:
    """Cost of a job, in training steps of one model."""
    recipe = job[0][0].train
    return len(job) * (recipe.steps + ROW * len(recipe.logged_steps()))


def _is_complete(path: Path) -> bool:
    return (path / "checkpoint" / "state.safetensors").exists() and load_run(path).complete


def _train(job: Job) -> None:
    """Trains one stack in one thread: small matrices do not gain from more, and every core has a process."""
    import torch

    from ocr_interp.training.together import train_together

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train_together([config for config, _ in job], [path for _, path in job])
    finally:
        torch.set_num_threads(threads)
    parent = parent_process()
    if parent is not None and not parent.is_alive():  # training was asked to stop and has saved
        os._exit(1)


def end_with_the_parent() -> None:
    """Sends SIGTERM to this process of a pool when the one that started it is gone.

    A process of a pool waits for work for ever if the parent was killed. One that trains saves first.
    """
    threading.Thread(target=_terminate_after_the_parent, daemon=True).start()


def _terminate_after_the_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
