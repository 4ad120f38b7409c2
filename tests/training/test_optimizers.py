"""Optimisers against steps by hand, against torch's own, and mixed recipes."""

import math

import pytest
import torch
from run_files import MODELS, TASK, Killed, content, differing, stop_at, train_into

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.data import population
from ocr_interp.models.starts import initial_weights
from ocr_interp.models.token_counts import TokenCountModel
from ocr_interp.task import TRAINED_SPLITS
from ocr_interp.training.optimizers import NEWTON_SCHULZ, RunOptimizers, orthogonalised

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


def updated(gradients, **recipe):
    """A matrix and a vector of a run after one update a (matrix, vector) gradient."""
    parameters = {"W_OV": torch.tensor([[1.0, -2.0, 0.5]]), "scores": torch.tensor([4.0, -4.0])}
    optimizers = RunOptimizers([TrainConfig(steps=100, **recipe)], [parameters])
    for step, (matrix, vector) in enumerate(gradients):
        parameters["W_OV"].grad, parameters["scores"].grad = torch.tensor([matrix]), torch.tensor(vector)
        optimizers.step(step)
    return parameters


def test_sign_descent_by_hand():
    got = updated([([3.0, -0.1, 0.0], [1e-9, -7.0])], optimizer="signsgd", lr=0.25, weight_decay=0.4)
    torch.testing.assert_close(got["W_OV"], torch.tensor([[0.9 - 0.25, -1.8 + 0.25, 0.45]]))
    torch.testing.assert_close(got["scores"], torch.tensor([3.6 - 0.25, -3.6 + 0.25]))


def test_sign_descent_with_momentum_by_hand():
    """Means 0.5, then 0.25 - 0.5 = -0.25; and 0.5, then 0.25 + 0.1."""
    gradients = [([1.0, 1.0, 0.0], [0.0, 1.0]), ([-1.0, 0.2, 0.0], [0.0, 0.0])]
    recipe = {"optimizer": "signsgd", "lr": 0.25, "momentum": 0.5, "weight_decay": 0.0}
    got = updated(gradients, **recipe)
    torch.testing.assert_close(got["W_OV"], torch.tensor([[1.0, -2.5, 0.5]]))
    torch.testing.assert_close(got["scores"], torch.tensor([4.0, -4.5]))


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
def test_muon_is_torchs_on_matrices_and_adamw_on_scores(nesterov, adjust):
    recipe = TrainConfig(
        steps=20,
        optimizer="muon",
        lr=0.03,
        weight_decay=0.2,
        muon_momentum=0.8,
        muon_nesterov=nesterov,
        muon_ns_steps=4,
        muon_eps=0.01,
        muon_adjust_lr=adjust,
        scores_lr=0.01,
        data="noise_free",
    )
    config, batch = ModelConfig(d_head=4), population(TASK, TRAINED_SPLITS)
    start = initial_weights(TASK, config, 0)
    ours, theirs = (TokenCountModel(TASK, config, start, torch.device("cpu")) for _ in range(2))
    optimizers = RunOptimizers([recipe], [ours.parameters])
    p = theirs.parameters
    muon = torch.optim.Muon(
        [p["W_V"], p["W_O"]],
        lr=0.03,
        weight_decay=0.2,
        momentum=0.8,
        nesterov=nesterov,
        ns_steps=4,
        eps=0.01,
        adjust_lr_fn=adjust,
    )
    adamw = torch.optim.AdamW([p["scores"]], lr=0.01, weight_decay=0.2, fused=True)
    for step in range(20):
        ours.loss_and_gradients(batch)
        optimizers.step(step)
        theirs.loss_and_gradients(batch)
        muon.step()
        adamw.step()
    for name, tensor in theirs.parameters.items():
        assert torch.equal(ours.parameters[name], tensor), name
        assert not torch.equal(tensor, TokenCountModel(TASK, config, start, tensor.device).parameters[name])


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
def test_muon_in_float32_by_hand_and_beside_torchs(adjust):
    """The iteration acts on singular values alone: s <- a s + b s^3 + c s^5."""
    generator = torch.Generator().manual_seed(0)
    a, b, c = NEWTON_SCHULZ
    for shape in ((5, 3), (3, 5)):
        matrix = torch.randn(shape, generator=generator, dtype=torch.float64)
        U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
        S = S / S.norm()
        for _ in range(5):
            S = a * S + b * S**3 + c * S**5
        torch.testing.assert_close(orthogonalised(matrix[None], 5)[0], U * S @ Vh, atol=1e-10, rtol=0)
        many = torch.randn(6, *shape, generator=generator)
        for k, alone in enumerate(many):
            assert torch.equal(orthogonalised(many, 5)[k], orthogonalised(alone[None], 5)[0])
    tiny = torch.full((1, 3, 3), 1e-9)
    torch.testing.assert_close(orthogonalised(tiny, 1, 1e-6), a * tiny / 1e-6, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        orthogonalised(tiny, 9, 1e-12), orthogonalised(1e9 * tiny, 9), atol=1e-5, rtol=0
    )
    recipe = {"optimizer": "muon", "lr": 0.02, "data": "noise_free", "weight_decay": 0.1}
    recipe["muon_adjust_lr"] = adjust
    exact, rounded = (train_into(None, muon_precision=p, **recipe) for p in ("float32", "bfloat16"))
    start = initial_weights(TASK, MODELS["factorized"], 0)
    moved = (exact.weights.W_V - start.W_V).norm()
    assert (exact.weights.W_V - rounded.weights.W_V).norm() < 0.02 * moved, "bfloat16 has 8 bits"


def test_a_second_optimiser_starts_afresh_at_its_step():
    """By hand: two sign steps, then AdamW, whose first step is lr whatever the gradient."""
    recipe = {
        "optimizer": "signsgd",
        "lr": 0.25,
        "second_optimizer": "adamw",
        "second_lr": 0.125,
        "switch_step": 2,
        "weight_decay": 0.0,
        "eps": 1e-20,
    }
    gradients = [([1.0, -1.0, 1.0], [1.0, 1.0])] * 2 + [([3.0, -5.0, 1e-3], [-1.0, 1.0])]
    got = updated(gradients, **recipe)
    torch.testing.assert_close(
        got["W_OV"], torch.tensor([[1 - 0.5 - 0.125, -2 + 0.5 + 0.125, 0.5 - 0.5 - 0.125]])
    )
    torch.testing.assert_close(got["scores"], torch.tensor([4 - 0.5 + 0.125, -4 - 0.5 - 0.125]))


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


def test_runs_from_before_these_fields_keep_their_fingerprint(tiny_task):
    config = RunConfig(tiny_task, ModelConfig(), TrainConfig())
    assert config.fingerprint == "8064bc9d74410469"
    changed = RunConfig(tiny_task, ModelConfig(), TrainConfig(muon_ns_steps=4))
    assert changed.fingerprint != config.fingerprint
