"""Every method of fine-tuning keeps what the base class promises; two of them are written for this test."""

import json
import os
import signal
from contextlib import ExitStack

import pandas as pd
import pytest
import torch
from small_facts import SMALL
from toy_adapters import Gate, NormGains

from ocr_interp.configuration import version_1
from ocr_interp.errors import ConfigError, ModelError, RunError, UnknownNameError
from ocr_interp.llm import (
    Adapter,
    FinetuneConfig,
    LLMRunConfig,
    estimate_memory,
    finetune,
    load_finetuned,
    methods,
    read_result,
)
from ocr_interp.llm.adapters.base import Attached
from ocr_interp.llm.encoding import encode, training_batch
from ocr_interp.llm.models.forward import answer_logits, logits_of
from ocr_interp.llm.models.loading import LanguageModel
from ocr_interp.llm.training.files.store import COLUMNS
from ocr_interp.llm.training.trainable import make_trainable, trained_parameters
from ocr_interp.llm.training.update import trained_model

TOYS = {"norm_gains": NormGains(), "gate": Gate()}
SLOWER = ("compacter_plus", "phm_adapter", "lokr")
ALL = [pytest.param(n, marks=[pytest.mark.slow] if n in SLOWER else []) for n in (*methods.names, *TOYS)]
UPDATE = ["adapter.safetensors", "adapter_config.json"]


@pytest.fixture(autouse=True)
def toys():
    """The two methods of this test, as if their files stood in the folder."""
    with ExitStack() as stack:
        for name, adapter in TOYS.items():
            stack.enter_context(methods.registered(name, adapter))
        yield


FITTING = {"phm_adapter": {"phm_dim": 4}}
"""Options with which a method fits a width of 32, where its own do not."""


def recipe(**values):
    given = {"model": "tiny", "lr": 1e-2, "steps": 12, "log_every": 4, "batch_size": 6, "device": "cpu"}
    options = FITTING.get(values.get("method", "full"), {})
    return FinetuneConfig(**{**given, "method_options": options, **values})


def batch_of(facts, lm):
    return training_batch(encode(lm.tokenizer, facts.training_examples), lm.pad, "cpu")


@pytest.mark.parametrize("method", ALL)
def test_the_start_is_the_model_and_follows_from_the_seed(method, make_model, facts):
    lm = make_model()
    batch = batch_of(facts, lm)
    with torch.no_grad():
        before = answer_logits(lm.model, batch)
        model = make_trainable(lm.model, recipe(method=method))
        after = answer_logits(model, batch)
    allowed = methods[method].start_tolerance * float(before.abs().max())
    assert float((after - before).abs().max()) <= allowed
    torch.rand(3)  # whatever was drawn before
    again = trained_parameters(make_trainable(make_model().model, recipe(method=method)))
    for name, parameter in trained_parameters(model).items():
        assert torch.equal(parameter, again[name]), name


@pytest.mark.parametrize("method", ALL)
def test_what_is_trained_gets_gradients_and_is_what_memory_was_foreseen_for(method, make_model, facts):
    lm = make_model()
    n_own = sum(p.numel() for p in lm.model.parameters())
    estimate = estimate_memory(lm.model.config, recipe(method=method), 64)
    model = make_trainable(lm.model, recipe(method=method))
    batch = batch_of(facts, lm)
    torch.nn.functional.cross_entropy(answer_logits(model, batch), batch.target).backward()
    trained = trained_parameters(model)
    assert trained
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in trained), name
    assert estimate.trained == sum(p.numel() for p in trained.values())
    assert estimate.added == sum(p.numel() for p in model.parameters()) - n_own
    assert estimate.weights == 4 * (n_own + estimate.added)
    assert estimate.gradients == 4 * estimate.trained


@pytest.mark.parametrize("method", ALL)
def test_what_is_left_answers_as_what_was_trained(method, make_model, facts):
    lm, adapter = make_model(), methods[method]
    names = frozenset(name for name, _ in lm.model.named_parameters())
    batch = batch_of(facts, lm)
    model = make_trainable(lm.model, recipe(method=method))
    update = Attached(adapter, recipe(method=method))
    attached = logits_of(LanguageModel(lm.name, model, lm.tokenizer, update))
    start = attached(batch).detach()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        trained = attached(batch)
        left = trained_model(lm, names, model, recipe(method=method))
        torch.testing.assert_close(logits_of(left)(batch), trained, atol=1e-5, rtol=1e-5)
    assert (trained - start).abs().max() > 1e-4  # far more than what merging may change
    assert (left.attached is None) == (adapter.why_not_merged is None)


@pytest.mark.slow
@pytest.mark.parametrize("method", ALL)
def test_a_stopped_run_goes_on_to_the_bit_and_its_model_comes_back(
    method, make_model, facts, tmp_path, monkeypatch
):
    from ocr_interp.llm.training import finetune as module

    config = LLMRunConfig(SMALL, recipe(method=method))
    whole = finetune(config, lm=make_model())
    update = module.Finetuning._update

    def and_stop(self):
        if self.step == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return update(self)

    with monkeypatch.context() as patch:
        patch.setattr(module.Finetuning, "_update", and_stop)
        first = finetune(config, tmp_path / "run", lm=make_model())
    assert (first.status, first.step) == ("interrupted", 6)
    second = finetune(config, tmp_path / "run", lm=make_model(), save_model=True)
    pd.testing.assert_frame_equal(whole.history, second.history, check_exact=True)
    theirs = dict(second.lm.model.named_parameters())
    for name, parameter in whole.lm.model.named_parameters():
        assert torch.equal(parameter, theirs[name]), name
    assert tuple(whole.history.columns) == (*COLUMNS, *whole.columns)
    loaded = load_finetuned(tmp_path / "run", base=make_model())
    batch = batch_of(facts, loaded)
    with torch.no_grad():
        assert torch.equal(logits_of(loaded)(batch), logits_of(second.lm)(batch))


@pytest.mark.slow
def test_a_new_method_goes_through_the_command_line(make_model, tmp_path, command):
    lm = make_model()
    lm.model.save_pretrained(tmp_path / "base")
    lm.tokenizer.save_pretrained(tmp_path / "base")
    code, out, err = command(
        "llm", "finetune", "run", "--model", "base", "--method", "gate", "--method-options", "penalty", "0.5",
        "--n-pairs", "3", "--n-names", "5", "--steps", "6", "--log-every", "3", "--lr", "0.01",
        "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    assert "'gate' is not in the model's weights (tanh is not linear): it is kept beside them" in out
    result = read_result(tmp_path / "run" / "result.json")
    assert result["config"]["train"]["method_options"] == {"penalty": 0.5}
    assert result["why_not_merged"] == "tanh is not linear"
    assert list(result["columns"]) == ["gate/size", "gate/tokens"]
    assert result["history"]["gate/size"][0] == 0 < result["history"]["gate/size"][-1]
    assert result["history"]["gate/tokens"][0] == 0 < result["history"]["gate/tokens"][1]
    assert sorted(path.name for path in (tmp_path / "run" / "adapter").iterdir()) == UPDATE
    assert not (tmp_path / "run" / "model").exists()
    code, out, err = command("llm", "evaluate", "run", "--device", "cpu")
    assert code == 0, err
    row = next(line for line in out.splitlines() if line.startswith("held out implication"))
    assert f"{result['history']['held_out_implication/rank'][-1]:8.2f}" in row
    code, _, err = command("llm", "inspect", "run", "--device", "cpu")
    assert code == 2
    assert "weights, which method 'gate' cannot give: tanh is not linear" in err
    code, _, err = command("llm", "finetune", "run2", "--method", "gaet")
    assert code == 2
    assert "got 'gaet': did you mean 'gate'?" in err


@pytest.mark.slow
def test_a_penalty_is_part_of_the_loss_that_is_followed_not_of_the_one_that_is_shown(make_model):
    runs = [
        finetune(LLMRunConfig(SMALL, recipe(method="gate", method_options={"penalty": p})), lm=make_model())
        for p in (0.0, 10.0)
    ]
    sizes = [run.history["gate/size"].iloc[-1] for run in runs]
    assert sizes[1] < 0.7 * sizes[0]
    assert runs[0].history["train_loss"][1] == pytest.approx(runs[1].history["train_loss"][1], rel=0.05)


def test_options_are_one_configuration_however_they_are_given():
    given = {"rows": 2, "penalty": 1}
    config = LLMRunConfig(train=recipe(method="gate", method_options=given))
    assert config.train.method_options == (("penalty", 1.0), ("rows", 2))
    assert recipe(method="gate", method_options=tuple(given.items())) == config.train
    assert recipe(method="gate", method_options={**given, "kind": "tanh"}) == config.train
    assert LLMRunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    other = LLMRunConfig(train=recipe(method="gate"))
    assert other.fingerprint != config.fingerprint
    assert config.differences(other) == ["train.method_options: {'penalty': 1.0, 'rows': 2} != {}"]


def test_fingerprints_are_those_of_before_there_were_options():
    def of_version_1(config):
        return version_1.llm_fingerprint(json.loads(json.dumps(config.to_dict())))

    assert of_version_1(LLMRunConfig()) == "8c2457e407165f78"
    assert of_version_1(LLMRunConfig(train=FinetuneConfig(method="lora"))) == "a51049d24a12c0f8"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"penalti": 1},
            UnknownNameError,
            "unknown method 'gate' option 'penalti': did you mean",
        ),
        (
            {"penalty": "big"},
            ConfigError,
            "of method 'gate' must be a number such as 0.0, got 'big'",
        ),
        ({"rows": 1.5}, ConfigError, "must be a whole number such as 1, got 1.5"),
        ({"rows": True}, ConfigError, "must be a whole number such as 1, got True"),
        ({"inverted": 1}, ConfigError, "must be True or False such as False, got 1"),
        ((("rows", 1), ("rows", 2)), ConfigError, "must name every option once, got rows, rows"),
    ],
)
def test_bad_options_say_what_is_wrong(options, error, message):
    with pytest.raises(error, match=message):
        recipe(method="gate", method_options=options)


def test_a_broken_adapter_is_said_in_words(make_model):
    class Forgetful(Gate):
        why_not_merged = None

    class Silent(Gate):
        def statistics(self, model, recipe):
            return {"size": 0.0}

    class Failing(Adapter):
        label = "failing"

        def attach(self, model, recipe):
            return model.nothing

    for adapter, message in (
        (
            Forgetful(),
            "'odd' left 2 parameters that are not .* own, such as model.layers.0.mlp.gate",
        ),
        (Silent(), "exactly its columns: odd/tokens is in one of both only"),
        (Failing(), "'odd' cannot be put on LlamaForCausalLM: AttributeError"),
    ):
        with methods.registered("odd", adapter), pytest.raises(ModelError, match=message):
            finetune(LLMRunConfig(SMALL, recipe(method="odd", steps=1)), lm=make_model())


def test_an_update_beside_the_weights_is_not_trained_again_nor_put_into_another_model(make_model, tmp_path):
    config = LLMRunConfig(SMALL, recipe(method="gate", steps=1))
    run = finetune(config, tmp_path / "run", lm=make_model(), save_model=True)
    with pytest.raises(ModelError, match="fine-tuning it again needs a model with the update in its own"):
        finetune(LLMRunConfig(SMALL, recipe(steps=1)), lm=run.lm)
    with pytest.raises(RunError, match=r"is not the one that .* was given \(changed: weights\)"):
        load_finetuned(tmp_path / "run", base=make_model(num_hidden_layers=1))
