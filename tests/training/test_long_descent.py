"""Long descent: beside plain descent, our own training and the reduced flow; resumed; bad input."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, train
from ocr_interp.errors import ConfigError, RunError, TrainingDivergedError
from ocr_interp.maps.factorized import Factorized
from ocr_interp.models.starts import initial_weights
from ocr_interp.theory import SymmetricFactors, saddle_solution, symmetric_flow
from ocr_interp.training import long_descent as module
from ocr_interp.training.long_descent import long_descent

TASK = FactRecallTask(4, 1, 3, n_noise=0, seq_len=3)


@pytest.mark.parametrize("ov", ["factorized", "non_factorized"])
def test_with_a_fixed_rate_it_is_our_training(ov):
    model = ModelConfig(ov=ov, train_attention=False, init_scale=0.1, dtype="float64")
    recipe = TrainConfig.gradient_descent(steps=60, lr=0.5, log_every=60, snapshots=0, device="cpu")
    run = train(TASK, model, recipe, progress=False)
    weights = initial_weights(TASK, model, recipe.seed)
    rows = weights.linear_map.token_rows
    start = {
        k: v[: TASK.n_inputs] if k in rows or ov == "non_factorized" else v for k, v in weights.ov.items()
    }
    found = long_descent(
        TASK,
        ov,
        start=start,
        d_head=TASK.d_vocab if ov == "factorized" else None,
        outputs="vocabulary",
        inputs="eos",
        lr=0.5,
        log_every=60,
        log10_time=np.log10(29.9),
    )
    assert found.history["step"].iloc[-1] == 60
    np.testing.assert_allclose(found.W, run.effective_W[: TASK.n_inputs], rtol=1e-8, atol=1e-12)


@pytest.mark.slow
def test_growing_steps_go_where_small_fixed_ones_go():
    far = long_descent(TASK, entries=0.2, log10_time=3, logit_step=0.01, relative_step=0.005, log_every=5)
    near = long_descent(TASK, entries=0.2, log10_time=3, lr=0.2, log_every=10)
    for log10_time in (2.0, 2.9):
        assert far.beta_at(log10_time) == pytest.approx(near.beta_at(log10_time), abs=2e-3)
    margins = [np.interp(2.9, d.history["log10_time"], d.history["margin"]) for d in (far, near)]
    assert margins[0] == pytest.approx(margins[1], rel=2e-3)


@pytest.mark.slow
def test_it_follows_the_reduced_flow():
    start = SymmetricFactors.normal(np.random.default_rng(0), 0.05)
    W_V, W_O = start.at_full_size(TASK)
    path = symmetric_flow(TASK, start, log10_time=60)
    found = long_descent(
        TASK,
        start={"W_V": torch.from_numpy(W_V), "W_O": torch.from_numpy(W_O)},
        d_head=W_V.shape[1],
        log10_time=50,
    )
    for log10_time in (3, 10, 49):
        flow = np.interp(log10_time * np.log(10), path.log_time[1:], path.beta[1:])
        assert found.beta_at(log10_time) == pytest.approx(flow, abs=3e-3)


@pytest.mark.slow
def test_from_a_small_start_it_is_at_the_saddle():
    found = long_descent(TASK, entries=1e-4, log10_time=60)
    assert found.beta == pytest.approx(saddle_solution(TASK).beta, abs=0.02)
    last = found.history.iloc[-1]
    assert last["held_out_accuracy"] == 1
    assert last["dual_bound"] <= saddle_solution(TASK).objective <= last["norm_at_margin_1"]
    assert last["log10_loss"] == pytest.approx(-60, abs=3)


@pytest.mark.slow
def test_resumed_it_has_the_same_bits(tmp_path):
    whole = long_descent(TASK, log10_time=8)
    file = tmp_path / "descent.safetensors"
    half = long_descent(TASK, log10_time=2, file=file)
    assert half.complete
    found = long_descent(TASK, log10_time=8, file=file)
    np.testing.assert_array_equal(found.W, whole.W)
    assert found.history.equals(whole.history)
    again = long_descent(TASK, log10_time=8, file=file)
    assert again.history.equals(whole.history)


@pytest.mark.slow
def test_interrupted_it_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    import contextlib

    file, asked = tmp_path / "descent.safetensors", iter([False, False, True])

    @contextlib.contextmanager
    def pressed():
        yield lambda: next(asked)

    with monkeypatch.context() as patch:
        patch.setattr(module, "asked_to_stop", pressed)
        assert not long_descent(TASK, log10_time=8, file=file).complete
    np.testing.assert_array_equal(
        long_descent(TASK, log10_time=8, file=file).W, long_descent(TASK, log10_time=8).W
    )


def test_files_of_others_and_damaged_ones_are_refused(tmp_path):
    file = tmp_path / "descent.safetensors"
    long_descent(TASK, log10_time=1, file=file)
    with pytest.raises(RunError, match="another run"):
        long_descent(TASK, log10_time=1, entries=0.02, file=file)
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        long_descent(TASK, log10_time=2, file=file)


@dataclass(frozen=True, eq=False)
class HalfFrozen(Factorized):
    """W_O is given and not trained."""

    frozen = frozenset({"W_O"})


def test_frozen_parameters_stay():
    W_O = torch.randn(8, 8, dtype=torch.float64)
    start = {"W_V": 0.01 * torch.ones(18, 8, dtype=torch.float64), "W_O": W_O}
    found = long_descent(TASK, HalfFrozen(d_head=8), start=start, log10_time=2)
    assert torch.equal(found.parameters["W_O"], W_O)
    assert found.history["margin"].iloc[-1] > found.history["margin"].iloc[0]


def test_a_rate_that_is_too_large_is_said(tmp_path):
    file = tmp_path / "descent.safetensors"
    with pytest.raises(TrainingDivergedError, match="lower lr"):
        long_descent(TASK, entries=1.0, lr=1e200, log10_time=300, file=file)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"ov": "factorised"}, ConfigError, "factorized"),
        ({"entries": 0.0}, ConfigError, "entries"),
        ({"lr": -1.0}, ConfigError, "lr"),
        ({"log_every": 0}, ConfigError, "log_every"),
        ({"start": {"W_V": torch.ones(2, 2)}}, ConfigError, "start must have the parameters"),
        ({"lr": 0.1, "max_steps": 20}, RunError, "max_steps"),
    ],
)
def test_what_it_refuses(options, error, says):
    with pytest.raises(error, match=says):
        long_descent(TASK, **options)
