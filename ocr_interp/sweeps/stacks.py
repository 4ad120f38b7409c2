"""Trains a stack of runs together; when one run ends or diverges, the others go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ocr_interp.configuration.run import RunConfig
from ocr_interp.devices import DTYPES
from ocr_interp.models.token_counts import TokenCountModel
from ocr_interp.models.weights import TokenWeights
from ocr_interp.sweeps.records import RunRecord
from ocr_interp.training.limits import tracked_norms
from ocr_interp.training.lockstep import Lockstep, divergence_message, stack_key
from ocr_interp.training.tracking import Tracker, learned, warn_of_collapse


class SweepStopped(Exception):  # noqa: N818  # not an error: the user asked for it
    """Raised inside a stack when the sweep is told to stop."""


def make_stacks(configs: Sequence[RunConfig], size: int) -> list[list[RunConfig]]:
    """Groups runs that can be trained together into stacks of at most `size`; keeps their order."""
    groups: dict[Any, list[RunConfig]] = {}
    for config in configs:
        groups.setdefault(stack_key(config), []).append(config)
    return [group[k : k + size] for group in groups.values() for k in range(0, len(group), size)]


def train_stack(
    configs: Sequence[RunConfig],
    *,
    certificates: bool = True,
    keep_weights: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    trained: Callable[[Sequence[RunConfig], int], None] = lambda configs, step: None,
) -> list[RunRecord]:
    """Trains runs of one shape together, each until it ends.

    Args:
        configs: runs with equal `stack_key`s.
        certificates, keep_weights: as in `sweep`.
        stopped: called at every logged step; True ends the training.
        trained: called at every logged step with the runs that have reached it.

    Returns: one record per run, in order. If the stack runs out of memory, its runs are tried again one by
        one; a run that also fails alone is recorded as failed.

    Raises:
        SweepStopped: `stopped` returned True.
    """
    start = time.perf_counter()
    try:
        return _Stack(configs, certificates, keep_weights, stopped, trained).run(start)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        message = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'out of memory'}"
    if len(configs) == 1:
        seconds = time.perf_counter() - start
        return [RunRecord(configs[0], "failed", message, seconds, configs[0].train.device, [])]
    options: dict[str, Any] = {"certificates": certificates, "keep_weights": keep_weights}
    options |= {"stopped": stopped, "trained": trained}
    return [train_stack([config], **options)[0] for config in configs]


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "out of memory" in str(error) or "alloc" in str(error)


@dataclass
class _Going:
    """A run that has not ended."""

    index: int
    config: RunConfig
    tracker: Tracker
    rows: list[dict[str, float]] = field(default_factory=list)


class _Stack:
    def __init__(
        self,
        configs: Sequence[RunConfig],
        certificates: bool,
        keep_weights: bool,
        stopped: Callable[[], bool],
        trained: Callable[[Sequence[RunConfig], int], None],
    ) -> None:
        self._lockstep, self._trained = Lockstep(configs), trained
        self._keep_weights, self._stopped, self._count = keep_weights, stopped, len(configs)
        trackers: dict[Any, Tracker] = {}
        self._going: list[_Going] = []
        for index, config in enumerate(configs):
            norms = tracked_norms(config.model.placed_map(config.task).norm)
            key = (config.task, config.train.data, config.train.eval_draws, norms)
            if key not in trackers:
                options = (DTYPES[config.model.dtype], self._lockstep.device, certificates, norms)
                trackers[key] = Tracker(config.task, config.train, *options)
            self._going.append(_Going(index, config, trackers[key]))
        self._ended: dict[int, RunRecord] = {}

    def run(self, start: float) -> list[RunRecord]:
        """Trains until every run has ended."""
        recipe, step = self._going[0].config.train, 0
        for target in recipe.logged_steps():
            if self._stopped():
                raise SweepStopped
            losses = self._lockstep.advance(step, target)
            # Row by row: a mean over an axis sums in another order than the mean of a single run.
            means = torch.stack([row.mean() for row in losses]).tolist()
            bad = self._lockstep.first_bad_steps(step, target)
            step = target
            self._trained([run.config for run in self._going], step)
            statuses = [
                self._status(run, model, step, mean, first_bad)
                for run, model, mean, first_bad in zip(
                    self._going, self._lockstep.models, means, bad, strict=True
                )
            ]
            self._end(statuses, step, (time.perf_counter() - start) / self._count)
            if not self._going:
                break
        return [self._ended[index] for index in range(self._count)]

    def _status(
        self, run: _Going, model: TokenCountModel, step: int, mean_loss: float, first_bad: int | None
    ) -> tuple[str, str]:
        """Measures a run; returns its status ("" while it goes on) and a message."""
        if first_bad is not None:
            return "diverged", divergence_message(run.config, first_bad)
        with torch.no_grad():
            row = {"step": step, "train_loss": mean_loss, **run.tracker.measure(model)}
        if not run.tracker.finite(row):
            return "diverged", divergence_message(run.config, step)
        warn_of_collapse(row, run.rows)
        run.rows.append(row)
        if step == run.config.train.steps:
            return "finished", ""
        return ("learned" if learned(row, run.config.train.stop_when_learned) else ""), ""

    def _end(self, statuses: Sequence[tuple[str, str]], step: int, seconds: float) -> None:
        """Records the runs that have ended and goes on with the others."""
        on = [k for k, (status, _) in enumerate(statuses) if not status]
        for k, (status, message) in enumerate(statuses):
            if status:
                run, model, device = self._going[k], self._lockstep.models[k], self._lockstep.device.type
                weights = self._weights(run.config, model, step) if status != "diverged" else None
                record = RunRecord(run.config, status, message, seconds, device, list(run.rows), weights)
                self._ended[run.index] = record
        if len(on) < len(self._going):
            self._going = [self._going[k] for k in on]
            if on:
                self._lockstep.keep(on, step)

    def _weights(self, config: RunConfig, model: TokenCountModel, step: int) -> TokenWeights | None:
        if not self._keep_weights:
            return None
        recipe = config.train
        weights = model.weights(recipe.inert_factor(step), recipe.inert_factor(step, "scores"))
        return weights.to("cpu")
