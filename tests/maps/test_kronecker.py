"""Kronecker and Compacter maps: products by numpy's kron, options, and where descent takes them."""

import numpy as np
import pytest
import torch

from ocr_interp.circuits.analysis import analyze_run
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import ConfigError
from ocr_interp.maps import maps
from ocr_interp.maps.axes import TokenAxes
from ocr_interp.maps.compacter import Compacter
from ocr_interp.maps.kronecker import Kronecker
from ocr_interp.models.starts import initial_weights
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import KroneckerNorm, aligned_compacter
from ocr_interp.training.lockstep import stack_key
from ocr_interp.training.long_descent import long_descent
from ocr_interp.training.loop import train
from ocr_interp.training.store import load_run
from ocr_interp.viz.text.run import describe_run

TASK = FactRecallTask(4, 1, 3, n_noise=2, seq_len=5)
KINDS = ("factorized", "kronecker")
TASK_OF_THREE = FactRecallTask(3, 1, 2, n_noise=0, seq_len=3)
BOTH = pytest.mark.parametrize("ov", ["kronecker", "compacter"])
OPTIONS = {
    "aligned": {},
    "transposed": {"layout": "transposed"},
    "permuted": {"permuted_share": 0.5, "layout_seed": 3},
    "vocabulary": {"layout": "vocabulary", "phm_dim": 2},
    "own layers": {"shared_phm_rule": False},
    "rank 2": {"phm_rank": 2},
}
IN_EVERY_LAYOUT = pytest.mark.parametrize(
    ("ov", "name"),
    [("kronecker", name) for name in OPTIONS if name != "rank 2"] + [("compacter", name) for name in OPTIONS],
)
"""Only s t has a rank."""


def random_map(ov, options, runs=(), task=TASK):
    linear_map = maps[ov].of(None, options, "entries").placed(TokenAxes.of_vocabulary(task))
    assert isinstance(linear_map, Kronecker)
    generator = torch.Generator().manual_seed(0)
    shapes = linear_map.shapes(task.d_vocab, task.d_vocab)
    return linear_map, {
        name: torch.randn(*runs, *shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


@IN_EVERY_LAYOUT
def test_the_grid_is_numpys_kron_and_the_rest_is_dense_or_zero(ov, name):
    options = OPTIONS[name]
    linear_map, p = random_map(ov, options)
    W, layout = linear_map.product(p).numpy(), linear_map.token_layout
    A = p["A"].numpy().reshape(layout.layers, -1, *layout.a_shape)
    B = (p["B"] if ov == "kronecker" else p["s"] @ p["t"]).numpy().reshape(layout.layers, -1, *layout.b_shape)
    side_by_side = [sum(np.kron(a, b) for a, b in zip(*ab, strict=True)) for ab in zip(A, B, strict=True)]
    grid = np.concatenate(side_by_side, axis=1)[np.ix_(layout.rows, layout.columns)]
    n, first = TASK.n_subjects, TASK.n_inputs
    np.testing.assert_allclose(W[:n, first:], grid, atol=1e-12)
    assert not W[:n, :first].any()
    dense = p["D_V"] @ p["D_O"] if ov == "kronecker" else p["D_V"] @ p["D_M"] @ p["D_O"]
    np.testing.assert_allclose(W[n:], dense.numpy(), atol=1e-12)
    assert p["D_V"].shape == (TASK.d_vocab - n, TASK.n_inputs - n)


@IN_EVERY_LAYOUT
@pytest.mark.parametrize("runs", [(), (3,)])
def test_gradients_equal_autograd_in_every_layout(ov, name, runs):
    linear_map, p = random_map(ov, OPTIONS[name], runs)
    leaves = {name: value.clone().requires_grad_() for name, value in p.items()}
    W = linear_map.product(leaves)
    grad = torch.linspace(-1, 1, W.numel(), dtype=torch.float64).view_as(W)
    wanted = torch.autograd.grad(W, list(leaves.values()), grad)
    for (key, got), expected in zip(linear_map.gradients(p, grad).items(), wanted, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12, msg=key)


def test_shapes_are_those_that_users_know():
    _, phm = random_map("kronecker", {"layout": "vocabulary", "phm_dim": 2})
    assert phm["A"].shape == (2, 2, 2)
    assert phm["B"].shape == (2, 8, 4)
    _, compacter = random_map("compacter", {"layout": "vocabulary", "phm_dim": 4, "phm_rank": 3})
    assert compacter["A"].shape == (4, 4, 4)
    assert compacter["s"].shape == (4, 4, 3)
    assert compacter["t"].shape == (4, 3, 2)
    _, own = random_map("kronecker", {"shared_phm_rule": False})
    assert own["A"].shape == (8, 4, 4)


def test_runs_of_different_tokens_are_not_stacked():
    """Two tasks of one shape, subjects in another order: the same shapes, another product."""
    tasks = [
        FactRecallTask.from_mapping(facts, [0, 1], [True, False] * 2)
        for facts in ([0, 0, 1, 1], [0, 1, 1, 0])
    ]
    keys = {
        ov: {stack_key(RunConfig(task, ModelConfig(ov=ov), TrainConfig())) for task in tasks} for ov in KINDS
    }
    assert {ov: len(found) for ov, found in keys.items()} == {"factorized": 1, "kronecker": 2}


@BOTH
def test_the_start_is_that_of_the_layer(ov):
    task = FactRecallTask(20, 1, 3)
    found = initial_weights(task, ModelConfig(ov=ov, ov_options={"phm_init_range": 0.01}, dtype="float64"), 0)
    assert float(found.ov["A"].std()) == pytest.approx(0.01, rel=0.05)
    for name in {"B", "s", "t"} & set(found.ov):
        value = found.ov[name]
        bound = (2 * 6 / sum(value.shape[-2:])) ** 0.5
        assert 0.95 * bound < float(value.abs().max()) <= bound
        assert float(value.std()) == pytest.approx(bound / 3**0.5, rel=0.15)
    entries = initial_weights(task, ModelConfig(ov=ov, init="entries", init_scale=0.5, dtype="float64"), 0)
    for value in entries.ov.values():
        if value.numel() > 500:
            assert float(value.std()) == pytest.approx(0.5 * task.d_vocab**-0.5, rel=0.1)


def test_a_fixed_rule_is_not_trained_and_has_no_norm(tmp_path):
    recipe = TrainConfig(steps=10, batch_size=12, log_every=5, snapshots=2, lr=0.01, device="cpu")
    for ov in ("kronecker", "compacter"):
        model = ModelConfig(ov=ov, ov_options={"learn_phm": False})
        run = train(TASK, model, recipe, tmp_path / ov, progress=False)
        before = initial_weights(TASK, model, recipe.seed).ov
        assert torch.equal(run.weights.ov["A"], before["A"])
        other = "B" if ov == "kronecker" else "s"
        assert not torch.equal(run.weights.ov[other], before[other])
        assert run.weights.linear_map.norm is None
        assert torch.equal(load_run(tmp_path / ov).weights.W_OV, run.weights.W_OV)


@pytest.mark.slow
def test_its_norm_is_tracked_and_told(tmp_path):
    recipe = TrainConfig(steps=60, batch_size=24, log_every=20, snapshots=2, lr=0.02, device="cpu")
    model = ModelConfig(ov="kronecker", init="entries", train_attention=False)
    run = train(TASK, model, recipe, tmp_path / "run", progress=False)
    assert isinstance(run.weights.linear_map.norm, KroneckerNorm)
    assert run.history["gap_kronecker"].iloc[-1] >= 0
    assert analyze_run(load_run(tmp_path / "run")).norm == "kronecker"
    told = describe_run(load_run(tmp_path / "run"))
    assert "kronecker norm:" in told
    assert "max-margin solution, frozen attention: 0.0000" in told.replace("-0.0000", "0.0000")


def descended(ov, log10_time, **options):
    return long_descent(TASK_OF_THREE, ov, ov_options=options, log10_time=log10_time, logit_step=0.5)


@pytest.mark.slow
def test_descent_goes_where_the_layout_predicts():
    aligned = descended("kronecker", 4.0)
    assert abs(aligned.beta) < 0.05
    last = aligned.history.iloc[-1]
    assert last["dual_bound"] <= last["norm_at_margin_1"]
    assert abs(descended("compacter", 8.0, layout="transposed").beta) < 0.05
    assert descended("compacter", 20.0).beta == pytest.approx(aligned_compacter(TASK_OF_THREE).beta, abs=0.1)


@pytest.mark.slow
def test_a_vocabulary_in_order_deduces_under_a_phm_layer():
    task = FactRecallTask(4, 1, 3, n_noise=0, seq_len=3)
    found = long_descent(task, "kronecker", ov_options={"layout": "vocabulary"}, log10_time=8.0)
    assert found.beta > 0.5


def test_bad_options_are_refused():
    with pytest.raises(ConfigError, match="phm_init_range is the size of A with init='product'"):
        ModelConfig(ov="kronecker", init="entries", ov_options={"phm_init_range": 0.1})
    with pytest.raises(ConfigError, match="phm_rank must be >= 1, got 0"):
        ModelConfig(ov="compacter", ov_options={"phm_rank": 0})
    with pytest.raises(ConfigError, match="d_head must be None for ov='kronecker'"):
        _ = ModelConfig(ov="kronecker", d_head=4).linear_map
    with pytest.raises(ConfigError, match=r"16 subjects and 8 answers: one of 1, 2, 4, 8, got 3"):
        ModelConfig(ov="kronecker", ov_options={"layout": "vocabulary", "phm_dim": 3}).placed_map(TASK)
    for linear_map in (Kronecker(), Compacter()):
        with pytest.raises(ConfigError, match=r"needs to know its tokens: ask for placed"):
            linear_map.shapes(TASK.d_vocab, TASK.d_vocab)
