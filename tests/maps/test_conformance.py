"""What every parameterisation of W_OV must do; a new file in maps/ is tested by being there."""

import dataclasses

import numpy as np
import pytest
import torch

from ocr_interp.checks import as_options
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.data import noisy_examples
from ocr_interp.errors import ConfigError, UnknownNameError
from ocr_interp.maps import maps
from ocr_interp.maps.axes import TokenAxes
from ocr_interp.maps.factorized import Factorized
from ocr_interp.models.hooked39 import build_model
from ocr_interp.models.starts import initial_weights
from ocr_interp.models.token_counts import TokenCountModel
from ocr_interp.models.weights import TokenWeights, factorize_ov
from ocr_interp.sweeps.sweep import sweep
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.norms import as_norm
from ocr_interp.training.loop import train
from ocr_interp.training.run import Snapshot

TASK = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
RECIPE = TrainConfig(steps=20, batch_size=12, log_every=5, checkpoint_every=10, snapshots=2, device="cpu")
EVERY = pytest.mark.parametrize("ov", maps.names)


def start(ov, seed=0, **fields):
    return initial_weights(TASK, config_of(ov, **{"dtype": "float64", **fields}), seed)


def config_of(ov, **fields):
    """A configuration with the options without which the map cannot be made."""
    return ModelConfig(ov=ov, ov_options=dict(maps[ov].example), **fields)


def map_of(ov):
    return maps[ov].of(None, maps[ov].example, maps[ov].starts[0]).placed(TokenAxes.of_vocabulary(TASK))


def random_parameters(ov, runs=()):
    """Parameters of the shapes that the map has for the vocabulary of TASK."""
    generator = torch.Generator().manual_seed(1)
    linear_map = map_of(ov)
    shapes = linear_map.shapes(TASK.d_vocab, TASK.d_vocab)
    drawn = {n: torch.randn(*runs, *s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}
    return linear_map, drawn


@EVERY
def test_it_says_what_it_is(ov):
    found = maps[ov]
    assert found.name == ov
    assert found.label
    placed = map_of(ov)
    assert placed.norm is None or as_norm(placed.norm).name
    assert found.starts
    n = TASK.d_vocab
    shapes = placed.shapes(n, n)
    assert placed.token_rows | placed.frozen <= set(shapes)
    assert not {"scores", "W_QK"} & set(shapes)
    assert all(shapes[name][0] == n for name in placed.token_rows)


@EVERY
@pytest.mark.parametrize("runs", [(), (2,)])
def test_gradients_equal_autograd(ov, runs):
    linear_map, parameters = random_parameters(ov, runs=runs)
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    W = linear_map.product(leaves)
    assert W.shape == (*runs, TASK.d_vocab, TASK.d_vocab)
    grad = torch.linspace(-1, 1, W.numel(), dtype=torch.float64).view_as(W)
    wanted = torch.autograd.grad(W, list(leaves.values()), grad)
    found = linear_map.gradients(parameters, grad)
    for (name, got), expected in zip(found.items(), wanted, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12, msg=name)
    arrays = {name: value.numpy() for name, value in parameters.items()}
    np.testing.assert_allclose(linear_map.array_product(arrays), W.detach().numpy(), rtol=1e-12)
    for name, got in linear_map.array_gradients(arrays, grad.numpy()).items():
        np.testing.assert_allclose(got, found[name].numpy(), rtol=1e-12, atol=1e-14)


@EVERY
def test_memory_of_a_step_holds_what_the_plain_functions_give(ov):
    linear_map, parameters = random_parameters(ov, runs=(2,))
    wanted = linear_map.product(parameters).clone()
    assert torch.equal(linear_map.product_into(parameters, torch.empty_like(wanted)), wanted)
    trained = {name: torch.zeros_like(p) for name, p in parameters.items() if name not in linear_map.frozen}
    grad = linear_map.gradient_memory(trained)
    grad = torch.empty_like(wanted) if grad is None else grad
    grad.copy_(torch.linspace(-1, 1, wanted.numel(), dtype=torch.float64).view_as(wanted))
    expected = linear_map.gradients(parameters, grad.clone())
    linear_map.pull_back(parameters, grad, trained)
    for name, got in trained.items():
        torch.testing.assert_close(got, expected[name], rtol=1e-12, atol=1e-12)


@EVERY
def test_its_factors_multiply_to_its_product(ov):
    linear_map, parameters = random_parameters(ov)
    if linear_map.has_factors:
        W_V, W_O = linear_map.factors(parameters)
        torch.testing.assert_close(W_V @ W_O, linear_map.product(parameters))
    else:
        with pytest.raises(ConfigError, match="no factors W_V and W_O"):
            linear_map.factors(parameters)


@pytest.mark.parametrize(("ov", "init"), [(ov, init) for ov in maps.names for init in maps[ov].starts])
def test_starts_depend_on_the_seed_alone_and_dtypes_share_their_draws(ov, init):
    double, single = start(ov, init=init), start(ov, init=init, dtype="float32")
    for name, tensor in double.tensors().items():
        assert torch.equal(single.tensors()[name], tensor.float()), name
        assert torch.equal(start(ov, init=init).tensors()[name], tensor)
        assert tensor.isfinite().all()
    shapes = double.linear_map.shapes(TASK.d_vocab, TASK.d_vocab)
    assert {name: tuple(tensor.shape) for name, tensor in double.ov.items()} == shapes


@EVERY
@pytest.mark.parametrize("attention", ["linear", "softmax"])
def test_token_counts_and_the_hooked_transformer_agree(ov, attention):
    config = config_of(ov, attention=attention, dtype="float64")
    weights = initial_weights(TASK, config, 3)
    tokens, batch = noisy_examples(TASK, TASK.triples, seed=0, dtype=torch.float64)
    counted = TokenCountModel(TASK, config, weights, torch.device("cpu")).batch_logits(batch)
    hooked = build_model(TASK, config, device="cpu", weights=weights)(tokens)[:, -1]
    torch.testing.assert_close(counted, hooked, rtol=1e-12, atol=1e-12)


@EVERY
def test_gradients_of_the_loss_equal_autograd_through_the_formula(ov):
    config = config_of(ov, dtype="float64")
    model = TokenCountModel(TASK, config, initial_weights(TASK, config, 3), torch.device("cpu"))
    _, batch = noisy_examples(TASK, TASK.training_triples, seed=0, dtype=torch.float64)
    model.loss_and_gradients(batch)
    leaves = {name: p.detach().clone().requires_grad_() for name, p in model.parameters.items()}
    ov_leaves = {**model.constants, **{name: leaf for name, leaf in leaves.items() if name != "scores"}}
    W = model.linear_map.product(ov_leaves)[: TASK.n_inputs]
    logits = batch.counts @ (leaves["scores"].unsqueeze(-1) * W)
    losses = torch.nn.functional.cross_entropy(logits, batch.target, reduction="none")
    wanted = torch.autograd.grad((losses * batch.weight).sum(), list(leaves.values()))
    for (name, p), expected in zip(model.parameters.items(), wanted, strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.slow
@EVERY
def test_a_stacked_and_a_resumed_run_have_the_bits_of_a_run_alone(ov, tmp_path):
    model = config_of(ov)
    whole = train(TASK, model, RECIPE, progress=False)
    stacked = sweep({"seed": [0, 1]}, task=TASK, model=model, train=RECIPE, keep_weights=True, progress=False)
    of_seed = {stacked.config(name).train.seed: stacked.run(name) for name in stacked.runs["run"]}

    class Killed(BaseException):
        pass

    def kill(row):
        if row["step"] == 15:
            raise Killed

    with pytest.raises(Killed):
        train(TASK, model, RECIPE, tmp_path / "run", progress=False, on_log=kill)
    resumed = train(TASK, model, RECIPE, tmp_path / "run", progress=False)
    for other in (of_seed[0], resumed):
        assert other.history.equals(whole.history)
        for name, tensor in whole.weights.tensors().items():
            assert torch.equal(other.weights.tensors()[name], tensor), name
    assert torch.equal(resumed.at(20).weights.W_OV, whole.weights.W_OV)


@EVERY
def test_weights_by_name_come_back(ov):
    weights = start(ov)
    again = TokenWeights.from_tensors(weights.linear_map, weights.tensors())
    assert again.tensors().keys() == weights.tensors().keys()
    assert torch.equal(again.W_OV, weights.W_OV)


@EVERY
def test_its_circuit_is_diag_a_W_OV_and_the_raw_one_says_so(ov):
    config = RunConfig(TASK, config_of(ov, dtype="float64"), TrainConfig(seed=3))
    run = Snapshot(config, 0, initial_weights(TASK, config.model, 3))
    n = TASK.n_inputs
    by_hand = run.scores[:, None] * run.weights.W_OV.numpy()[:n, n:]
    np.testing.assert_allclose(run.circuit.W, by_hand, rtol=1e-12)
    assert run.circuit.linear_map == run.weights.linear_map
    raw = OVCircuit.from_run(run, raw=True)
    np.testing.assert_allclose(raw.W, run.weights.W_OV.numpy()[:n, n:], rtol=1e-12)
    assert "raw W_OV without the attention" in raw.summary()
    assert "raw W_OV" not in run.circuit.summary()
    run.circuit.check_fresh(run.model)
    drawn = run.circuit.random_like(0)
    assert drawn.frobenius_norm == pytest.approx(run.circuit.frobenius_norm)


@EVERY
def test_bad_options_and_starts_are_refused(ov):
    with pytest.raises(UnknownNameError, match=r"unknown ov=.* option 'rnk'"):
        ModelConfig(ov=ov, ov_options={"rnk": 3})
    with pytest.raises(ConfigError, match="ov_options must hold numbers, texts or flags"):
        as_options("ov_options", {"rank": [3]})
    for init in {"product", "entries", "constant", "symmetric"} - set(maps[ov].starts):
        with pytest.raises(ConfigError, match=f"init='{init}' is no start of ov='{ov}'"):
            config_of(ov, init=init)


class Doubled(Factorized):
    name = "doubled"

    def product(self, parameters):
        return 2 * (parameters["W_V"] @ parameters["W_O"])


def test_a_product_of_ones_own_takes_no_gradient_of_another():
    with maps.registered("doubled", Doubled):
        test_gradients_equal_autograd("doubled", ())
        test_memory_of_a_step_holds_what_the_plain_functions_give("doubled")
        test_gradients_of_the_loss_equal_autograd_through_the_formula("doubled")
        assert not Doubled.has_factors


def test_an_unknown_parameterisation_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"ov must be one of .*'factorized'.* got 'facto'"):
        ModelConfig(ov="facto")


def test_factors_of_any_map_can_be_made_from_its_product():
    weights = start("non_factorized")
    W_V, W_O = factorize_ov(weights.W_OV, TASK.d_vocab)
    twin = dataclasses.replace(TokenWeights.of_factors(W_V, W_O, weights.W_QK))
    torch.testing.assert_close(twin.W_OV, weights.W_OV, rtol=1e-10, atol=1e-12)
