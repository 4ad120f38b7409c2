"""Fine-tuning, saved updates and inspections of tiny language models on a GPU against the CPU."""

import copy
import os
import signal
from typing import Any

import numpy as np
import on_a_gpu
import pandas as pd
import pytest
import torch
from on_a_gpu import DEVICE, assert_close, more, waits

from ocr_interp.errors import ConfigError
from ocr_interp.llm import (
    FinetuneConfig,
    LanguageModel,
    LLMRunConfig,
    finetune,
    inspect_models,
    load_finetuned,
    load_update,
    make_facts,
    measure,
    methods,
    save_update,
    tiny_model,
    wrap,
)
from ocr_interp.llm.encoding import encode, training_batch
from ocr_interp.llm.models.forward import answer_logits, logits_of
from ocr_interp.optim import optimizers

pytestmark = on_a_gpu.MARKS

FITTING = {"phm_adapter": {"phm_dim": 4}}
"""Options with which a method fits a width of 32, where its own do not."""
each_method = pytest.mark.parametrize("method", list(methods.names))


@pytest.fixture(scope="module")
def facts():
    from small_facts import SMALL

    return make_facts(SMALL)


@pytest.fixture(scope="module")
def made(facts):
    """Builds a fresh tiny model of a family."""
    from small_facts import tokenizer_of

    tokenizer = tokenizer_of(facts)
    return lambda family="llama": tiny_model(family, tokenizer)


def config(device=DEVICE, **values):
    from small_facts import SMALL

    given: dict[str, Any] = {
        "model": "tiny",
        "lr": 1e-2,
        "steps": 8,
        "log_every": 4,
        "batch_size": 6,
        "checkpoint_every": 4,
    }
    given["method_options"] = FITTING.get(values.get("method", "full"), {})
    given |= {"checkpoint_every": 4, "device": device, **values}
    return LLMRunConfig(SMALL, FinetuneConfig(**given))


def weights(run):
    return {name: p.detach().cpu() for name, p in run.lm.model.named_parameters()}


def losses(run):
    """The columns that are no ranks: near ties a rank may differ by rounding."""
    kept = [c for c in run.history if c == "train_loss" or c.endswith("logprob")]
    assert "train_loss" in kept
    assert len(kept) > 1
    return run.history[kept]


@each_method
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_finetuning_gives_the_losses_of_the_cpu(family, method, made):
    ours, theirs = (finetune(config(where, method=method), lm=made(family)) for where in (DEVICE, "cpu"))
    assert ours.device == DEVICE
    assert_close(losses(ours), losses(theirs), rtol=0.0, atol=1e-3)
    np.testing.assert_allclose(ours.before.logprob, theirs.before.logprob, atol=1e-4)
    assert theirs.history["train_loss"].iloc[-1] != theirs.history["train_loss"].iloc[1]


@pytest.mark.parametrize("optimizer", ["sgd", "muon", "signsgd"])
def test_every_optimizer_trains_and_muon_in_float32_as_on_the_cpu(optimizer, made):
    """Of signs the gradients near 0 differ by rounding; what is learned hardly does."""
    assert optimizer in optimizers
    given: dict[str, Any] = {"optimizer": optimizer, "lr": 1e-3}
    given |= {"optimizer_options": {"muon_precision": "float32"}} if optimizer == "muon" else {}
    ours, theirs = (finetune(config(where, **given), lm=made()) for where in (DEVICE, "cpu"))
    assert_close(losses(ours), losses(theirs), rtol=0.0, atol=2e-2)


def test_bfloat16_trains(made):
    lm = made()
    run = finetune(config(dtype="bfloat16", steps=40, log_every=20), lm=lm)
    trained = run.history["train_loss"].to_numpy()
    assert trained[2] < trained[1]


@each_method
def test_steps_of_finetuning_wait_for_nothing(method, made):
    """Waits inside other packages are not counted; sending a batch from ordinary memory is a wait."""

    def counted(steps):
        with waits() as found:
            finetune(config(method=method, steps=steps, log_every=steps, checkpoint_every=0), lm=made())
        return found

    counted(4)
    few, many = counted(4), counted(16)
    assert not more(many, few)


@each_method
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_interrupted_run_goes_on_to_the_bit(method, optimizer, made, tmp_path):
    recipe = config(method=method, optimizer=optimizer)
    try:
        whole = finetune(recipe, lm=made())
    except ConfigError as error:
        if optimizer == "muon" and "matri" in str(error):
            pytest.skip(f"{method} has no matrix for Muon")
        raise

    def stop(row):
        if row["step"] == 4:
            os.kill(os.getpid(), signal.SIGINT)

    first = finetune(recipe, tmp_path / "run", lm=made(), on_log=stop)
    assert (first.status, first.step) == ("interrupted", 4)
    second = finetune(recipe, tmp_path / "run", lm=made())
    assert second.status == "finished"
    pd.testing.assert_frame_equal(whole.history, second.history, check_exact=True)
    for name, weight in weights(whole).items():
        assert torch.equal(weight, weights(second)[name]), name


@each_method
def test_a_kept_model_gives_the_same_answers_on_both_devices(method, made, facts, tmp_path):
    run = finetune(config(method=method), tmp_path / "run", lm=made(), save_model=True)
    merged = not methods[method].why_not_merged
    for where in (DEVICE, "cpu"):
        lm = load_finetuned(tmp_path / "run", None if merged else made())
        again = measure(lm, facts, device=where)
        np.testing.assert_allclose(again.logprob, run.after.logprob, atol=1e-4)
        assert {p.device.type for p in lm.model.parameters()} == {where}


@each_method
def test_an_update_put_on_a_model_on_the_gpu_is_saved_and_loaded(method, made, facts, tmp_path):
    lm = made()
    model = copy.deepcopy(lm.model).to(DEVICE)
    options = FITTING.get(method, {})
    wrapped = wrap(model, method, **options)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (p for p in wrapped.parameters() if p.requires_grad):
            assert parameter.device.type == DEVICE
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator).to(DEVICE))
    save_update(wrapped, tmp_path / "update")
    answers = []
    for where in (DEVICE, "cpu"):
        loaded = load_update(copy.deepcopy(lm.model).to(where), tmp_path / "update").eval()
        batch = training_batch(encode(lm.tokenizer, facts.training_examples), lm.pad, where)
        with torch.no_grad():
            answers.append(answer_logits(loaded, batch))
            plain = answer_logits(copy.deepcopy(lm.model).to(where), batch)
    assert_close(answers[0], answers[1], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(answers[1], plain, atol=1e-3)


def test_measuring_gives_the_answers_of_the_cpu(made, facts):
    for scoring in ("first_token", "whole_answer"):
        ours, theirs = (measure(made(), facts, device=where, scoring=scoring) for where in (DEVICE, "cpu"))
        np.testing.assert_allclose(ours.logprob, theirs.logprob, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_an_inspection_gives_the_numbers_of_the_cpu(family, made, facts):
    before = made(family)
    after = finetune(config("cpu", lr=1e-2, steps=20, log_every=20), lm=made(family)).lm
    asked: dict[str, Any] = {
        "n_heads": 2,
        "cuts": ("parts", "heads", "directions", "mean", "truncation"),
        "top_k": (1, 2),
    }

    def inspected(where, after):
        return inspect_models(before, after, facts, device=where, layers=True, **asked)

    theirs = inspected("cpu", after)
    lying_there = LanguageModel(after.name, copy.deepcopy(after.model).to(DEVICE), after.tokenizer)
    for ours in (inspected(DEVICE, after), inspected(DEVICE, lying_there)):
        assert ours.heads == theirs.heads
        assert ours.left_out == theirs.left_out
        assert ours.uncut == theirs.uncut
        np.testing.assert_allclose(ours.update.relative, theirs.update.relative, rtol=1e-4)
        assert [(cut.kind, cut.what) for cut in ours.cuts] == [(cut.kind, cut.what) for cut in theirs.cuts]
        for one, other in zip(ours.cuts, theirs.cuts, strict=True):  # near ties a rank may differ
            np.testing.assert_allclose(list(one.ranks.values()), list(other.ranks.values()), atol=0.3)
        assert type(ours.circuits) is type(theirs.circuits)
        assert type(ours.layers) is type(theirs.layers)


def test_the_answers_of_a_model_do_not_depend_on_the_device(made, facts):
    answers = []
    for where in (DEVICE, "cpu"):
        lm = made()
        lm.model.to(where)
        batch = training_batch(encode(lm.tokenizer, facts.training_examples), lm.pad, where)
        with torch.no_grad():
            answers.append(logits_of(lm)(batch))
    assert_close(*answers, rtol=1e-3, atol=1e-4)
