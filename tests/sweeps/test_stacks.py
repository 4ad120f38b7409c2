"""Runs that are trained together against each of them trained alone: the same bits."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import TrainingDivergedError
from ocr_interp.storage.tables import history_table
from ocr_interp.sweeps import stacks
from ocr_interp.sweeps.stacks import SweepStopped, make_stacks, train_stack
from ocr_interp.task import FactRecallTask
from ocr_interp.training.lockstep import stack_key
from ocr_interp.training.loop import train

TASK = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
OTHER_TASK = FactRecallTask(3, 2, 1, n_noise=2, seq_len=5)
RECIPE = TrainConfig(steps=20, batch_size=12, log_every=5, device="cpu", snapshots=0)
MUON = {"optimizer": "muon", "lr": 0.02}
KINDS = {
    "factorized": {},
    "narrow": {"d_head": 2},
    "non-factorized": {"ov": "non_factorized"},
    "softmax": {"d_head": 4, "attention": "softmax"},
    "softmax non-factorized": {"ov": "non_factorized", "attention": "softmax"},
    "frozen": {"train_attention": False},
    "frozen softmax": {"train_attention": False, "attention": "softmax"},
    "float64": {"d_head": 4, "dtype": "float64"},
    "noise-free": {"data": "noise_free"},
    "noise-free softmax": {"data": "noise_free", "attention": "softmax", "d_head": 3},
    "exhaustive": {"data": "exhaustive", "d_head": 3},
    "descent": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.5},
    "signs": {"optimizer": "signsgd", "lr": 1e-3, "momentum": 0.5},
    "muon": MUON,
    "muon in float32": {**MUON, "muon_precision": "float32"},
    "muon then adamw": {**MUON, "second_optimizer": "adamw", "second_lr": 0.01, "switch_step": 7},
    "adamw then muon": {"second_optimizer": "muon", "second_lr": 0.02, "switch_step": 12},
}
MODEL_FIELDS = {"ov", "d_head", "attention", "train_attention", "dtype"}


def run_config(task=TASK, **fields):
    model = {name: value for name, value in fields.items() if name in MODEL_FIELDS | {"init_scale"}}
    recipe = {name: value for name, value in fields.items() if name not in model}
    return RunConfig(task, ModelConfig(**model), replace(RECIPE, **recipe))


def assert_as_alone(record):
    alone = train(record.config.task, record.config.model, record.config.train, progress=False)
    assert record.status == alone.status
    pd.testing.assert_frame_equal(history_table(record.rows), alone.history, check_exact=True)
    for name, tensor in alone.weights.tensors().items():
        assert torch.equal(record.weights.tensors()[name], tensor), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_run_in_a_stack_has_the_bits_of_the_run_alone(kind):
    """Other seeds, rates, starts and a second task of the same shape beside it."""
    fields = KINDS[kind]
    lr = fields.get("lr", 5e-3)
    configs = [
        run_config(**fields),
        run_config(**{**fields, "seed": 1, "lr": 2 * lr}),
        run_config(**{**fields, "seed": 2, "weight_decay": 0.0, "init_scale": 0.5}),
    ]
    if fields.get("data", "noisy") == "noisy":
        configs.append(run_config(OTHER_TASK, **fields))
    for record in train_stack(configs, keep_weights=True):
        assert_as_alone(record)


@pytest.mark.slow
def test_the_same_at_the_papers_setting():
    """Where matrix products are large enough for other kernels."""
    for fields in ({}, {"d_head": 7}, {"ov": "non_factorized"}):
        recipes = [TrainConfig(seed=s, steps=40, log_every=20, device="cpu") for s in range(5)]
        configs = [RunConfig(FactRecallTask(), ModelConfig(**fields), recipe) for recipe in recipes]
        for record in train_stack(configs, keep_weights=True):
            assert_as_alone(record)


@pytest.mark.slow
def test_runs_that_end_early_leave_the_others_as_they_are():
    """One learns, one diverges, the rest go on; each as alone, with optimiser states that were moved."""
    easy = {"data": "noise_free", "lr": 0.02, "steps": 200, "weight_decay": 0.0, "d_head": 4}
    configs = [
        run_config(**easy, seed=0),
        run_config(**{**easy, "lr": 1e25}),
        run_config(**easy, seed=2, stop_when_learned=0.3),
        run_config(**easy, seed=2, stop_when_learned=0.2),
    ]
    records = train_stack(configs, keep_weights=True)
    assert [r.status for r in records] == ["finished", "diverged", "learned", "learned"]
    with pytest.raises(TrainingDivergedError) as alone:
        train(TASK, configs[1].model, configs[1].train, progress=False)
    assert str(alone.value).startswith(records[1].message)
    assert "not finite at step" in records[1].message
    assert records[1].weights is None
    for k in (0, 2, 3):
        assert_as_alone(records[k])


def test_a_start_that_is_not_finite_diverges_at_step_0():
    records = train_stack([run_config(init_scale=1e30), run_config()])
    assert [r.status for r in records] == ["diverged", "finished"]
    assert "at step 0" in records[0].message
    assert records[0].rows == []


def test_stacks_hold_runs_of_one_shape_in_order():
    configs = [run_config(d_head=d, seed=s) for s in range(3) for d in (2, 3)]
    made = make_stacks(configs, 2)
    assert [[(c.model.d_head, c.train.seed) for c in stack] for stack in made] == [
        [(2, 0), (2, 1)],
        [(2, 2)],
        [(3, 0), (3, 1)],
        [(3, 2)],
    ]
    for fields in ({"ov": "non_factorized"}, {"optimizer": "sgd"}, {"log_every": 4}, {"data": "noise_free"}):
        assert stack_key(run_config(**fields)) != stack_key(run_config())
    for fields in ({"lr": 1.0}, {"seed": 4}, {"init_scale": 2.0}, {"weight_decay": 0.0}):
        assert stack_key(run_config(**fields)) == stack_key(run_config())


def test_lack_of_memory_is_of_one_run(monkeypatch):
    """The stack does not fit; alone, all but one do."""
    lockstep = stacks.Lockstep

    def small_memory(configs):
        if len(configs) > 1 or configs[0].train.seed == 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return lockstep(configs)

    monkeypatch.setattr(stacks, "Lockstep", small_memory)
    records = train_stack([run_config(seed=s) for s in range(3)], keep_weights=True)
    assert [r.status for r in records] == ["finished", "failed", "finished"]
    assert records[1].message.startswith("RuntimeError: DefaultCPUAllocator: can't allocate")
    assert records[1].rows == []
    monkeypatch.undo()
    for k in (0, 2):
        assert_as_alone(records[k])


def test_a_defect_is_seen_whole(monkeypatch):
    def broken(configs):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(stacks, "Lockstep", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        train_stack([run_config()])


def test_a_stack_can_be_told_to_stop():
    asked = []
    with pytest.raises(SweepStopped):
        train_stack([run_config()], stopped=lambda: len(asked) > 1 or asked.append(1))
    assert len(asked) == 2


@pytest.mark.slow
def test_without_certificates_only_the_gaps_are_missing():
    config = run_config(data="noise_free", d_head=4, steps=200)
    one, other = (history_table(train_stack([config], certificates=c)[0].rows) for c in (True, False))
    gaps = ["gap_nuclear", "gap_frobenius"]
    assert other[gaps].isna().all(axis=None)
    assert one[gaps].iloc[-1].notna().all()
    rest = one.columns.difference(gaps)
    pd.testing.assert_frame_equal(one[rest], other[rest], rtol=1e-12)
