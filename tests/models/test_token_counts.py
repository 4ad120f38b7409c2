"""The token-count form against the HookedTransformer, autograd, mpmath and torch's own training loop."""

import mpmath
import numpy as np
import pytest
import torch

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.data import Batch, NoisyBatches, exhaustive, population, token_counts
from ocr_interp.models.hooked39 import build_model
from ocr_interp.models.starts import initial_weights
from ocr_interp.models.token_counts import TokenCountModel, cross_entropy
from ocr_interp.models.weights import TokenWeights
from ocr_interp.task import FactRecallTask
from ocr_interp.training.loop import train

CPU = torch.device("cpu")
OVS = pytest.mark.parametrize(
    ("ov", "d_head"), [("factorized", 3), ("factorized", 30), ("non_factorized", None)]
)
ATTENTIONS = pytest.mark.parametrize("attention", ["linear", "softmax"])


def config_of(ov, d_head=None, attention="linear", **fields):
    return ModelConfig(
        ov=ov, d_head=d_head, attention=attention, **{"dtype": "float64", "init_scale": 3.0, **fields}
    )


def both_forms(task, config, seed=0, weights=None):
    weights = initial_weights(task, config, seed) if weights is None else weights
    hooked = build_model(task, config, weights=weights, device="cpu")
    return hooked, TokenCountModel(task, config, weights, CPU)


def noisy(task, steps=(0, 40), size=24, seed=2):
    """Sequences of a few batches, and the batches with uneven weights."""
    batches, generator = NoisyBatches(task, size, seed, dtype=torch.float64), torch.Generator().manual_seed(0)
    for step in steps:
        b, weight = batches.batch(step), torch.rand(size, generator=generator, dtype=torch.float64)
        yield (
            batches.tokens(step),
            Batch(b.n_subjects, b.subject, b.context, b.target, weight / weight.sum(), b.split),
        )


# --- against the HookedTransformer -----------------------------------------------------------------------


@ATTENTIONS
@OVS
def test_logits_equal_those_of_the_hooked_transformer(tiny_task, mapped_task, ov, d_head, attention):
    for task in (tiny_task, mapped_task):
        hooked, counted = both_forms(task, config_of(ov, d_head, attention))
        for tokens, batch in noisy(task):
            expected = hooked(tokens)[:, -1].detach()
            assert expected.abs().max() > 0.1
            for got in (counted.logits(batch.counts), counted.batch_logits(batch)):
                torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)


@ATTENTIONS
@OVS
def test_gradients_equal_those_of_autograd(tiny_task, mapped_task, ov, d_head, attention):
    for task in (tiny_task, mapped_task):
        hooked, counted = both_forms(task, config_of(ov, d_head, attention))
        n, d = task.n_inputs, task.d_vocab
        for tokens, batch in noisy(task):
            hooked.zero_grad()
            logits = hooked(tokens)[:, -1]
            losses = torch.nn.functional.cross_entropy(logits, batch.target, reduction="none")
            expected = (losses * batch.weight).sum()
            expected.backward()
            loss = counted.loss_and_gradients(batch)
            assert float(loss) == pytest.approx(float(expected.detach()), abs=1e-12)
            attn = hooked.blocks[0].attn
            gradients = {"scores": attn.W_Q.grad[0, task.eos_token, :n]}
            if ov == "factorized":
                gradients |= {"W_V": attn.W_V.grad[0, :n], "W_O": attn.W_O.grad[0, :, d:]}
            else:
                gradients["W_OV"] = attn.W_V.grad[0, :n]
            assert counted.parameters.keys() == gradients.keys()
            for name, gradient in gradients.items():
                assert gradient.abs().max() > 1e-4
                got = counted.parameters[name].grad
                torch.testing.assert_close(got, gradient, atol=1e-12, rtol=0, msg=name)


@ATTENTIONS
def test_frozen_attention_has_no_gradient_and_stays(tiny_task, attention):
    hooked, counted = both_forms(tiny_task, config_of("factorized", 5, attention, train_attention=False))
    assert "scores" not in counted.parameters
    tokens, batch = next(noisy(tiny_task))
    counted.loss_and_gradients(batch)
    torch.testing.assert_close(
        counted.logits(batch.counts), hooked(tokens)[:, -1].detach(), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("shift", [-900.0, 0.0, 900.0])
def test_softmax_attention_at_any_size_of_score(tiny_task, shift):
    """A constant added to all scores changes nothing; exp of 900 is beyond float64."""
    config = config_of("factorized", 5, "softmax")
    weights = initial_weights(tiny_task, config, 0)
    weights = TokenWeights.of_factors(weights.W_V, weights.W_O, weights.W_QK + shift)
    hooked, counted = both_forms(tiny_task, config, weights=weights)
    for tokens, batch in noisy(tiny_task):
        expected = hooked(tokens)[:, -1].detach()
        assert torch.isfinite(expected).all()
        for got in (counted.logits(batch.counts), counted.batch_logits(batch)):
            torch.testing.assert_close(got, expected, atol=1e-11, rtol=0)
        loss = counted.loss_and_gradients(batch)
        assert torch.isfinite(loss)
        assert all(torch.isfinite(p.grad).all() for p in counted.parameters.values())


@OVS
def test_sequences_of_the_noise_free_and_exhaustive_forms(ov, d_head):
    task = FactRecallTask(2, 1, 1, n_noise=2, seq_len=4)
    hooked, counted = both_forms(task, config_of(ov, d_head))
    for batch in (population(task, dtype=torch.float64), exhaustive(task, dtype=torch.float64)):
        rows = [torch.repeat_interleave(torch.arange(task.n_inputs), c.long()) for c in batch.counts]
        tokens = torch.stack(rows)  # sorted by id, so EOS, the largest, is last
        assert torch.equal(token_counts(task, tokens, torch.float64), batch.counts)
        expected = hooked(tokens)[:, -1].detach()
        torch.testing.assert_close(counted.logits(batch.counts), expected, atol=1e-12, rtol=0)


def test_weights_come_back_and_only_weight_decay_reaches_inert_rows(tiny_task):
    for ov in ("factorized", "non_factorized"):
        start = initial_weights(tiny_task, config_of(ov), 1)
        counted, n = TokenCountModel(tiny_task, config_of(ov), start, CPU), tiny_task.n_inputs
        for name, tensor in counted.weights().tensors().items():
            assert torch.equal(tensor, start.tensors()[name])
        decayed = counted.weights(0.5)
        assert torch.equal(decayed.W_V[:n], start.W_V[:n])
        assert torch.equal(decayed.W_V[n:], 0.5 * start.W_V[n:])
        eos = tiny_task.eos_token
        assert torch.equal(decayed.W_QK[eos, :n], start.W_QK[eos, :n])
        assert torch.equal(decayed.W_QK[eos, n:], 0.5 * start.W_QK[eos, n:])
        assert torch.equal(decayed.W_QK[:eos], 0.5 * start.W_QK[:eos])
        counted.weights().W_V.zero_()
        assert not (counted.weights().W_V == 0).any(), "a copy, not a view"


# --- cross-entropy ---------------------------------------------------------------------------------------

TARGET = 2


def logits_of_margin(margin):
    """Six logits in which the right one leads the best wrong one by the margin."""
    return [-3.0, -1.5, margin - 0.25, -0.25, -40.0, -0.75]


def reference(logits):
    """(loss, gradient) with 700 digits."""
    with mpmath.workdps(700):
        exact = [mpmath.mpf(x) for x in logits]
        total = mpmath.fsum(mpmath.exp(x) for x in exact)
        wrong = mpmath.fsum(mpmath.exp(x) for k, x in enumerate(exact) if k != TARGET)
        loss = mpmath.log1p(wrong / mpmath.exp(exact[TARGET]))
        grad = [mpmath.exp(x) / total if k != TARGET else -wrong / total for k, x in enumerate(exact)]
        return loss, grad


def relative_error(got, exact):
    with mpmath.workdps(50):
        return float(abs(mpmath.mpf(float(got)) - exact) / abs(exact))


@pytest.mark.parametrize("margin", [0.0, 1.0, -1.0, 20.0, 40.0, 50.0, -50.0, 600.0, 700.0, -700.0])
def test_loss_and_gradient_keep_their_relative_precision(margin):
    """The margin itself is known to one part in 2^52, so exp(-margin) to about margin * 2^-52."""
    logits = torch.tensor([logits_of_margin(margin)], dtype=torch.float64)
    residuals = cross_entropy(logits, torch.tensor([TARGET]))
    loss, grad = reference(logits[0].tolist())
    tolerance = 8 * (1 + abs(margin)) * 2.0**-52
    assert relative_error(residuals.loss[0], loss) < tolerance
    for got, exact in zip(residuals.grad_logits[0], grad, strict=True):
        if abs(exact) > 1e-307:  # below lies what float64 cannot hold with full precision
            assert relative_error(got, exact) < tolerance


@pytest.mark.parametrize("margin", [0.0, 50.0, -50.0, 80.0])
def test_the_same_in_float32(margin):
    logits = torch.tensor([logits_of_margin(margin)], dtype=torch.float32)
    residuals = cross_entropy(logits, torch.tensor([TARGET]))
    loss, grad = reference(logits[0].tolist())
    tolerance = 8 * (1 + abs(margin)) * 2.0**-23
    assert residuals.loss.dtype == torch.float32
    assert relative_error(residuals.loss[0], loss) < tolerance
    for got, exact in zip(residuals.grad_logits[0], grad, strict=True):
        if abs(exact) > 1e-37:
            assert relative_error(got, exact) < tolerance


def test_cross_entropy_leaves_its_input_alone_and_agrees_with_torch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    target, before = torch.tensor([0, 1, 2, 3, 4, 0, 1]), logits.detach().clone()
    expected = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    expected.sum().backward()
    residuals = cross_entropy(logits.detach(), target)
    torch.testing.assert_close(residuals.loss, expected.detach(), atol=1e-14, rtol=1e-14)
    torch.testing.assert_close(residuals.grad_logits, logits.grad, atol=1e-15, rtol=1e-13)
    assert torch.equal(logits.detach(), before)
    assert residuals.grad_logits.sum(1).abs().max() < 1e-15


# --- against a HookedTransformer that torch trains on the sequences ------------------------------------


def torch_trained(task, config, recipe):
    """The same recipe, step by step, by autograd and torch's optimisers, on the token sequences."""
    model = build_model(task, config, seed=recipe.seed, device="cpu")
    trained = [p for p in model.parameters() if p.requires_grad]
    if recipe.optimizer == "adamw":
        optimizer = torch.optim.AdamW(
            trained,
            lr=recipe.lr,
            betas=(recipe.beta1, recipe.beta2),
            eps=recipe.eps,
            weight_decay=recipe.weight_decay,
        )
    else:
        optimizer = torch.optim.SGD(
            trained, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    batches = NoisyBatches(task, recipe.batch_size, recipe.seed)
    for step in range(recipe.steps):
        optimizer.zero_grad()
        logits = model(batches.tokens(step))[:, -1]
        torch.nn.functional.cross_entropy(logits, batches.batch(step).target).backward()
        optimizer.step()
    return model


COMMON = {"steps": 60, "batch_size": 24, "seed": 3, "log_every": 25, "device": "cpu"}
RECIPES = {
    "adamw": TrainConfig(weight_decay=0.3, **COMMON),
    "sgd": TrainConfig(optimizer="sgd", lr=0.1, momentum=0.8, weight_decay=0.02, **COMMON),
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", list(RECIPES))
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-10)])
@pytest.mark.parametrize(
    ("ov", "attention", "train_attention"),
    [
        ("factorized", "linear", True),
        ("non_factorized", "linear", True),
        ("factorized", "softmax", True),
        ("non_factorized", "softmax", False),
    ],
)
def test_training_equals_that_of_a_hooked_transformer(
    recipe, dtype, tolerance, ov, attention, train_attention
):
    """All weights, those that never act included: weight decay alone reaches them."""
    task = FactRecallTask(4, 1, 2, seq_len=8)
    config = config_of(ov, None, attention, dtype=dtype, train_attention=train_attention, init_scale=1.0)
    expected = torch_trained(task, config, RECIPES[recipe]).state_dict()
    got = train(task, config, RECIPES[recipe], progress=False).model.state_dict()
    start = build_model(task, config, seed=3, device="cpu").state_dict()
    for name, tensor in expected.items():
        if tensor.is_floating_point() and torch.isfinite(tensor).all():
            assert float((got[name] - tensor).abs().max() if tensor.numel() else 0) < tolerance, name
    inert = np.s_[0, task.n_inputs : task.d_vocab]
    moved = (expected["blocks.0.attn.W_V"] - start["blocks.0.attn.W_V"])[inert].abs().max()
    assert moved > 100 * tolerance, "weight decay reaches inert rows, so this comparison can fail"
