"""finetune(config) -> FinetuneRun: fine-tunes a language model on facts and measures it; resumable."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ocr_interp.devices import resolve_device, seeded_generator
from ocr_interp.errors import ConfigError, ModelError, RunError, TrainingDivergedError
from ocr_interp.llm.adapters import methods
from ocr_interp.llm.adapters.base import Attached
from ocr_interp.llm.encoding import Encoded, encode, training_batch
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.measuring.measure import Measurement, Questions
from ocr_interp.llm.models.forward import answer_logits, logits_of
from ocr_interp.llm.models.loading import LanguageModel, load_config, load_model, loading_failures, quiet
from ocr_interp.llm.models.positions import refuse_too_long
from ocr_interp.llm.packages import require_packages
from ocr_interp.llm.training.configuration import LLMRunConfig
from ocr_interp.llm.training.memory import estimate_memory, refuse_too_little
from ocr_interp.llm.training.run import FinetuneRun
from ocr_interp.llm.training.store import Checkpoint, RunFolder
from ocr_interp.llm.training.trainable import (
    make_optimizers,
    make_trainable,
    restore_state,
    training_state,
)
from ocr_interp.llm.training.update import (
    method_state,
    method_statistics,
    restore_method_state,
    save_update,
    trained_model,
)
from ocr_interp.running.interruption import first_ctrl_c
from ocr_interp.storage.tables import history_table

OnLog = Callable[[Mapping[str, float]], None]

_ROUGH_POSITIONS = 64
"""Tokens per sequence in the memory estimate, which is made before the tokenizer is loaded."""


def finetune(
    config: LLMRunConfig,
    run_dir: str | Path | None = None,
    *,
    lm: LanguageModel | None = None,
    save_model: bool = False,
    on_log: OnLog | None = None,
    on_start: Callable[[LanguageModel, FactSet], None] | None = None,
) -> FinetuneRun:
    """Fine-tunes a language model on the told facts, and measures it on all test prompts at logged steps.

    Dropout is off. The loss is on the answers' tokens only. The order of the data depends only on
    (train_seed, step), so a resumed run equals an uninterrupted one.

    Args:
        config: facts and recipe.
        run_dir: directory of the run; a run in it with this configuration is resumed. None writes no files.
        lm: a model in memory instead of config.train.model; it is trained in place.
        save_model: whether to write the trained model, for `load_finetuned`: with the update merged to
            run_dir/model, an ordinary model folder; an update that cannot be merged to run_dir/adapter,
            without the model.
        on_log: called with every row of the history.
        on_start: called with the model and the facts before the model is trained.

    Returns: the run. Ctrl-C ends it at the next step, with a checkpoint if there is a run_dir.

    Raises:
        ConfigError: a configuration that is not allowed, or too little memory; raised before any weight is
            loaded.
        ModelError: a model that cannot be loaded.
        RunError, RunBusyError: run_dir holds something else, is damaged, in use, or finished.
        TrainingDivergedError: a loss that is NaN or infinite.
    """
    if save_model and run_dir is None:
        raise ConfigError("save_model needs a run_dir to save into")
    require_packages("transformers", "accelerate", "psutil", *methods[config.train.method].packages)
    facts, accelerator = make_facts(config.facts), _accelerator(config)
    if run_dir is None:
        return _Finetuning(config, facts, lm, accelerator, on_start).run(None, on_log)
    folder = RunFolder(Path(run_dir))
    # The main process locks the directory for all; the others wait for it.
    with folder.opened(config) if accelerator.is_main_process else contextlib.nullcontext():
        accelerator.wait_for_everyone()
        if folder.result_file.exists():
            raise RunError(
                f"{run_dir} holds a finished run: read result.json, ask it by `ocr-interp llm evaluate`, "
                "or choose another run_dir"
            )
        checkpoint = folder.read_checkpoint()
        training = _Finetuning(config, facts, lm, accelerator, on_start)
        if checkpoint is not None:
            training.restore(checkpoint)
        run = training.run(folder, on_log)
        accelerator.wait_for_everyone()  # all have read the checkpoint, which the main process deletes
        if run.status == "finished" and training.is_main:
            if save_model:
                _save(run, folder)
            folder.finish(training.rows, run.to_dict())
    return run


def _save(run: FinetuneRun, folder: RunFolder) -> None:
    if run.lm.attached is not None:
        save_update(run.lm, folder)
        return
    with quiet():
        run.lm.model.save_pretrained(folder.model_folder)
        run.lm.tokenizer.save_pretrained(folder.model_folder)


def _accelerator(config: LLMRunConfig) -> Any:
    """The Accelerator, which manages device and processes."""
    from accelerate import Accelerator

    device = config.train.device
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise ConfigError(
            f"device must be 'auto', 'cpu', 'cuda' or 'mps', got {device!r}: choose a GPU with "
            "CUDA_VISIBLE_DEVICES, several with `accelerate launch`"
        )
    accelerator = Accelerator(cpu=resolve_device(device).type == "cpu")
    if config.train.batch_size < accelerator.num_processes:
        raise ConfigError(
            f"batch_size must be at least the number of processes ({accelerator.num_processes}), got "
            f"{config.train.batch_size}"
        )
    return accelerator


class _Finetuning:
    """The state of a fine-tuning run: model, optimizers, step, history."""

    def __init__(
        self,
        config: LLMRunConfig,
        facts: FactSet,
        lm: LanguageModel | None,
        accelerator: Any,
        on_start: Callable[[LanguageModel, FactSet], None] | None = None,
    ) -> None:
        self.config, self.facts, recipe, self.accelerator = config, facts, config.train, accelerator
        self.device, self.is_main = self.accelerator.device, self.accelerator.is_main_process
        hf_config = load_config(recipe.model, download=recipe.download) if lm is None else lm.model.config
        with loading_failures(recipe.model):
            estimate = estimate_memory(hf_config, recipe, _ROUGH_POSITIONS)
        refuse_too_little(estimate, self.device)
        if lm is not None and lm.attached is not None:
            raise ModelError(lm.attached.refusal("fine-tuning it again"))
        self.lm = lm or load_model(recipe.model, dtype=recipe.dtype, download=recipe.download)
        self.questions = Questions(
            facts, self.lm.tokenizer, self.lm.pad, recipe.eval_batch_size, config.facts.scoring
        )
        self.told: tuple[Encoded, ...] = encode(self.lm.tokenizer, facts.training_examples)
        self.questions.refuse_too_long(self.lm.model)
        fed = [(len(one.prompt) + len(one.answer) - 1, one.example) for one in self.told]
        refuse_too_long(self.lm.model, fed)
        if recipe.steps and not self.told:
            raise ConfigError(f"there is nothing to train on ({config.facts.control=}): pass steps=0")
        if on_start is not None and self.is_main:
            on_start(self.lm, facts)
        self.adapter = methods[recipe.method]
        self.own_names = frozenset(name for name, _ in self.lm.model.named_parameters())
        self.inner = make_trainable(self.lm.model.to(self.device).eval(), recipe)
        attached = Attached(self.adapter, recipe)
        self.attached = LanguageModel(self.lm.name, self.inner, self.lm.tokenizer, attached)
        optimizers = make_optimizers(self.inner, recipe)
        self.model, *self.optimizers = self.accelerator.prepare(self.inner, *optimizers)
        self.plain_optimizers = optimizers
        self.step = 0
        self.rows: list[dict[str, float]] = []
        self.pending: list[Tensor] = []
        self.before: Measurement | None = None
        self.last: Measurement | None = None
        self.seconds = {"train": 0.0, "measure": 0.0, "cpu": 0.0}

    def run(self, folder: RunFolder | None, on_log: OnLog | None) -> FinetuneRun:
        """Trains to the last step, or until Ctrl-C."""
        recipe = self.config.train
        if not self.rows:
            self._measure(on_log)
        saved = self.step
        with first_ctrl_c() as interrupted:
            for target in (step for step in recipe.logged_steps() if step > self.step):
                self._advance(target, interrupted)
                if self.step < target:
                    break
                self._measure(on_log)
                if self._anyone_asked(interrupted):
                    break
                due = recipe.checkpoint_every and self.step - saved >= recipe.checkpoint_every
                if folder is not None and due and self.step < recipe.steps:
                    self._checkpoint(folder)
                    saved = self.step
        return self._result(folder)

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
            return self.questions.ask(logits_of(self.attached), self.device)
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
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
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

    def _measure(self, on_log: OnLog | None) -> None:
        with self._timed("measure"):
            statistics = method_statistics(self.inner, self.config.train)
            self.last = self._ask()
        self.before = self.before or self.last
        row = {"step": self.step, "train_loss": self._mean_loss(), **self.last.row(), **statistics}
        self.rows.append(row)
        if on_log is not None and self.is_main:
            on_log(dict(row))

    def _checkpoint(self, folder: RunFolder) -> None:
        assert self.before is not None
        if self.is_main:
            tensors = training_state(self.inner, self.plain_optimizers)
            tensors |= method_state(self.inner, self.config.train)
            checkpoint = Checkpoint(
                step=self.step,
                seconds=dict(self.seconds),
                device=self.device.type,
                tensors=tensors,
                history=list(self.rows),
                before=self.before.to_dict(),
                pending=[float(loss) for loss in self.pending],
            )
            folder.write_checkpoint(checkpoint)
        self.accelerator.wait_for_everyone()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Sets parameters, optimizer state, step and history to those of a checkpoint."""
        if checkpoint.device != self.device.type:
            raise RunError(
                f"this run was trained on {checkpoint.device!r} and cannot go on, bit for bit, on "
                f"{self.device.type!r}: go on where there is such a device, or choose another run_dir"
            )
        others = restore_method_state(self.inner, self.config.train, checkpoint.tensors)
        restore_state(self.inner, self.plain_optimizers, others)
        self.step, self.rows = checkpoint.step, [dict(row) for row in checkpoint.history]
        self.seconds, self.before = dict(checkpoint.seconds), Measurement.from_dict(checkpoint.before)
        self.pending = [torch.tensor(loss, device=self.device) for loss in checkpoint.pending]

    def _result(self, folder: RunFolder | None) -> FinetuneRun:
        finished = self.step == self.config.train.steps
        if not finished and folder is not None:
            self._checkpoint(folder)
        if self.last is None or self.rows[-1]["step"] != self.step:
            self.last = self._ask()
        assert self.before is not None
        lm = trained_model(self.lm, self.own_names, self.inner, self.config.train)
        return FinetuneRun(
            config=self.config,
            facts=self.facts,
            step=self.step,
            status="finished" if finished else "interrupted",
            history=history_table(self.rows),
            before=self.before,
            after=self.last,
            seconds={name: round(value, 2) for name, value in self.seconds.items()},
            lm=lm,
            device=self.device.type,
        )
