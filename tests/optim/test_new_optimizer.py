"""A new optimiser, written here, goes through everything that should find it; the package is not touched."""

import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import ConfigError, UnknownNameError
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.models.tiny import tiny_model, tiny_tokenizer
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.finetune import finetune
from ocr_interp.llm.training.memory import estimate_memory
from ocr_interp.optim import optimizers
from ocr_interp.optim.base import OptimizerKind
from ocr_interp.storage.tables import history_table
from ocr_interp.sweeps.stacks import train_stack
from ocr_interp.sweeps.sweep import sweep
from ocr_interp.task import FactRecallTask
from ocr_interp.training.loop import train
from ocr_interp.training.store import load_run

# --- the new optimiser -----------------------------------------------------------------------------------


class Lion(torch.optim.Optimizer):
    """w <- (1 - lr wd) w - lr sign(b m + (1 - b) g), then m <- rho m + (1 - rho) g (Chen et al. 2023)."""

    def __init__(self, params):
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(p.grad.lerp(mean, group["beta1"]).sign(), alpha=group["lr"])
                mean.lerp_(p.grad, 1 - group["rho"])


class LionKind(OptimizerKind):
    def check(self, options):
        if not 0 <= options["rho"] < 1:
            raise ConfigError(f"rho must be at least 0 and < 1, got {options['rho']}")


LION = LionKind("lion", Lion, {"beta1": 0.9, "rho": 0.99}, state_copies=1)

# --- where it goes ---------------------------------------------------------------------------------------

TASK, MODEL = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5), ModelConfig(d_head=4)
SHORT = {"steps": 20, "log_every": 5, "checkpoint_every": 5, "batch_size": 12, "device": "cpu"}


@pytest.fixture(autouse=True)
def registered():
    with optimizers.registered("lion", LION):
        yield


def recipe(rho=0.8, **changes):
    return TrainConfig(
        **{"optimizer": "lion", "lr": 1e-3, "optimizer_options": {"rho": rho}, **SHORT, **changes}
    )


def same(one, other):
    pd.testing.assert_frame_equal(one.history, other.history, check_exact=True)
    mine, theirs = one.weights.tensors(), other.weights.tensors()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def interrupt_at(step):
    def on_log(row):
        if row["step"] == step:
            os.kill(os.getpid(), signal.SIGINT)

    return on_log


def test_it_takes_the_steps_that_it_says():
    """By hand: both means 0, so sign(0.1 g) and then sign(0.9 m + 0.1 g), m = 0.2 g of the first step."""
    from ocr_interp.optim.stepping import RunOptimizers

    weight = torch.tensor([[1.0, -1.0]])
    stepper = RunOptimizers([recipe(lr=0.25, weight_decay=0.4)], [{"W_OV": weight}])
    for step, gradient in enumerate(([[2.0, -1.0]], [[-3.0, -1.0]])):
        weight.grad = torch.tensor(gradient)
        stepper.step(step)
    # 0.9 * 0.4 - 0.3 > 0; (1 - 0.1) w - 0.25 sign
    torch.testing.assert_close(weight, torch.tensor([[0.65 * 0.9 - 0.25, -0.65 * 0.9 + 0.25]]))


@pytest.mark.slow
def test_a_run_stops_and_goes_on_to_the_bit_and_is_read_back(tmp_path):
    whole = train(TASK, MODEL, recipe(), progress=False)
    first = train(TASK, MODEL, recipe(), tmp_path, progress=False, on_log=interrupt_at(10))
    assert (first.status, first.step) == ("interrupted", 10)
    second = train(TASK, MODEL, recipe(), tmp_path, progress=False)
    assert second.status == "finished"
    assert same(whole, second)
    assert load_run(tmp_path).config.train == recipe()


@pytest.mark.slow
def test_it_takes_over_from_another_and_hands_over_to_another(tmp_path):
    over = {"switch_step": 7, "second_lr": 1e-3}
    to = {"optimizer": "adamw", "lr": 5e-3, "second_optimizer": "lion", **over}
    for changes in (to, {"second_optimizer": "muon", **over}):
        whole = train(TASK, MODEL, recipe(**changes), progress=False)
        path = tmp_path / changes["second_optimizer"]
        for step in (5, 10):
            train(TASK, MODEL, recipe(**changes), path, progress=False, on_log=interrupt_at(step))
        assert same(whole, train(TASK, MODEL, recipe(**changes), path, progress=False))


@pytest.mark.slow
def test_a_stack_and_a_sweep_keep_options_apart(tmp_path):
    configs = [RunConfig(TASK, MODEL, recipe(rho, seed=seed)) for rho, seed in ((0.8, 0), (0.3, 0), (0.8, 1))]
    for config, record in zip(configs, train_stack(configs, keep_weights=True), strict=True):
        alone = train(TASK, MODEL, config.train, progress=False)
        pd.testing.assert_frame_equal(history_table(record.rows), alone.history, check_exact=True)
    axes = {"optimizer_options": [{"rho": 0.8}, {"rho": 0.3}], "seed": [0, 1]}
    shared = {"task": TASK, "model": MODEL, "train": recipe()}
    result = sweep(axes, **shared, path=tmp_path / "sweep", keep_weights=True)
    assert set(result.runs["status"]) == {"finished"}
    assert result.axes == ("optimizer_options", "seed")
    chosen = result.select(optimizer_options=(("rho", 0.3),), seed=0)
    assert same(chosen.run(chosen.runs["run"].iloc[0]), train(TASK, MODEL, recipe(0.3), progress=False))
    again = sweep(axes, **shared, path=tmp_path / "sweep", keep_weights=True)
    pd.testing.assert_frame_equal(again.table, result.table, check_exact=True)


def test_the_command_line_takes_its_options(command, tmp_path):
    flags = [word for name, value in SHORT.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    words = ["--optimizer", "lion", "--lr", "1e-3", "--optimizer-options", "rho", "0.8", "--d-head", "4"]
    task = ["--n-pairs", "3", "--m-train", "1", "--m-test", "2", "--n-noise", "2", "--seq-len", "5"]
    code, out, _ = command("train", str(tmp_path / "run"), *words, *flags, *task)
    assert code == 0
    assert "lion" in out
    assert load_run(tmp_path / "run").config.train == recipe()
    assert command("train", str(tmp_path / "other"), "--optimizer", "lion", "--optimizer-options", "ro", "1")[
        2
    ] == ("ocr-interp: error: unknown option of lion 'ro': did you mean 'rho'? allowed: 'rho'\n")


def test_its_options_are_part_of_the_configuration():
    config = RunConfig(TASK, MODEL, recipe())
    assert hash(config.train) == hash(recipe(rho=np.float64(0.8)))
    again = RunConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.fingerprint == config.fingerprint != RunConfig(TASK, MODEL, recipe(0.7)).fingerprint
    assert recipe(rho=0) == recipe(rho=0.0)
    with pytest.raises(ConfigError, match=r"rho must be at least 0 and < 1, got 1\.5"):
        recipe(1.5)
    with pytest.raises(ConfigError, match=r"beta1 is a field of its own.* write beta1=0\.5"):
        recipe(optimizer_options={"beta1": 0.5})
    with pytest.raises(UnknownNameError, match="unknown option of adamw 'rho'"):
        recipe(optimizer="adamw")


@pytest.mark.slow
def test_it_fine_tunes_a_language_model_and_goes_on_to_the_bit(tmp_path):
    facts = FactConfig(n_pairs=3, n_names=5)
    texts = [f"{e.prompt} {answer}" for e in make_facts(facts).test_examples for answer in e.candidates]
    tokenizer = tiny_tokenizer(texts)
    short = {"model": "tiny", "lr": 1e-3, "steps": 8, "log_every": 4, "batch_size": 6, "device": "cpu"}
    config = LLMRunConfig(facts, FinetuneConfig(optimizer="lion", optimizer_options={"rho": 0.8}, **short))
    whole = finetune(config, lm=tiny_model("llama", tokenizer))
    assert whole.history["train_loss"].iloc[-1] < whole.history["train_loss"].iloc[1]
    lm = tiny_model("llama", tokenizer)
    parameters = sum(p.numel() for p in lm.model.parameters())
    assert estimate_memory(lm.model.config, config.train, positions=8).optimizer == 4 * parameters
    assert finetune(config, tmp_path, lm=lm, on_log=interrupt_at(4)).status == "interrupted"
    second = finetune(config, tmp_path, lm=tiny_model("llama", tokenizer))
    pd.testing.assert_frame_equal(whole.history, second.history, check_exact=True)
    assert LLMRunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
