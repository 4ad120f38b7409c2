"""Training: what it learns, what stops it, and that going on equals never having stopped."""

import math

import numpy as np
import pytest
import torch
from run_files import MODELS, TASK, content, differing, train_into

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.data import population
from ocr_interp.errors import ConfigError, OcrInterpError, TrainingDivergedError
from ocr_interp.models.starts import initial_weights
from ocr_interp.task import SPLITS, TRAINED_SPLITS, FactRecallTask
from ocr_interp.training.loop import train
from ocr_interp.training.store import load_run


def stop_if_called(row):
    raise AssertionError("a complete run is read, not trained")


# --- learning ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("data", ["noisy", "noise_free", "exhaustive"])
@pytest.mark.parametrize("ov", ["factorized", "non_factorized"])
def test_loss_goes_down_until_the_training_set_is_known(ov, data):
    run = train_into(None, model=ModelConfig(ov=ov), data=data, steps=400, log_every=50, lr=0.02)
    loss = run.history["train_loss"]
    assert loss.iloc[-1] < 0.1 < loss.iloc[1]
    assert math.isnan(loss.iloc[0])
    for split in SPLITS[:3]:
        assert run.history[f"{split}/accuracy"].iloc[-1] == 1
    assert run.history["step"].tolist() == list(range(0, 401, 50))
    assert (run.step, run.status, run.complete, run.path) == (400, "finished", True, None)


@pytest.mark.slow
def test_train_loss_is_the_mean_batch_loss_since_the_row_before():
    every = train_into(None, log_every=1).history["train_loss"].to_numpy()[1:]
    tens = train_into(None, log_every=10).history["train_loss"].to_numpy()[1:]
    np.testing.assert_allclose(tens, every.reshape(4, 10).mean(1), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("model", list(MODELS))
def test_training_is_deterministic_and_follows_the_seed(model, tmp_path):
    one, other = train_into(tmp_path / "a", model=MODELS[model]), train_into(None, model=MODELS[model])
    assert one.history.equals(other.history)
    for name, tensor in one.weights.tensors().items():
        assert torch.equal(tensor, other.weights.tensors()[name]), name
    assert not train_into(None, model=MODELS[model], seed=1).history.equals(one.history)


@pytest.mark.slow
def test_the_same_run_in_another_directory_has_the_same_bytes(tmp_path):
    train_into(tmp_path / "a")
    train_into(tmp_path / "b")
    assert differing(content(tmp_path / "a"), content(tmp_path / "b")) == []


@pytest.mark.slow
def test_snapshots_in_memory_are_those_on_disk(tmp_path):
    stored, kept = train_into(tmp_path / "a"), train_into(None)
    assert stored.snapshot_steps == kept.snapshot_steps == stored.config.train.snapshot_steps()
    for step in stored.snapshot_steps:
        for name, tensor in stored.at(step).weights.tensors().items():
            assert torch.equal(tensor, kept.at(step).weights.tensors()[name])
        assert stored.at(step).step == step
    assert torch.equal(stored.at(40).weights.W_V, stored.weights.W_V)
    with pytest.raises(OcrInterpError, match=r"no snapshot at step 3: there are snapshots at \[0, "):
        stored.at(3)


def test_every_row_goes_to_the_callback():
    rows = []
    run = train_into(None, on_log=lambda row: rows.append(dict(row)))
    assert [row["step"] for row in rows] == run.history["step"].tolist()
    assert [row["train_margin"] for row in rows] == run.history["train_margin"].tolist()
    assert rows[0].keys() == set(run.history.columns)


@pytest.mark.slow
def test_stops_at_the_first_row_that_has_learned(tmp_path):
    recipe = {"data": "noise_free", "steps": 2000, "lr": 0.02, "weight_decay": 0.0}
    run = train_into(tmp_path / "run", stop_when_learned=0.5, **recipe)
    assert run.status == "learned"
    assert run.complete
    assert run.step < 2000
    held_out = run.history[["held_out_implication/loss", "held_out_implication/accuracy"]].to_numpy()
    met = (held_out[:, 0] < 0.5) & (held_out[:, 1] == 1)
    assert met.tolist() == [False] * (len(met) - 1) + [True]
    assert (
        train_into(tmp_path / "run", stop_when_learned=0.5, on_log=stop_if_called, **recipe).step == run.step
    )
    assert train_into(None, **{**recipe, "steps": run.step + 5}).status == "finished", "0 never stops"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("m_train", "m_test", "absent"),
    [(0, 2, ("training_fact", "training_implication")), (2, 0, ("held_out_fact", "held_out_implication"))],
)
@pytest.mark.parametrize("data", ["noisy", "noise_free", "exhaustive"])
def test_absent_splits_are_nan_and_the_others_are_not(m_train, m_test, absent, data, tmp_path):
    task = FactRecallTask(3, m_train, m_test, n_noise=2, seq_len=5)
    run = train_into(tmp_path / "run", task=task, data=data, stop_when_learned=0.1)
    assert run.step == 40, "without held-out implications nothing is learned"
    history = load_run(tmp_path / "run").history
    for split in SPLITS:
        columns = [c for c in history.columns if c.startswith(f"{split}/")]
        assert len(columns) == 5
        assert history[columns].isna().all(axis=None) == (split in absent)
        assert history[columns].notna().all(axis=None) == (split not in absent)
    assert history["held_out_margin"].isna().all() == (m_test == 0)
    assert history["train_margin"].notna().all()


@pytest.mark.slow
def test_without_implications_in_training_none_are_known():
    """The control: nothing but the symmetry of the answers is left, so held-out accuracy is chance."""
    task = FactRecallTask(4, 0, 2, n_noise=2, seq_len=5)
    run = train_into(None, task=task, data="noise_free", steps=300, lr=0.02)
    last = run.history.iloc[-1]
    assert last["held_out_fact/accuracy"] == 1
    assert last["held_out_implication/accuracy"] == 0, "the fact itself answers"


@pytest.mark.slow
@pytest.mark.parametrize("train_attention", [True, False])
def test_theorem_3_in_miniature(train_attention):
    """Symmetric start, noise-free full batch, float64: W_OV trained alone never gets below ln |A2|."""
    task, chance = FactRecallTask(4, 1, 2), math.log(4)
    recipe = TrainConfig.gradient_descent(steps=300, log_every=1, lr=0.5, device="cpu", snapshots=0)
    losses = {}
    for ov in ("factorized", "non_factorized"):
        model = ModelConfig(
            ov=ov, init="symmetric", init_scale=3.0, dtype="float64", train_attention=train_attention
        )
        history = train(task, model, recipe, progress=False).history
        assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[1]
        losses[ov] = history["held_out_implication/loss"]
    assert losses["non_factorized"].min() >= chance - 1e-9
    assert losses["factorized"].min() < chance - 1e-9
    assert losses["factorized"].iloc[-1] < losses["non_factorized"].iloc[-1]


# --- divergence ------------------------------------------------------------------------------------------


def first_bad_step(task, lr, steps):
    """Plain gradient descent on the noise-free form, by autograd: the first step with no finite loss."""
    model, n = ModelConfig(d_head=4, dtype="float64", train_attention=False), task.n_inputs
    start, batch = initial_weights(task, model, 0), population(task, TRAINED_SPLITS, dtype=torch.float64)
    W_V, W_O = start.W_V[:n].clone().requires_grad_(), start.W_O.clone().requires_grad_()
    for step in range(steps):
        loss = torch.nn.functional.cross_entropy(batch.counts @ W_V @ W_O, batch.target)
        if not torch.isfinite(loss):
            return step
        for parameter, gradient in zip((W_V, W_O), torch.autograd.grad(loss, (W_V, W_O)), strict=True):
            parameter.data -= lr * gradient
    return None


@pytest.mark.parametrize("log_every", [1, 7, 40])
def test_a_loss_that_is_not_finite_stops_with_its_step(log_every):
    expected = first_bad_step(TASK, 1e20, 40)
    assert expected is not None
    assert expected > 1
    model = ModelConfig(d_head=4, dtype="float64", train_attention=False)
    with pytest.raises(TrainingDivergedError, match=rf"not finite at step {expected} .*lower lr"):
        train(
            TASK,
            model,
            TrainConfig.gradient_descent(lr=1e20, steps=40, log_every=log_every, device="cpu"),
            progress=False,
        )


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("lr", [1e12, 1e18, 1e30])
def test_divergence_keeps_the_last_good_checkpoint(model, lr, tmp_path):
    """Whatever is on disk afterwards was finite: its weights, and the losses it logged."""
    recipe = {"optimizer": "sgd", "lr": lr, "log_every": 1, "checkpoint_every": 1, "weight_decay": 0.0}
    with pytest.raises(TrainingDivergedError, match=r"not finite at step \d+"):
        train_into(tmp_path / "run", model=MODELS[model], **recipe)
    if not (tmp_path / "run" / "checkpoint" / "state.safetensors").exists():
        return  # it diverged before the first checkpoint
    run = load_run(tmp_path / "run")
    assert run.status == "unfinished"
    assert all(torch.isfinite(tensor).all() for tensor in run.weights.tensors().values())
    for split in SPLITS:
        assert np.isfinite(run.history[f"{split}/loss"]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_start_that_is_not_finite_is_named_as_step_0(dtype, tmp_path):
    scale = 1e30 if dtype == "float32" else 1e200
    with pytest.raises(TrainingDivergedError, match=r"not finite at step 0 .*init_scale"):
        train_into(tmp_path / "run", model=ModelConfig(init_scale=scale, dtype=dtype))


def test_bad_configurations_raise_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match="batch_size must be a multiple of 3"):
        train_into(tmp_path / "run", batch_size=10)
    with pytest.raises(ConfigError, match="d_head must be None or d_vocab"):
        train_into(tmp_path / "run", model=ModelConfig(ov="non_factorized", d_head=3))
    with pytest.raises(ConfigError, match="device must be 'auto'"):
        train_into(tmp_path / "run", device="gpu")
    assert list(tmp_path.iterdir()) == []
