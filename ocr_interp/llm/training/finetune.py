"""finetune(config) -> FinetuneRun: fine-tunes a language model on facts and measures it; resumable."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ocr_interp.errors import ConfigError
from ocr_interp.llm.adapters import methods
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.models.loading import LanguageModel, require_language_model
from ocr_interp.llm.models.unchanged import unchanged_if_refused
from ocr_interp.llm.packages import require_packages
from ocr_interp.llm.training.base_source import BaseSource
from ocr_interp.llm.training.configuration import LLMRunConfig
from ocr_interp.llm.training.files.inputs import RunInputs
from ocr_interp.llm.training.files.store import ADAPTER, MODEL, RunFolder
from ocr_interp.llm.training.loop import Finetuning, OnLog
from ocr_interp.llm.training.processes import make_accelerator, state_for
from ocr_interp.llm.training.run import FinetuneRun, stored_run
from ocr_interp.llm.training.update import keep_model
from ocr_interp.running.interruption import asked_to_stop


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
        run_dir: directory of the run; a run in it with this configuration is resumed, wherever its file of
            facts and its model lie today. None writes no files.
        lm: a model in memory instead of config.train.model; it is trained in place, in the precision of
            config.train.dtype. Where the run is refused before its first step, it is as it was.
        save_model: whether to write the trained model, for `load_finetuned`: with the update merged to
            run_dir/model, an ordinary model folder; an update that cannot be merged to run_dir/adapter,
            without the model.
        on_log: called with every row of the history.
        on_start: called with the model and the facts before the model is trained.

    Returns: the run; a finished one is only read, and its model only compared, if it is still there. Ctrl-C
        or SIGTERM ends it at the next step, with a checkpoint if there is a run_dir; a second one stops at
        once.

    Raises:
        ConfigError: a configuration that is not allowed, or too little memory; raised before any weight is
            loaded.
        ModelError: a model that cannot be loaded, or an lm that is none or lacks tokens of its tokenizer.
        RunError, RunBusyError: run_dir holds something else, is damaged, in use, or cannot be written; or its
            facts or model were changed since the run began.
        TrainingDivergedError: a loss that is NaN or infinite.
    """
    if save_model and run_dir is None:
        raise ConfigError("save_model needs a run_dir to save into")
    if lm is not None:
        require_language_model("lm", lm)
    require_packages("transformers", "accelerate", "psutil", *methods[config.train.method].packages)
    with state_for(config.train.device):
        accelerator = make_accelerator(config.train)
        if run_dir is None:
            with _unchanged_if_refused(lm):
                training = Finetuning(
                    config, make_facts(config.facts), BaseSource(config.train, lm), accelerator, on_start
                )
            with asked_to_stop() as asked, _own_precision(training.device):
                return training.run(None, on_log, asked)
        folder = RunFolder(Path(run_dir))
        if not folder.config_file.exists():
            make_facts(config.facts)  # facts that cannot be made leave no directory behind
        # The main process locks the directory for all; the others wait for it.
        with folder.opened(config) if accelerator.is_main_process else contextlib.nullcontext():
            accelerator.wait_for_everyone()
            return _into_folder(config, folder, lm, accelerator, save_model, on_log, on_start)


def _into_folder(
    config: LLMRunConfig,
    folder: RunFolder,
    lm: LanguageModel | None,
    accelerator: Any,
    save_model: bool,
    on_log: OnLog | None,
    on_start: Callable[[LanguageModel, FactSet], None] | None,
) -> FinetuneRun:
    """Trains in a directory that is locked, or reads the run in it if there is nothing left to do."""
    begun = folder.checkpoint_file.exists() or folder.result_file.exists()
    inputs = folder.read_inputs() if begun else None
    facts = make_facts(config.facts) if inputs is None else inputs.facts_now(config.facts, folder.path)
    base = BaseSource(config.train, lm)
    if folder.is_complete() or (folder.result_file.exists() and not save_model):
        if inputs is not None:
            base.require_of_finished(inputs, folder.path)
        return stored_run(folder, facts)
    if inputs is not None:
        base.require_files(inputs, folder.path)
    base.digested = not (begun and inputs is None)
    checkpoint = folder.read_checkpoint()
    with _unchanged_if_refused(lm):
        # Where its file and model lie today is no part of a run.
        training = Finetuning(as_begun(config, folder.read_config()), facts, base, accelerator, on_start)
        if inputs is not None:
            base.require_loaded(inputs, folder.path)
        elif not begun and training.is_main:
            assert base.digests is not None
            folder.write_inputs(RunInputs(facts, base.digests))
        accelerator.wait_for_everyone()
        if checkpoint is not None:
            training.restore(checkpoint)
    with asked_to_stop() as asked, _own_precision(training.device):
        run = training.run(folder, on_log, asked, save_model)
        accelerator.wait_for_everyone()  # all have read the checkpoint, which the main process deletes
        if run.status == "finished" and training.is_main:
            keeps = None
            if save_model:
                keeps = MODEL if run.lm.attached is None else ADAPTER
            folder.write_result(training.rows, run.to_dict(), keeps, run.logits)
            if save_model:
                keep_model(run.lm, folder)
            folder.kept()
    return run


def _unchanged_if_refused(lm: LanguageModel | None) -> contextlib.AbstractContextManager[None]:
    """Keeps a model in memory as it was where a run cannot begin or go on."""
    return unchanged_if_refused(None if lm is None else lm.model)


def _own_precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Keeps a surrounding autocast out: the recipe alone says the precision."""
    return torch.autocast(device.type, enabled=False)


def as_begun(config: LLMRunConfig, begun: LLMRunConfig) -> LLMRunConfig:
    """A configuration with the paths that a run was begun with: where they lie today is no part of it."""
    own = begun.facts
    facts = replace(config.facts, file=own.file, implications_file=own.implications_file)
    return LLMRunConfig(facts, replace(config.train, model=begun.train.model))
