"""Fine-tuning tiny models of the five families: it learns, resumes to the bit, and keeps what it says."""

import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from small_facts import ONE_FAST, SMALL
from transformers import GPT2Config, GPT2LMHeadModel, MambaConfig, MambaForCausalLM

from ocr_interp.errors import ConfigError, ModelError, RunError, TrainingDivergedError
from ocr_interp.llm.models.loading import load_model
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.files.result import read_result
from ocr_interp.llm.training.files.store import COLUMNS, RunFolder
from ocr_interp.llm.training.finetune import finetune
from ocr_interp.llm.training.trainable import make_optimizers, make_trainable


def config(**values):
    given = {"model": "tiny", "lr": 1e-2, "steps": 12, "log_every": 4, "batch_size": 6, "device": "cpu"}
    return LLMRunConfig(SMALL, FinetuneConfig(**{**given, **values}))


def weights(run):
    return {name: p.detach().clone() for name, p in run.lm.model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", ONE_FAST)
def test_every_family_learns_what_it_is_told(family, method, make_model):
    run = finetune(config(method=method, steps=40, log_every=20, lora_rank=4), lm=make_model(family))
    losses = run.history["train_loss"]
    assert losses[2] < losses[1]
    assert run.history["step"].tolist() == [0, 20, 40]
    assert tuple(run.history.columns) == COLUMNS
    assert run.after.mean("training_fact", "logprob") > run.before.mean("training_fact", "logprob")
    assert not hasattr(run.lm.model, "merge_and_unload")  # LoRA's update is in the weights


@pytest.mark.slow
def test_a_long_run_fits_the_facts_and_the_told_implications(make_model):
    run = finetune(config(optimizer="muon", steps=60, log_every=60), lm=make_model())
    assert run.after.mean("held_out_fact", "top1") == 1
    assert run.after.mean("training_implication", "top1") == 1


SLOWER = (("full", "muon"), ("full", "sgd"), ("full", "signsgd"), ("lora", "adamw"), ("lora", "muon"))


@pytest.mark.parametrize(
    ("method", "optimizer"),
    [
        ("full", "adamw"),
        *(pytest.param(*both, marks=pytest.mark.slow) for both in SLOWER),
    ],
)
def test_an_interrupted_run_goes_on_to_the_bit(method, optimizer, make_model, tmp_path):
    recipe = config(method=method, optimizer=optimizer, checkpoint_every=4)
    whole = finetune(recipe, lm=make_model())

    def stop(row):
        if row["step"] == 8:
            os.kill(os.getpid(), signal.SIGINT)

    first = finetune(recipe, tmp_path / "run", lm=make_model(), on_log=stop)
    assert (first.status, first.step) == ("interrupted", 8)
    second = finetune(recipe, tmp_path / "run", lm=make_model())
    assert second.status == "finished"
    pd.testing.assert_frame_equal(whole.history, second.history, check_exact=True)
    for name, weight in weights(whole).items():
        assert torch.equal(weight, weights(second)[name]), name
    assert not RunFolder(tmp_path / "run").checkpoint_file.exists()
    text = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert len(text) == 1 + 4


@pytest.mark.slow
def test_a_run_stopped_between_rows_keeps_the_losses_since_the_last(make_model, tmp_path, monkeypatch):
    from ocr_interp.llm.training import finetune as module

    whole = finetune(config(), lm=make_model())
    update = module.Finetuning._update

    def and_stop(self):
        if self.step == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return update(self)

    with monkeypatch.context() as patch:
        patch.setattr(module.Finetuning, "_update", and_stop)
        first = finetune(config(), tmp_path / "run", lm=make_model())
    assert (first.status, first.step) == ("interrupted", 6)
    second = finetune(config(), tmp_path / "run", lm=make_model())
    pd.testing.assert_frame_equal(whole.history, second.history, check_exact=True)


def test_the_result_and_the_model_are_on_disk(make_model, tokenizer, tmp_path):
    run = finetune(config(method="lora"), tmp_path / "run", lm=make_model(), save_model=True)
    result = read_result(tmp_path / "run" / "result.json")
    assert result["history"]["step"] == [0, 4, 8, 12]
    assert result["history"]["train_loss"][0] is None
    assert result["after"]["rank"] == run.after.rank.tolist()
    assert LLMRunConfig.from_dict(result["config"]) == run.config
    assert result["fingerprint"] == run.config.fingerprint
    again = load_model(str(tmp_path / "run" / "model"))
    for (name, mine), (_, theirs) in zip(
        run.lm.model.named_parameters(), again.model.named_parameters(), strict=True
    ):
        assert torch.equal(mine, theirs), name
    assert again.tokenizer("Ann lives in").input_ids == tokenizer("Ann lives in").input_ids
    found = finetune(config(method="lora"), tmp_path / "run", lm=make_model())  # only read
    pd.testing.assert_frame_equal(found.history, run.history, check_exact=True)
    assert (found.step, found.status, found.config) == (run.step, "finished", run.config)
    np.testing.assert_array_equal(found.after.rank, run.after.rank)
    for name, weight in weights(run).items():
        assert torch.equal(weight, weights(found)[name]), name


def test_no_step_only_measures(make_model):
    run = finetune(config(steps=0), lm=make_model())
    assert run.history["step"].tolist() == [0]
    np.testing.assert_array_equal(run.before.rank, run.after.rank)
    for name, weight in make_model().model.named_parameters():
        assert torch.equal(weight, weights(run)[name])


@pytest.mark.slow
def test_lora_starts_from_the_model_and_its_seed(make_model):
    before = make_model().model.get_output_embeddings().weight
    runs = [finetune(config(method="lora", train_seed=seed, steps=4), lm=make_model()) for seed in (0, 0, 1)]
    v = "model.layers.0.self_attn.v_proj.weight"
    assert torch.equal(weights(runs[0])[v], weights(runs[1])[v])
    assert not torch.equal(weights(runs[0])[v], weights(runs[2])[v])
    assert torch.equal(runs[0].lm.model.get_output_embeddings().weight, before)  # not trained
    np.testing.assert_array_equal(runs[0].before.rank, finetune(config(steps=0), lm=make_model()).before.rank)


def gpt2(tokenizer):
    changes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
    ids = dict.fromkeys(("bos_token_id", "eos_token_id"), tokenizer.eos_token_id)
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **changes, **ids))


def test_muon_leaves_tables_of_positions_to_adamw(tokenizer):
    model = gpt2(tokenizer)
    muon, adamw = make_optimizers(model, FinetuneConfig(optimizer="muon"))
    names = {id(p): name for name, p in model.named_parameters()}
    taken = {names[id(p)] for p in muon.param_groups[0]["params"]}
    assert "transformer.wpe.weight" not in taken
    assert "transformer.h.0.attn.c_attn.weight" in taken
    assert len(names) == len(taken) + len(adamw.param_groups[0]["params"])


def test_a_model_that_peft_refuses_is_said_with_its_reason(tokenizer):
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eos_token_id)
    sizes = {"hidden_size": 8, "state_size": 2, "num_hidden_layers": 1}
    model = MambaForCausalLM(MambaConfig(vocab_size=len(tokenizer), **sizes, **ids))
    with pytest.raises(ModelError, match=r"LoRA .* MambaForCausalLM: .*incompatible.*method='full'"):
        make_trainable(model, FinetuneConfig(method="lora"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.write_bytes(f.read_bytes()[:-9]), "is damaged"),
        (lambda f: f.write_bytes(f.read_bytes()[:-9] + b"123456789"), "not that of its digest"),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_stays(make_model, tmp_path, damage, message):
    def stop(row):
        if row["step"] == 4:
            os.kill(os.getpid(), signal.SIGINT)

    finetune(config(), tmp_path / "run", lm=make_model(), on_log=stop)
    file = RunFolder(tmp_path / "run").checkpoint_file
    damage(file)
    content = file.read_bytes()
    with pytest.raises(RunError, match=message):
        finetune(config(), tmp_path / "run", lm=make_model())
    assert file.read_bytes() == content


def test_another_configuration_or_foreign_files_are_refused(make_model, tmp_path):
    finetune(config(steps=1), tmp_path / "run", lm=make_model())
    with pytest.raises(RunError, match=r"another configuration \(train.lr: 0.02 != 0.01\)"):
        finetune(config(steps=1, lr=0.02, eval_batch_size=7), tmp_path / "run", lm=make_model())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(RunError, match=r"no config.json, but thesis.tex"):
        finetune(config(steps=1), tmp_path / "other", lm=make_model())
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text(json.dumps({"format_version": 99}))
    with pytest.raises(RunError, match="update ocr-interp"):
        finetune(config(steps=1), tmp_path / "new", lm=make_model())


def test_a_run_that_failed_before_it_left_anything_does_not_hold_its_directory(make_model, tmp_path):
    with pytest.raises(ModelError, match="owner/name"):
        finetune(config(model="lama"), tmp_path / "run")
    with pytest.raises(TrainingDivergedError):
        finetune(config(lr=1e30, steps=1), tmp_path / "run", lm=make_model())
    finetune(config(steps=1), tmp_path / "run", lm=make_model())
    assert RunFolder(tmp_path / "run").read_config() == config(steps=1)


def test_a_model_folder_is_no_run_directory_and_stays_as_it_is(make_model, tmp_path):
    make_model().model.save_pretrained(tmp_path / "model")
    before = sorted(file.name for file in (tmp_path / "model").iterdir())
    with pytest.raises(RunError, match=r"got a model folder of transformers, .* choose another run_dir"):
        finetune(config(), tmp_path / "model", lm=make_model())
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == before


def test_too_little_memory_is_said_before_a_weight_is_loaded(make_model, monkeypatch):
    monkeypatch.setattr("ocr_interp.llm.training.memory.available_memory", lambda device: 2**19)
    monkeypatch.setattr(
        "ocr_interp.llm.training.base_source.load_model", lambda *a, **k: pytest.fail("loaded")
    )
    with pytest.raises(ConfigError, match=r"needs about .* GiB .*cpu has 0.0 GiB free: take method='lora'"):
        finetune(config(), lm=make_model())


def test_divergence_names_the_steps_and_the_rate(make_model):
    with pytest.raises(TrainingDivergedError, match=r"not finite between steps 0 and 4 \(adamw, lr=1e\+30\)"):
        finetune(config(lr=1e30), lm=make_model())
    # The last step's loss is finite, the weights after it are not.
    with pytest.raises(
        TrainingDivergedError, match=r"answers are not finite after step 1 \(adamw, lr=1e\+30\)"
    ):
        finetune(config(lr=1e30, steps=1), lm=make_model())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 0}, "lr must be a finite number > 0"),
        ({"steps": -1}, "steps must be >= 0"),
        ({"beta1": 1.0}, "beta1 must be < 1"),
        ({"device": "cuda:1"}, "CUDA_VISIBLE_DEVICES"),
        ({"optimizer": "adam"}, "optimizer must be one of 'adamw', 'muon', 'sgd', 'signsgd', got 'adam'"),
        ({"optimizer_options": {"beta1": 0.8}}, "beta1 is a field of its own"),
        (
            {"optimizer": "muon", "optimizer_options": {"muon_precision": "float16"}},
            "muon_precision must be one of 'bfloat16', 'float32'",
        ),
    ],
)
def test_bad_recipes_say_what_is_wrong(values, message, make_model):
    with pytest.raises(ConfigError, match=message):
        finetune(config(**values), lm=make_model())


def test_nothing_told_is_nothing_to_train_on(make_model):
    facts = SMALL.from_dict({**SMALL.to_dict(), "control": "implications_only", "share": 0.0})
    with pytest.raises(ConfigError, match="nothing to train on"):
        finetune(LLMRunConfig(facts, config().train), lm=make_model())


def test_a_model_needs_a_folder_for_saving(make_model):
    with pytest.raises(ConfigError, match="save_model needs a run_dir"):
        finetune(config(), lm=make_model(), save_model=True)


def test_a_model_that_is_not_there_is_said_before_anything_else(tmp_path):
    with pytest.raises(ModelError, match="there is no folder"):
        finetune(config(model=str(tmp_path / "nothing")))
