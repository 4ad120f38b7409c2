"""The loop of a fine-tuning run: its model and optimizers, its steps, measurements and checkpoints."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ocr_interp.devices import seeded_generator
from ocr_interp.errors import ConfigError, ModelError, RunError, TrainingDivergedError
from ocr_interp.llm.adapters import methods
from ocr_interp.llm.adapters.base import Attached
from ocr_interp.llm.encoding import Encoded, encode, training_batch
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.layers.joined import apart, joined_in, together
from ocr_interp.llm.layers.movement import Movement
from ocr_interp.llm.measuring.measure import Measurement
from ocr_interp.llm.measuring.recorder import Recorder
from ocr_interp.llm.models.forward import answer_logits, logits_of
from ocr_interp.llm.models.loading import LanguageModel, loading_failures
from ocr_interp.llm.models.positions import refuse_too_long
from ocr_interp.llm.training.base_source import BaseSource
from ocr_interp.llm.training.configuration import LLMRunConfig
from ocr_interp.llm.training.files.checkpoint import Checkpoint
from ocr_interp.llm.training.files.store import RunFolder
from ocr_interp.llm.training.master_weights import MasterWeights
from ocr_interp.llm.training.memory import estimate_memory, refuse_too_little
from ocr_interp.llm.training.run import FinetuneRun
from ocr_interp.llm.training.trainable import (
    make_optimizers,
    make_trainable,
    restore_state,
    trained_parameters,
    training_state,
)
from ocr_interp.llm.training.update import (
    method_state,
    method_statistics,
    restore_method_state,
    run_movement,
    trained_model,
)
from ocr_interp.optim import optimizers
from ocr_interp.storage.tables import history_table

OnLog = Callable[[Mapping[str, float]], None]

_ROUGH_POSITIONS = 64
"""Tokens per sequence in the memory estimate, which is made before the tokenizer is loaded."""


class Finetuning:
    """The state of a fine-tuning run: model, optimizers, step, history."""

    def __init__(
        self,
        config: LLMRunConfig,
        facts: FactSet,
        base: BaseSource,
        accelerator: Any,
        on_start: Callable[[LanguageModel, FactSet], None] | None = None,
    ) -> None:
        self.config, self.facts, recipe, self.accelerator = config, facts, config.train, accelerator
        self.device, self.is_main = self.accelerator.device, self.accelerator.is_main_process
        hf_config = base.config()
        with loading_failures(base.recipe.model):
            estimate = estimate_memory(hf_config, recipe, _ROUGH_POSITIONS)
        refuse_too_little(estimate, self.device, recipe)
        if base.given is not None and base.given.attached is not None:
            raise ModelError(base.given.attached.refusal("fine-tuning it again"))
        self.lm = base.load()
        self.recorder = Recorder(
            facts,
            self.lm,
            config.facts,
            recipe.eval_batch_size,
            n_measurements=len(recipe.logged_steps()),
            last_step=recipe.steps,
        )
        self.told: tuple[Encoded, ...] = encode(self.lm.tokenizer, facts.training_examples)
        self.recorder.refuse_too_long(self.lm.model)
        self.start = (
            base.start_weights(self.lm) if recipe.movement != "none" else "movement='none' was asked for"
        )
        if recipe.movement == "logged" and isinstance(self.start, str):
            raise ConfigError(f"movement='logged' needs the start of training: {self.start}")
        fed = [(len(one.prompt) + len(one.answer) - 1, one.example) for one in self.told]
        refuse_too_long(self.lm.model, fed)
        if recipe.steps and not self.told:
            raise ConfigError(f"there is nothing to train on ({config.facts.control=}): pass steps=0")
        methods[recipe.method].check_examples(recipe, facts.training_examples)
        if on_start is not None and self.is_main:
            on_start(self.lm, facts)
        self.adapter = methods[recipe.method]
        self.own_names = frozenset(name for name, _ in self.lm.model.named_parameters())
        self.inner = make_trainable(self.lm.model.to(self.device).eval(), recipe)
        attached = Attached(self.adapter, recipe)
        self.attached = LanguageModel(self.lm.name, self.inner, self.lm.tokenizer, attached)
        alone = not optimizers[recipe.optimizer].elementwise
        self.masters = MasterWeights(trained_parameters(self.inner), joined_in(self.inner), alone=alone)
        self.plain_optimizers = make_optimizers(self.inner, recipe, self.masters.trained)
        self.model, *self.optimizers = self.accelerator.prepare(self.inner, *self.plain_optimizers)
        self.step = 0
        self.rows: list[dict[str, float]] = []
        self.pending: list[Tensor] = []
        self.before: Measurement | None = None
        self.last: Measurement | None = None
        self.result: LanguageModel | None = None
        self.movement: Movement | str = "the run has not finished"
        self.seconds = {"train": 0.0, "measure": 0.0, "cpu": 0.0}

    def run(
        self,
        folder: RunFolder | None,
        on_log: OnLog | None,
        interrupted: Callable[[], bool],
        save_model: bool = False,
    ) -> FinetuneRun:
        """Trains to the last step, or until it is asked to stop."""
        recipe = self.config.train
        if not self.rows and recipe.steps:
            self._measure(on_log)
        saved = self.step
        for target in (step for step in recipe.logged_steps() if step > self.step):
            self._advance(target, interrupted)
            if self.step < target or target == recipe.steps:
                break
            self._measure(on_log)
            if self._anyone_asked(interrupted):
                break
            due = recipe.checkpoint_every and self.step - saved >= recipe.checkpoint_every
            if folder is not None and due:
                self._checkpoint(folder)
                saved = self.step
        if self.step < recipe.steps:
            return self._stopped(folder)
        if folder is not None and save_model and self.step > saved:
            self._last_checkpoint(folder)
        # The last row is of the model that is kept, whose update is merged and rounded to its precision.
        self._measure(on_log, final=True)
        return self._run("finished", folder)

    def _advance(self, target: int, interrupted: Callable[[], bool]) -> None:
        """Trains up to a step, or until Ctrl-C."""
        first = self.step
        with self._timed("train"):
            self._steps(target, interrupted)
        if self.pending and not bool(torch.stack(self.pending).isfinite().all()):
            raise self._diverged(f"the loss is not finite between steps {first} and {self.step}")

    def _diverged(self, what: str) -> TrainingDivergedError:
        recipe = self.config.train
        return TrainingDivergedError(
            f"{what} ({recipe.optimizer}, lr={recipe.lr:g}): lower lr. Nothing after the last checkpoint was "
            "written"
        )

    def _ask(self) -> Measurement:
        """Measures the model; after the first step, answers that are not finite raise a divergence error."""
        try:
            return self.recorder.ask(logits_of(self.result or self.attached), self.device)
        except ModelError:
            if not self.step:
                raise
            raise self._diverged(f"the answers are not finite after step {self.step}") from None

    def _steps(self, target: int, interrupted: Callable[[], bool]) -> None:
        while self.step < target and not (interrupted() and self.accelerator.num_processes == 1):
            self.pending.append(self._update())
            self.step += 1

    def _anyone_asked(self, interrupted: Callable[[], bool]) -> bool:
        """Whether Ctrl-C reached any process; several processes stop together, at a logged step."""
        asked = torch.tensor(float(interrupted()), device=self.device)
        return bool(self.accelerator.reduce(asked, "sum") > 0)  # pyright: ignore[reportOperatorIssue]

    @contextlib.contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        """Adds the wall-clock time of a block to `what`, and its processor time to "cpu"."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds[what] += time.perf_counter() - wall
        self.seconds["cpu"] += time.process_time() - cpu

    def _mean_loss(self) -> float:
        """Mean loss since the last row over steps and processes; NaN before the first step."""
        if not self.pending:
            return float("nan")
        loss = torch.stack(self.pending).mean()
        self.pending = []
        return float(self.accelerator.reduce(loss, "mean"))  # pyright: ignore[reportArgumentType]

    def _update(self) -> Tensor:
        """Does one step; returns its loss, nats per answer token, without waiting for the device."""
        recipe = self.config.train
        whole = self._batch(self.step)
        n_tokens = sum(len(example.answer) for example in whole)
        count, index = self.accelerator.num_processes, self.accelerator.process_index
        batch = training_batch(whole[index::count], self.lm.pad, self.device)
        self.adapter.before_forward(self.inner, recipe, batch, self.step)
        logits = answer_logits(self.model, batch, self.inner).float()
        # Gradients are averaged over processes, so each process scales its share of the mean up.
        loss = functional.cross_entropy(logits, batch.target, reduction="sum") * (count / n_tokens)
        extra = self.adapter.extra_loss(self.inner, recipe)
        self.accelerator.backward(loss if extra is None else loss + extra)
        self.masters.take_gradients()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.masters.write_back()
        return loss.detach()

    def _batch(self, step: int) -> list[Encoded]:
        """The examples of a step; the epochs, each in random order, are concatenated and cut into batches."""
        size, n = self.config.train.batch_size, len(self.told)
        places = range(step * size, (step + 1) * size)
        orders = {epoch: self._order(epoch, n) for epoch in {place // n for place in places}}
        return [self.told[orders[place // n][place % n]] for place in places]

    def _order(self, epoch: int, n: int) -> list[int]:
        generator = seeded_generator("cpu", self.config.train.train_seed, epoch)
        return torch.randperm(n, generator=generator).tolist()

    def _measure(self, on_log: OnLog | None, *, final: bool = False) -> None:
        """Adds a row; the final one is of the trained model, with its update merged if that is possible."""
        with self._timed("measure"):
            statistics = method_statistics(self.inner, self.config.train)
            if final:
                self.result = trained_model(self.lm, self.own_names, self.inner, self.config.train)
            found = self._ask()
            answers = logits_of(self.result or self.attached)
            recorded = self.recorder.record(self.step, found, answers, self.device)
            moved = self._moved(final)
        self.last = replace(found, scores=None)  # the recorder keeps them
        self.before = self.before or self.last
        row = {"step": self.step, "train_loss": self._mean_loss(), **self.last.row(), **recorded, **moved}
        row |= statistics
        self.rows.append(row)
        if on_log is not None and self.is_main:
            on_log(dict(row))

    def _moved(self, final: bool) -> dict[str, float]:
        """Measures how far the weights moved if that is asked for now; the columns of this row."""
        every = self.config.train.movement == "logged"
        if final and self.is_main:
            self.movement = run_movement(self.result or self.lm, self.start)
        if not every:
            return {}
        now = self.movement if final and self.is_main else run_movement(self.lm, self.start)
        return {} if isinstance(now, str) else now.row()

    def _checkpoint(self, folder: RunFolder) -> None:
        if self.is_main:
            folder.write_checkpoint(self._state(self.plain_optimizers))
        self.accelerator.wait_for_everyone()

    def _last_checkpoint(self, folder: RunFolder) -> None:
        """A checkpoint of the trained parameters alone, which stays until the model is kept.

        The small files of the result do not depend on it: where it cannot be written, an earlier one stays.
        """
        if self.is_main:
            with contextlib.suppress(RunError):
                folder.write_checkpoint(self._state(()))
        self.accelerator.wait_for_everyone()

    def _state(self, optimizers: Sequence[torch.optim.Optimizer]) -> Checkpoint:
        assert self.before is not None
        tensors = apart(training_state(self.masters.trained, optimizers), self.masters.joined)
        return Checkpoint(
            step=self.step,
            seconds=dict(self.seconds),
            device=self.device.type,
            tensors=tensors | method_state(self.inner, self.config.train) | self.recorder.state(),
            history=list(self.rows),
            before=self.before.to_dict(),
            pending=[float(loss) for loss in self.pending],
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Sets parameters, optimizer state, step and history to those of a checkpoint."""
        if checkpoint.device != self.device.type:
            raise RunError(
                f"this run was trained on {checkpoint.device!r} and cannot go on, bit for bit, on "
                f"{self.device.type!r}: go on where there is such a device, or choose another run_dir"
            )
        others = self.recorder.restore(checkpoint.tensors)
        others = restore_method_state(self.inner, self.config.train, others)
        trained = together(others, self.masters.joined)
        restore_state(self.masters.trained, self.plain_optimizers, trained)
        self.masters.write_back()
        self.step, self.rows = checkpoint.step, [dict(row) for row in checkpoint.history]
        self.seconds, self.before = dict(checkpoint.seconds), Measurement.from_dict(checkpoint.before)
        self.pending = [torch.tensor(loss, device=self.device) for loss in checkpoint.pending]

    def _stopped(self, folder: RunFolder | None) -> FinetuneRun:
        """The run before its last step, with a checkpoint if there is a folder."""
        if folder is not None:
            self._checkpoint(folder)
        self.result = trained_model(self.lm, self.own_names, self.inner, self.config.train)
        if self.last is None or self.rows[-1]["step"] != self.step or self.result.model is not self.inner:
            self.last = self._ask()
        return self._run("interrupted", folder)

    def _run(self, status: str, folder: RunFolder | None) -> FinetuneRun:
        assert self.before is not None
        assert self.last is not None
        return FinetuneRun(
            config=self.config,
            facts=self.facts,
            step=self.step,
            status=status,
            history=history_table(self.rows),
            before=self.before,
            after=self.last,
            seconds={name: round(value, 2) for name, value in self.seconds.items()},
            device=self.device.type,
            path=None if folder is None else folder.path,
            in_memory=self.result,
            table=self.recorder.table(),
            movement=self.movement,
        )
