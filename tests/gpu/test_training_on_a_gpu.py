"""One-layer training, sweeps, long descent and mitigations on a GPU against the same on the CPU."""

import os
import signal
from dataclasses import asdict, replace
from typing import Any

import on_a_gpu
import pandas as pd
import pytest
import torch
from on_a_gpu import DEVICE, ON_GPU, assert_close, more, waits

from ocr_interp import (
    FactRecallTask,
    ModelConfig,
    TrainConfig,
    sweep,
    train,
)
from ocr_interp.maps import maps
from ocr_interp.mitigation import mitigate, mitigations
from ocr_interp.optim import optimizers
from ocr_interp.training.long_descent import long_descent

pytestmark = on_a_gpu.MARKS

TASK = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
RECIPE = TrainConfig(steps=12, log_every=4, lr=0.02, data="noise_free", snapshots=2, checkpoint_every=4)
KINDS: dict[str, dict[str, Any]] = {
    name: {"ov": name, "ov_options": dict(maps[name].example)} for name in maps
}
for _by in ("relation", "subject", "token", "sequence"):
    KINDS[f"routed by {_by}"] = {"ov": "routed", "ov_options": {"by": _by}}
KINDS["softmax"] = {"attention": "softmax"}
KINDS["frozen"] = {"train_attention": False}
ROUTER: dict[str, Any] = {"by": "sequence", "soft_from_step": 5, "balance": 0.1, "anchor": 0.1}
KINDS["routed in two stages"] = {"ov": "routed", "ov_options": ROUTER}
FLOAT32_MUON: dict[str, Any] = {"optimizer": "muon", "muon_precision": "float32"}
each_kind = pytest.mark.parametrize("kind", list(KINDS))
each_optimizer = pytest.mark.parametrize("optimizer", list(optimizers))


def model_of(kind="factorized", **fields: Any):
    return ModelConfig(**{"dtype": "float64", **KINDS[kind], **fields})


def trained(model, run_dir=None, on_log=None, device=DEVICE, **changes):
    recipe = replace(RECIPE, device=device, **changes)
    return train(TASK, model, recipe, run_dir, progress=False, on_log=on_log)


def assert_same_run(ours, theirs):
    assert_close(ours.history, theirs.history)
    assert_close(dict(ours.weights.tensors()), dict(theirs.weights.tensors()))


def assert_same_bits(ours, theirs):
    pd.testing.assert_frame_equal(ours.history, theirs.history, check_exact=True)
    for name, tensor in theirs.weights.tensors().items():
        assert torch.equal(ours.weights.tensors()[name], tensor), name


# --- training -------------------------------------------------------------------------------------


def test_the_counter_sees_a_wait():
    ones = torch.ones(3, device=DEVICE)
    with waits() as found:
        float(ones.sum())
    assert sum(found.values()) == int(ON_GPU)


@each_kind
def test_training_gives_the_numbers_of_the_cpu(kind):
    ours = trained(model_of(kind))
    assert_same_run(ours, trained(model_of(kind), device="cpu"))
    assert {tensor.device.type for tensor in ours.weights.tensors().values()} == {"cpu"}
    assert {tensor.device.type for tensor in ours.at(0).weights.tensors().values()} == {"cpu"}
    start = ours.at(0).weights.tensors()
    assert any(not torch.equal(tensor, start[name]) for name, tensor in ours.weights.tensors().items())


@each_optimizer
@pytest.mark.parametrize("kind", ["factorized", "non_factorized"])
def test_every_optimizer_gives_the_numbers_of_the_cpu(kind, optimizer):
    """Muon orthogonalises in float32 even in a float64 model, and multiplies small directions up."""
    fields = dict(FLOAT32_MUON) if optimizer == "muon" else {"optimizer": optimizer}
    fields |= {"momentum": 0.5} if "momentum" in optimizers[optimizer].options else {}
    runs = [trained(model_of(kind), device=where, **fields) for where in (DEVICE, "cpu")]
    if optimizer != "muon":
        assert_same_run(*runs)
        return
    for split in ("training_fact", "training_implication"):
        assert_close(*(run.history[f"{split}/loss"].to_numpy() for run in runs), rtol=1e-3, atol=1e-4)
    assert_close(*(dict(run.weights.tensors()) for run in runs), rtol=1e-3, atol=2e-4)


def test_muon_in_bfloat16_and_a_switch_of_optimizers():
    fields: dict[str, Any] = {
        "optimizer": "muon",
        "second_optimizer": "adamw",
        "second_lr": 0.01,
        "switch_step": 6,
    }
    ours, theirs = (trained(model_of(), device=where, **fields) for where in (DEVICE, "cpu"))
    moved = theirs.weights.W_OV - theirs.at(0).weights.W_OV
    assert float((ours.weights.W_OV - theirs.weights.W_OV).norm() / moved.norm()) < 0.05


def test_exhaustive_data_in_float32():
    fields: dict[str, Any] = {"data": "exhaustive", "lr": 1e-3}
    runs = [trained(model_of(dtype="float32"), device=where, **fields) for where in (DEVICE, "cpu")]
    assert_close(*(dict(run.weights.tensors()) for run in runs), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("data", ["noisy", "noise_free", "exhaustive"])
@each_kind
def test_steps_of_training_wait_for_nothing(kind, data):
    if data == "exhaustive" and kind not in ("factorized", "softmax"):
        pytest.skip("the data do not depend on the model")
    fields: dict[str, Any] = {"data": data, "batch_size": 12, "snapshots": 0}

    def counted(steps):
        with waits() as found:
            trained(model_of(kind), steps=steps, log_every=steps, checkpoint_every=steps, **fields)
        return found

    counted(20)  # what happens once, such as starting a library
    few, many = counted(20), counted(80)
    assert not more(many, few)


@each_optimizer
def test_steps_of_every_optimizer_wait_for_nothing(optimizer):
    def counted(steps):
        with waits() as found:
            trained(model_of(), steps=steps, log_every=steps, optimizer=optimizer, snapshots=0)
        return found

    counted(20)
    few, many = counted(20), counted(80)
    assert not more(many, few)


@pytest.mark.parametrize("kind", ["factorized", "kronecker", "routed in two stages", "softmax"])
@pytest.mark.parametrize("fields", [{"data": "noisy", "batch_size": 12}, FLOAT32_MUON, {"optimizer": "sgd"}])
def test_an_interrupted_run_goes_on_to_the_bit(kind, fields, tmp_path):
    model = model_of(kind, dtype="float32")
    whole = trained(model, **fields)

    def stop(row):
        if row["step"] == 8:
            os.kill(os.getpid(), signal.SIGINT)

    first = trained(model, tmp_path / "run", stop, **fields)
    assert (first.status, first.step) == ("interrupted", 8)
    again = trained(model, tmp_path / "run", **fields)
    assert again.status == "finished"
    assert_same_bits(again, whole)


@pytest.mark.skipif(not ON_GPU, reason="there is one device")
def test_a_run_of_another_device_is_refused(tmp_path):
    from ocr_interp.errors import RunError

    def stop(row):
        if row["step"] == 4:
            os.kill(os.getpid(), signal.SIGINT)

    trained(model_of(), tmp_path / "run", stop)
    with pytest.raises(RunError, match=r"train\.device: 'cpu' != 'cuda'"):
        trained(model_of(), tmp_path / "run", device="cpu")


# --- sweeps ---------------------------------------------------------------------------------------

AXES: dict[str, Any] = {"seed": [0, 1, 2], "lr": [0.01, 0.02]}


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_sweep_gives_its_runs_up_to_rounding(kind):
    """Beside runs alone on the GPU, and on the CPU."""
    recipe = replace(RECIPE, device=DEVICE, snapshots=0)
    swept = sweep(AXES, task=TASK, model=model_of(kind), train=recipe, keep_weights=True, progress=False)
    assert set(swept.runs["status"]) == {"finished"}
    for index in (0, 3, 5):
        point = swept.runs.iloc[index]
        alone = trained(model_of(kind), snapshots=0, seed=int(point["seed"]), lr=float(point["lr"]))
        rows = swept.table[swept.table["run"] == point["run"]].reset_index(drop=True)
        assert_close(rows[list(alone.history.columns)], alone.history)


def test_a_sweep_of_noisy_data_gives_its_runs_up_to_rounding():
    recipe = replace(RECIPE, device=DEVICE, snapshots=0, data="noisy", batch_size=12)
    swept = sweep(AXES, task=TASK, model=model_of(), train=recipe, progress=False)
    for _, point in swept.runs.iterrows():
        alone = train(
            TASK, model_of(), replace(recipe, seed=int(point["seed"]), lr=float(point["lr"])), progress=False
        )
        rows = swept.table[swept.table["run"] == point["run"]].reset_index(drop=True)
        assert_close(rows[list(alone.history.columns)], alone.history)


@pytest.mark.parametrize("data", ["noisy", "noise_free"])
def test_steps_of_a_sweep_wait_for_nothing(data):
    def counted(steps):
        recipe = replace(RECIPE, device=DEVICE, steps=steps, log_every=steps, snapshots=0, data=data)
        with waits() as found:
            sweep(AXES, task=TASK, model=model_of(), train=replace(recipe, batch_size=12), progress=False)
        return found

    counted(20)
    few, many = counted(20), counted(80)
    assert not more(many, few)


# --- float64 flows --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"lr": 0.5}, {"scores": 1.0}])
@pytest.mark.parametrize("ov", ["factorized", "kronecker"])
def test_long_descent_gives_the_numbers_of_the_cpu(ov, options, tmp_path):
    given: dict[str, Any] = {"log10_time": 1.5, "log_every": 20, **options}
    theirs = long_descent(TASK, ov, **given)
    ours = long_descent(TASK, ov, device=DEVICE, file=tmp_path / "descent", **given)
    assert_close(ours.history, theirs.history, rtol=1e-6, atol=1e-8)
    assert_close(ours.W, theirs.W, rtol=1e-6, atol=1e-8)
    assert {value.device.type for value in ours.parameters.values()} == {"cpu"}
    further = long_descent(TASK, ov, device=DEVICE, file=tmp_path / "descent", **{**given, "log10_time": 2.0})
    whole = long_descent(TASK, ov, device=DEVICE, **{**given, "log10_time": 2.0})
    pd.testing.assert_frame_equal(further.history, whole.history, check_exact=True)
    assert len(further.history) > len(ours.history)


def test_steps_of_long_descent_wait_for_nothing():
    def counted(steps):
        with waits() as found:
            descent = long_descent(TASK, log10_time=-59.5, log_every=steps, device=DEVICE, lr=1e-60)
        return found, descent.history["step"].iloc[-1]

    counted(20)
    (few, n_few), (many, n_many) = counted(20), counted(80)
    assert (n_few, n_many) == (20, 80)
    assert not more(many, few)


@pytest.mark.parametrize("method", list(mitigations))
def test_mitigations_give_the_numbers_of_the_cpu(method):
    """The optimiser is AdamW here: Muon rounds to bfloat16, on every device otherwise."""
    method = mitigations[method](**({"optimizer": "adamw"} if method == "optimizer" else {}))
    task = FactRecallTask(3, 1, 2, n_noise=0, seq_len=3, implied_relations=2)
    theirs = mitigate(task, "r3", method, entries=0.3, margin=2.0)
    ours = mitigate(task, "r3", method, entries=0.3, margin=2.0, device=DEVICE)
    assert ours.steps == theirs.steps
    assert_close(ours.W, theirs.W, rtol=1e-6, atol=1e-8)
    assert_close(asdict(ours.measured), asdict(theirs.measured), rtol=1e-6, atol=1e-8)
    assert ours.after is not None
    assert theirs.after is not None
    assert_close(asdict(ours.after), asdict(theirs.after), rtol=1e-5, atol=1e-7)
