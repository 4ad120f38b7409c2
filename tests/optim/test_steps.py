"""Optimisers against steps by hand and against torch's own."""

import pytest
import torch

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.data import population
from ocr_interp.errors import ConfigError, OcrInterpError
from ocr_interp.models.starts import initial_weights
from ocr_interp.models.token_counts import TokenCountModel
from ocr_interp.optim import optimizers
from ocr_interp.optim.muon import Float32Muon
from ocr_interp.optim.newton_schulz import COEFFICIENTS, orthogonalised, orthogonalised_stack
from ocr_interp.optim.stepping import RunOptimizers, state_of
from ocr_interp.task import TRAINED_SPLITS, FactRecallTask

TASK = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)


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


def test_newton_schulz_in_float32_by_hand():
    """The iteration acts on singular values alone: s <- a s + b s^3 + c s^5."""
    generator = torch.Generator().manual_seed(0)
    a, b, c = COEFFICIENTS
    for shape in ((5, 3), (3, 5), (3, 7), (7, 3), (4, 4)):
        matrix = torch.randn(shape, generator=generator, dtype=torch.float64)
        U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
        S = S / S.norm()
        for _ in range(5):
            S = a * S + b * S**3 + c * S**5
        torch.testing.assert_close(orthogonalised_stack(matrix[None], 5)[0], U * S @ Vh, atol=1e-10, rtol=0)
        torch.testing.assert_close(orthogonalised(matrix, 5), U * S @ Vh, atol=1e-10, rtol=0)
        many = torch.randn(6, *shape, generator=generator)
        for k, alone in enumerate(many):
            assert torch.equal(orthogonalised_stack(many, 5)[k], orthogonalised_stack(alone[None], 5)[0])
    tiny = torch.full((1, 3, 3), 1e-9)
    torch.testing.assert_close(orthogonalised_stack(tiny, 1, 1e-6), a * tiny / 1e-6, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        orthogonalised_stack(tiny, 9, 1e-12), orthogonalised_stack(1e9 * tiny, 9), atol=1e-5, rtol=0
    )


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


@pytest.mark.parametrize("shape", [(6, 4), (4, 9), (200, 200), (200, 450)])
def test_muon_in_float32_is_torchs_muon(shape):
    """Small matrices and, from 192 on, large ones, for which it forms other products."""
    generator = torch.Generator().manual_seed(0)
    start, *gradients = (torch.randn(shape, generator=generator) for _ in range(4))
    options = {"lr": 0.1, "weight_decay": 0.2, "momentum": 0.9, "nesterov": True, "ns_steps": 5, "eps": 1e-7}
    found = []
    for kind in (Float32Muon, torch.optim.Muon):
        parameter = torch.nn.Parameter(start.clone())
        optimizer = kind([parameter], adjust_lr_fn="match_rms_adamw", **options)
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimizer.step()
        found.append(parameter)
    torch.testing.assert_close(*found, atol=6e-3, rtol=0)  # torch's rounds to bfloat16, 8 bits


def test_muon_orthogonalises_each_matrix_of_a_stack_and_refuses_stacks_in_bfloat16():
    generator = torch.Generator().manual_seed(0)
    factors, gradients = (torch.randn(3, 4, 5, generator=generator) for _ in range(2))
    whole = {"left": factors.clone()}
    apart = {f"left_{k}": factors[k].clone() for k in range(3)}
    recipe = TrainConfig(optimizer="muon", lr=0.1, muon_precision="float32")
    whole["left"].grad = gradients
    for k in range(3):
        apart[f"left_{k}"].grad = gradients[k]
    for parameters in (whole, apart):
        RunOptimizers([recipe], [parameters]).step(0)
    for k in range(3):
        assert torch.equal(whole["left"][k], apart[f"left_{k}"])
    rounded = TrainConfig(optimizer="muon", lr=0.1)
    with pytest.raises(ConfigError, match=r"no stack of .*\(3, 4, 5\): muon_precision='float32'"):
        RunOptimizers([rounded], [whole]).step(0)


def test_what_muon_does_not_take_goes_to_adamw_and_can_be_asked_for():
    parameters = {"W_V": torch.zeros(3, 2), "scores": torch.zeros(3), "left": torch.zeros(2, 3, 2)}
    recipe = TrainConfig(
        optimizer="muon", muon_precision="float32", second_optimizer="sgd", second_lr=1.0, switch_step=5
    )
    stepper = RunOptimizers([recipe], [parameters])
    expected = {"W_V": optimizers["muon"], "scores": optimizers["adamw"], "left": optimizers["muon"]}
    assert stepper.kinds(0, 4) == expected
    assert set(stepper.kinds(0, 5).values()) == {optimizers["sgd"]}
    with pytest.raises(ConfigError, match="optimizer='muon' needs a matrix to train"):
        RunOptimizers([recipe], [{"scores": torch.zeros(3)}]).step(0)


def test_state_that_is_no_tensor_is_refused():
    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p]["count"] = 1

    parameter = torch.zeros(2)
    counting = Counting([parameter])
    counting.step()
    with pytest.raises(OcrInterpError, match="Counting keeps count as int: checkpoints hold tensors"):
        state_of([counting], parameter)
