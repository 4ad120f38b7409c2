"""Sweeps: results, and what is wrong, which is named before anything is trained or stops nothing else."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import ConfigError, OcrInterpError, UnknownNameError
from ocr_interp.sweeps import engines
from ocr_interp.sweeps.grid import grid_points
from ocr_interp.sweeps.sweep import load_sweep, sweep
from ocr_interp.task import FactRecallTask
from ocr_interp.training.loop import train
from ocr_interp.training.tracking import COLUMNS

AXES = {"d_head": [2, 3], "lr": [0.01, 0.02], "seed": [0, 1]}


# --- results -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_run_equals_that_of_train(tiny_sweep):
    result = tiny_sweep(AXES, keep_weights=True)
    assert result.axes == ("d_head", "lr", "seed")
    assert result.runs["status"].tolist() == ["finished"] * 8
    assert [tuple(row) for row in result.runs[list(AXES)].to_numpy()] == [
        (d, lr, seed) for d in (2, 3) for lr in (0.01, 0.02) for seed in (0, 1)
    ]
    assert result.table.columns.tolist() == ["run", *AXES, "status", *COLUMNS]
    for name in result.runs["run"][[0, 3, 6]]:
        run, config = result.run(name), result.config(name)
        alone = train(config.task, config.model, config.train, progress=False)
        pd.testing.assert_frame_equal(run.history, alone.history, check_exact=True)
        for key, tensor in alone.weights.tensors().items():
            assert torch.equal(run.weights.tensors()[key], tensor)


@pytest.mark.slow
def test_selectors(tiny_sweep):
    result = tiny_sweep(AXES, path=None)
    final, curves = result.final(), result.curves("beta")
    assert len(final) == 8
    assert final["step"].tolist() == [20] * 8
    last = result.table[result.table["step"] == 20]["beta"].tolist()
    assert final["beta"].tolist() == last
    assert curves.columns.tolist() == ["run", *AXES, "step", "beta"]
    assert len(curves) == 8 * 5
    some = result.select(d_head=3, seed=1)
    assert some.final()[["d_head", "seed"]].drop_duplicates().to_numpy().tolist() == [[3, 1]]
    assert len(some.runs) == 2
    assert "2 finished" in repr(some)
    with pytest.raises(UnknownNameError, match=r"unknown column 'd_heads': did you mean 'd_head'"):
        result.select(d_heads=3)
    with pytest.raises(UnknownNameError, match=r"unknown column 'betas': did you mean 'beta'"):
        result.curves("betas")
    with pytest.raises(OcrInterpError, match="no run of this sweep has"):
        result.select(d_head=7)
    with pytest.raises(UnknownNameError, match="unknown run 'x'"):
        result.run("x")
    with pytest.raises(OcrInterpError, match="kept no weights: pass keep_weights=True"):
        result.run(result.runs["run"][0])


def test_whole_configurations_and_lists_of_points(tiny_sweep):
    unbalanced = FactRecallTask.from_mapping([0, 0, 1], [0, 1], [True, False, True], n_noise=2, seq_len=5)
    result = tiny_sweep([{"task": unbalanced, "lr": 0.1}, {"m_train": 2}, {"model.d_head": 2}], path=None)
    assert result.runs["lr"].tolist() == [0.1, 0.005, 0.005]
    assert result.runs["n_pairs"].tolist() == [2, 3, 3]
    assert result.axes == (
        "n_pairs",
        "m_train",
        "m_test",
        "fact_of_subject",
        "implication_of_fact",
        "trained",
        "lr",
        "d_head",
    )
    config = result.config(result.runs["run"][0])
    alone = train(unbalanced, ModelConfig(), config.train, progress=False)
    assert result.final()["train_loss"][0] == alone.history["train_loss"].iloc[-1]


MAPPING = {
    "fact_of_subject": [0, 0, 1, 1],
    "implication_of_fact": [0, 1],
    "trained": [True, False, True, False],
}


@pytest.mark.parametrize("as_column", [list, tuple, np.array, pd.Series])
def test_points_hold_the_lists_of_a_mapping(as_column):
    """As lists or columns; the counts of pairs follow from them, and may stand beside them."""
    point = {name: as_column(values) for name, values in MAPPING.items()}
    expected = FactRecallTask.from_mapping(**MAPPING)
    (made,) = grid_points([{**point, "seed": 3}])
    (spelled,) = grid_points([{**point, "n_pairs": 2, "m_train": None, "m_test": None}])
    assert made.config.task == spelled.config.task == expected
    assert made.values["fact_of_subject"] == (0, 0, 1, 1)
    hash(made.config.task)
    axes = {name: [values] for name, values in MAPPING.items()}
    crossed = grid_points({**axes, "seed": [0, 1], "names": [["a", "b", "c", "d", "x", "y", "z", "u"]]})
    assert [each.config.task.labels[0] for each in crossed] == ["a", "a"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trained": [True]}, r"trained must have one entry a subject \(4\), got 1"),
        ({"n_pairs": 3}, "n_pairs must be the number of facts"),
        ({"names": ["a"]}, "names must name 4 subjects"),
    ],
)
def test_bad_lists_of_a_mapping_name_the_point(change, message):
    with pytest.raises(ConfigError, match=message):
        grid_points([{**MAPPING, **change}])


def test_the_tables_on_disk_are_those_of_the_result(tiny_sweep, tmp_path, same_table):
    result = tiny_sweep(AXES)
    same_table(load_sweep(tmp_path / "sweep"), result)
    for name in ("runs", "table"):
        read = pd.read_csv(tmp_path / "sweep" / f"{name}.csv")
        frame = getattr(result, name)
        assert read.columns.tolist() == frame.columns.tolist()
        for column in ("run", "d_head", "lr", "seed"):
            assert read[column].tolist() == frame[column].tolist()
    assert read["beta"].tolist() == pytest.approx(result.table["beta"].tolist(), rel=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "stack"), [(2, 1), (2, 3), (1, 8)])
def test_workers_and_stacks_change_nothing(tiny_sweep, same_table, workers, stack):
    threads = torch.get_num_threads()
    one, other = tiny_sweep(AXES, path=None), tiny_sweep(AXES, path=None, workers=workers, stack=stack)
    same_table(one, other)
    assert torch.get_num_threads() == threads


# --- failures -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_that_fail_do_not_stop_the_others(tiny_sweep, monkeypatch, stacks_trained, same_table):
    axes = [{"lr": 1e-2}, {"lr": 1e30, "optimizer": "sgd"}, {"lr": 1e-2, "seed": 1}, {"lr": 1e30}]
    original = engines.train_stack

    def no_memory(configs, **options):
        records = original(configs, **options)
        message = "MemoryError: out of memory"
        return [
            dataclasses.replace(r, status="failed", message=message, rows=[]) if r.config.train.seed else r
            for r in records
        ]

    monkeypatch.setattr(engines, "train_stack", no_memory)
    result = tiny_sweep(axes)
    monkeypatch.setattr(engines, "train_stack", original)
    assert result.runs["status"].tolist() == ["finished", "diverged", "failed", "diverged"]
    assert "not finite at step" in result.runs["message"][1]
    assert result.runs["message"][2] == "MemoryError: out of memory"
    final = result.final()
    assert final["status"].tolist() == result.runs["status"].tolist()
    assert math.isnan(final["beta"][2])
    with pytest.raises(OcrInterpError, match=r"has no weights: it diverged \(the loss is not finite"):
        result.run(result.runs["run"][1])
    del stacks_trained[:]
    again = tiny_sweep(axes)
    assert len(stacks_trained) == 1, "a lack of memory is tried again, a divergence is not"
    assert again.runs["status"].tolist() == ["finished", "diverged", "finished", "diverged"]
    same_table(again, tiny_sweep(axes, path=None))


@pytest.mark.parametrize(
    ("axes", "options", "error", "message"),
    [
        ({"d_heads": [1]}, {}, UnknownNameError, r"unknown axis 'd_heads': did you mean 'd_head'"),
        ({"d_head": 3}, {}, ConfigError, r"axis d_head must be a list of values, got 3: write \[3\]"),
        ({"ov": "factorized"}, {}, ConfigError, r"axis ov must be a list of values, got 'factorized'"),
        ({"seed": []}, {}, ConfigError, r"at least one point, got none"),
        ("seed", {}, ConfigError, r"axes must map fields to lists of values, or list points, got 'seed'"),
        ([3], {}, ConfigError, r"a point must map fields to values, got 3"),
        ({"task": [3]}, {}, ConfigError, r"axis task must hold FactRecallTask values, got 3"),
        ({"seed": [0, 1, 0]}, {}, ConfigError, r"got \(seed=0\) and \(seed=0\), which are the same"),
        ({"lr": [0.1, -1.0]}, {}, ConfigError, r"invalid point \(lr=-1\.0\): lr must be a finite number > 0"),
        (
            {"ov": ["factorized", "non_factorized"], "d_head": [3]},
            {},
            ConfigError,
            r"invalid point \(ov=non_factorized, d_head=3\): d_head must be None or d_vocab",
        ),
        (
            {"batch_size": [12, 13]},
            {},
            ConfigError,
            r"invalid point \(batch_size=13\): batch_size must be a multiple of 3",
        ),
        ({"init": ["symmetric"], "d_head": [3]}, {}, ConfigError, r"invalid point \(init=symm.*d_head must"),
        ({"data": ["exhaustive"], "seq_len": [99], "n_noise": [9]}, {}, ConfigError, r"at most 4,194,304"),
        ({"device": ["gpu"]}, {}, ConfigError, r"invalid point \(device=gpu\): device must be"),
        ({"seed": [0]}, {"ray_address": "auto"}, ConfigError, r"ray_address must be None unless"),
        ({"seed": [0]}, {"workers": 0}, ConfigError, r"workers must be >= 1, got 0"),
        ({"seed": [0]}, {"stack": 0}, ConfigError, r"stack must be >= 1, got 0"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_trained(
    tiny_sweep, tmp_path, stacks_trained, axes, options, error, message
):
    with pytest.raises(error, match=message):
        tiny_sweep(axes, **options)
    assert stacks_trained == []
    assert list(tmp_path.iterdir()) == []


def test_defaults_are_the_papers():
    with pytest.raises(ConfigError, match="invalid point"):
        sweep({"batch_size": [253]})
    assert TrainConfig() == TrainConfig.paper()
