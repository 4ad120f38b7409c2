"""train(task, model_config, train_config) -> Run: trains in the token-count form; resumable to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from ocr_interp.checks import check_type
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.devices import DTYPES
from ocr_interp.errors import RunError, TrainingDivergedError
from ocr_interp.models.weights import TokenWeights
from ocr_interp.running.interruption import asked_to_stop
from ocr_interp.running.progress import Show
from ocr_interp.storage.tables import history_table
from ocr_interp.task import FactRecallTask
from ocr_interp.training.limits import tracked_norms
from ocr_interp.training.lockstep import Lockstep, divergence_message
from ocr_interp.training.progress import training_bar
from ocr_interp.training.run import Run
from ocr_interp.training.store import ENDED, Checkpoint, RunStore, copy_exactly
from ocr_interp.training.tracking import Tracker, learned, warn_of_collapse

OnLog = Callable[[Mapping[str, float]], None]


def train(
    task: FactRecallTask,
    model_config: ModelConfig | None = None,
    train_config: TrainConfig | None = None,
    run_dir: str | Path | None = None,
    *,
    progress: Show = None,
    on_log: OnLog | None = None,
) -> Run:
    """Trains a model on a task; with a run_dir, resumes the run that is in it.

    Args:
        task: the fact-recall task.
        model_config: kind of model; None is the paper's factorized one.
        train_config: recipe; None is the paper's.
        run_dir: directory of the run. If it holds a run of the same configuration, the run is resumed,
            and the result equals that of an uninterrupted run to the bit; a complete run is only read. A run
            of the same configuration with fewer steps goes on likewise; its earlier snapshots stay, and
            later ones follow the longer schedule.
        progress: True shows a progress bar with losses on stderr, "lines" plain lines, False nothing; None a
            bar on a terminal.
        on_log: called with every row of the history, for an experiment tracker of your own.

    Returns: the run. Ctrl-C or SIGTERM ends it at the next logged step with status "interrupted" and keeps
        everything; a second one stops at once.

    Raises:
        ConfigError: a configuration that is not allowed; raised before anything is written.
        RunError, RunBusyError: run_dir holds something else, is damaged, in use, or cannot be written.
        TrainingDivergedError: a loss that is NaN or infinite; the message gives the step. The last
            checkpoint stays.
    """
    order = "the order is train(task, model_config, train_config, run_dir)"
    check_type("task", task, FactRecallTask, order)
    check_type("model_config", model_config or ModelConfig(), ModelConfig, order)
    check_type("train_config", train_config or TrainConfig(), TrainConfig, order)
    config = RunConfig(task, model_config or ModelConfig(), train_config or TrainConfig())
    training = Training(config)
    if run_dir is None:
        return training.run(None, progress, on_log)
    store = RunStore(Path(run_dir))
    with store.opened(config):
        checkpoint = store.read_checkpoint()
        if checkpoint is not None and checkpoint.status in ENDED:
            return store.read_run()
        if checkpoint is not None:
            training.restore(checkpoint)
        return training.run(store, progress, on_log)


class Training:
    """The state of a training run: parameters, optimiser, step, history.

    Args:
        config: the run.
        lockstep: trains it, together with other runs if it has some; None trains the run alone.
        place: index of the run in the lockstep.
    """

    def __init__(self, config: RunConfig, lockstep: Lockstep | None = None, place: int = 0) -> None:
        self.config, recipe = config, config.train
        self.lockstep = Lockstep([config]) if lockstep is None else lockstep
        self.place = place
        self.device, self.model = self.lockstep.device, self.lockstep.models[place]
        norms = tracked_norms(config.model.placed_map(config.task).norm)
        dtype = DTYPES[config.model.dtype]
        self.tracker = Tracker(config.task, recipe, dtype, self.device, norms=norms)
        self.step, self.status = 0, "unfinished"
        self._checkpoint_due, self._snapshot_steps = recipe.checkpoint_every, set(recipe.snapshot_steps())
        self.rows: list[dict[str, float]] = []
        self.snapshots: dict[int, TokenWeights] = {}

    def run(self, store: RunStore | None, progress: Show, on_log: OnLog | None) -> Run:
        """Trains to the last step, or until Ctrl-C."""
        with asked_to_stop() as interrupted, training_bar(self.config, self.step, progress) as update:
            for target in self.targets():
                row = self.advance(target)
                update(self.step, row)
                if on_log is not None:
                    on_log(dict(row))
                self.keep(row, store, interrupted())
                if self.status != "unfinished":
                    break
        return self._result(store)

    def targets(self) -> Iterator[int]:
        """The logged steps that are still to come."""
        begun = bool(self.rows)
        first = self.step
        return (step for step in self.config.train.logged_steps() if step > first or not begun)

    def keep(self, row: Mapping[str, float], store: RunStore | None, interrupted: bool) -> None:
        """Sets the status after a row; writes the snapshot, checkpoint and weights that are due."""
        recipe = self.config.train
        if self.step == recipe.steps:
            self.status = "finished"
        elif learned(row, recipe.stop_when_learned):
            self.status = "learned"
        elif interrupted:
            self.status = "interrupted"
        if self.step in self._snapshot_steps or (self._snapshot_steps and self.status == "learned"):
            self._snapshot(store)
        if self.status != "unfinished" or self.step >= self._checkpoint_due:
            self._checkpoint(store, self.status)
            self._checkpoint_due = self.step + recipe.checkpoint_every

    def advance(self, target: int) -> dict[str, float]:
        """Trains up to the target step and measures there, without waiting for the device in between."""
        first = self.step
        losses = self.lockstep.advance(first, target)[self.place]
        self.step = target
        with torch.no_grad():
            bad = self.lockstep.first_bad_steps(first, target)[self.place]
            if bad is not None:
                raise self._diverged(bad)
            row: dict[str, float] = {
                "step": self.step,
                "train_loss": float(losses.mean()) if len(losses) else float("nan"),
                **self.tracker.measure(self.model),
            }
            if not self.tracker.finite(row):
                raise self._diverged(self.step)
        warn_of_collapse(row, self.rows)
        self.rows.append(row)
        return row

    def _diverged(self, step: int) -> TrainingDivergedError:
        message = divergence_message(self.config, step)
        return TrainingDivergedError(f"{message}. Nothing after the last checkpoint was written")

    def _snapshot(self, store: RunStore | None) -> None:
        weights = self._weights()
        if store is None:
            self.snapshots[self.step] = weights.to("cpu")
        else:
            store.write_snapshot(self.step, weights)

    def _checkpoint(self, store: RunStore | None, status: str) -> None:
        if store is None:
            return
        if status != "unfinished":
            store.write_weights(self.step, self._weights())
        tensors = {f"parameter.{name}": p for name, p in self.model.parameters.items()}
        for name, state in self.lockstep.optimizers.state(self.place, self.step).items():
            tensors |= {f"optimizer.{name}.{key}": value for key, value in state.items()}
        tensors |= {f"anchor.{name}": value for name, value in self.model.anchor.items()}
        history = history_table(self.rows)
        store.write_checkpoint(Checkpoint(self.step, status, self.device.type, tensors, history))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Sets parameters, optimiser state, step and history to those of a checkpoint."""
        if checkpoint.device != self.device.type:
            raise RunError(
                f"this run was trained on {checkpoint.device!r} and cannot go on, bit for bit, on "
                f"{self.device.type!r}: go on where there is such a device, or train into a new run_dir"
            )
        names, state = list(self.model.parameters), {name: {} for name in self.model.parameters}
        for key, tensor in checkpoint.tensors.items():
            kind, _, rest = key.partition(".")
            name, _, entry = rest.partition(".")
            if kind == "anchor" and name in self.model.anchor:
                copy_exactly(self.model.anchor[name], tensor, f"the anchor of {name}")
                continue
            if name not in names or (kind, bool(entry)) not in (("parameter", False), ("optimizer", True)):
                raise RunError(f"the checkpoint holds {key!r}, which this model does not have")
            if kind == "optimizer":
                state[name][entry] = tensor
        for name, parameter in self.model.parameters.items():
            if f"parameter.{name}" not in checkpoint.tensors:
                raise RunError(f"the checkpoint lacks the parameter {name!r} of this model")
            if name in self.model.anchor and f"anchor.{name}" not in checkpoint.tensors:
                raise RunError(f"the checkpoint lacks the anchor of {name!r}")
            copy_exactly(parameter, checkpoint.tensors[f"parameter.{name}"], name)
        state = {name: entries for name, entries in state.items() if entries}
        self.lockstep.optimizers.restore(self.place, checkpoint.step, state)
        self.step = checkpoint.step
        self._checkpoint_due = self.step + self.config.train.checkpoint_every
        self.rows = [dict(row) for row in checkpoint.history.to_dict("records")]

    def _weights(self) -> TokenWeights:
        recipe, step = self.config.train, self.step
        return self.model.weights(recipe.inert_factor(step), recipe.inert_factor(step, "scores"))

    def _result(self, store: RunStore | None) -> Run:
        if store is not None:
            return store.read_run()
        history, weights = history_table(self.rows), self._weights().to("cpu")
        return Run(self.config, self.step, weights, history, self.status, None, self.snapshots)
