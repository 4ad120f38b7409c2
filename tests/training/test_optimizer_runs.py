"""Whole runs of each optimiser and of mixed recipes: learning, going on, weight decay, fingerprints."""

import math

import pytest
import torch
from run_files import MODELS, TASK, Killed, content, differing, stop_at, train_into

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.maps import maps
from ocr_interp.maps.base import LinearMap
from ocr_interp.models.starts import initial_weights

RECIPES = {
    "signsgd": {"optimizer": "signsgd", "lr": 1e-3},
    "signum": {"optimizer": "signsgd", "lr": 1e-3, "momentum": 0.9},
    "muon": {"optimizer": "muon", "lr": 0.02},
    "muon float32": {"optimizer": "muon", "lr": 0.02, "muon_precision": "float32"},
    "muon then adamw": {
        "optimizer": "muon",
        "lr": 0.02,
        "second_optimizer": "adamw",
        "second_lr": 5e-3,
        "switch_step": 20,
    },
    "adamw then muon": {"second_optimizer": "muon", "second_lr": 0.02, "switch_step": 17},
}


@pytest.mark.slow
@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
def test_muon_in_float32_trains_as_torchs(adjust):
    recipe = {"optimizer": "muon", "lr": 0.02, "data": "noise_free", "weight_decay": 0.1}
    recipe["muon_adjust_lr"] = adjust
    exact, rounded = (train_into(None, muon_precision=p, **recipe) for p in ("float32", "bfloat16"))
    start = initial_weights(TASK, MODELS["factorized"], 0)
    moved = (exact.weights.W_V - start.W_V).norm()
    assert (exact.weights.W_V - rounded.weights.W_V).norm() < 0.02 * moved, "bfloat16 has 8 bits"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_it_learns_and_going_on_equals_never_having_stopped(recipe, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    history = train_into(whole, **RECIPES[recipe]).history
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[1]
    for step in (15, 25, 35):  # from checkpoints before, at and after the switch
        with pytest.raises(Killed):
            train_into(parts, on_log=stop_at(step), **RECIPES[recipe])
    train_into(parts, **RECIPES[recipe])
    assert differing(content(whole), content(parts)) == []


@pytest.mark.slow
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_weight_decay_alone_reaches_what_never_acts(recipe):
    """By the closed form, phase by phase; scores under muon have the rate of their own optimiser."""
    options = {**RECIPES[recipe], "weight_decay": 0.3}
    run = train_into(None, **options)
    start, n = initial_weights(TASK, MODELS["factorized"], 0), TASK.n_inputs
    config, expected = run.config.train, {"matrix": 1.0, "scores": 1.0}
    for phase in config.phases():
        for name in expected:
            lr = config.scores_lr if (phase.optimizer, name) == ("muon", "scores") else phase.lr
            expected[name] *= math.prod([1 - lr * 0.3] * phase.steps)
    assert sum(phase.steps for phase in config.phases()) == 40
    torch.testing.assert_close(run.weights.W_V[n:], start.W_V[n:] * expected["matrix"])
    torch.testing.assert_close(run.weights.W_QK[0], start.W_QK[0] * expected["scores"])


class RankOne(LinearMap):
    """W_OV = d b: a vector with one entry per token, and a matrix of one row."""

    name, label, token_rows = "rank_one", "rank one", frozenset({"d"})

    def shapes(self, n_in, n_out):
        return {"d": (n_in,), "b": (1, n_out)}

    def start(self, draw):
        shapes = self.shapes(draw.n_tokens, draw.n_tokens)
        return {name: draw.normal(name, *shape) for name, shape in shapes.items()}

    def product(self, parameters):
        return parameters["d"][..., None] @ parameters["b"]


def test_what_never_acts_of_a_vector_decays_at_the_rate_of_the_vectors_own_optimiser():
    """Under muon a vector of a map goes to adamw at scores_lr, like the scores."""
    with maps.registered("rank_one", RankOne):
        options = {"optimizer": "muon", "lr": 0.02, "scores_lr": 0.1, "weight_decay": 0.3}
        run = train_into(None, model=ModelConfig(ov="rank_one"), **options)
        start = initial_weights(TASK, ModelConfig(ov="rank_one"), 0)
    left = start.ov["d"][TASK.n_inputs :] * (1 - 0.1 * 0.3) ** 40
    torch.testing.assert_close(run.weights.ov["d"][TASK.n_inputs :], left)
