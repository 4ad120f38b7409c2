"""W_OV as a product of several matrices; what every map must do is in test_conformance.py."""

import dataclasses

import pytest
import torch
from test_conformance import RECIPE, TASK

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.errors import ConfigError
from ocr_interp.maps.deep import Deep
from ocr_interp.training.loop import train


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_factors_are_the_factorized_model_to_the_bit(optimizer):
    """The optimiser too: it sees the same matrices under other names."""
    recipe = RECIPE if optimizer == "adamw" else dataclasses.replace(RECIPE, optimizer="muon")
    wanted = train(TASK, ModelConfig(ov="factorized", d_head=7), recipe, progress=False)
    found = train(TASK, ModelConfig(ov="deep", d_head=7, ov_options={"depth": 2}), recipe, progress=False)
    assert found.history.equals(wanted.history)
    assert torch.equal(found.weights.ov["W_1"], wanted.weights.ov["W_V"])
    assert torch.equal(found.weights.ov["W_2"], wanted.weights.ov["W_O"])


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_gradients_of_any_depth_equal_autograd(depth):
    linear_map, generator = Deep(d_head=4, depth=depth), torch.Generator().manual_seed(0)
    shapes = linear_map.shapes(6, 5)
    assert shapes["W_1"] == (6, 4)
    assert shapes[f"W_{depth}"] == (4, 5)
    drawn = {n: torch.randn(2, *s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}
    leaves = {name: value.clone().requires_grad_() for name, value in drawn.items()}
    W = linear_map.product(leaves)
    grad = torch.randn(W.shape, generator=generator, dtype=torch.float64)
    wanted = torch.autograd.grad(W, list(leaves.values()), grad)
    found = linear_map.gradients(drawn, grad)
    into = {name: torch.empty_like(value) for name, value in drawn.items()}
    linear_map.pull_back(drawn, grad, into)
    for name, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(found[name], expected)
        torch.testing.assert_close(into[name], expected)


def test_only_two_factors_have_a_norm():
    assert Deep(depth=2).norm == "nuclear"
    assert Deep().norm is None
    run = train(TASK, ModelConfig(ov="deep"), RECIPE, progress=False)
    assert run.saddle is None


def test_a_depth_that_is_none_is_refused():
    for depth, said in (
        (1, r"option 'depth' of ov='deep' must be >= 2, got 1"),
        (33, "must be <= 32, got 33"),
    ):
        with pytest.raises(ConfigError, match=said):
            ModelConfig(ov="deep", ov_options={"depth": depth})
    with pytest.raises(
        ConfigError, match="init='symmetric' is no start of ov='deep': that start is laid out"
    ):
        ModelConfig(ov="deep", init="symmetric")
