"""Sweeps into folders: what is there is kept, what is missing is trained, what is wrong is refused."""

import contextlib
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
import torch

from ocr_interp.errors import ConfigError, OcrInterpError, RunBusyError, RunError, UnknownNameError
from ocr_interp.models.config import ModelConfig
from ocr_interp.sweeps import engines
from ocr_interp.sweeps.sweep import load_sweep, sweep
from ocr_interp.task import FactRecallTask
from ocr_interp.training.config import TrainConfig
from ocr_interp.training.loop import train
from ocr_interp.training.tracking import COLUMNS

AXES = {"d_head": [2, 3], "lr": [0.01, 0.02], "seed": [0, 1]}


@pytest.fixture
def stacks_trained(monkeypatch):
    """The runs of every stack that was trained, by d_head and seed."""
    trained, original = [], engines.train_stack

    def counting(configs, **options):
        trained.append([(c.model.d_head, c.train.lr, c.train.seed) for c in configs])
        return original(configs, **options)

    monkeypatch.setattr(engines, "train_stack", counting)
    return trained


# --- results -------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("workers", "stack"), [(2, 1), (2, 3), (1, 8)])
def test_workers_and_stacks_change_nothing(tiny_sweep, same_table, workers, stack):
    threads = torch.get_num_threads()
    one, other = tiny_sweep(AXES, path=None), tiny_sweep(AXES, path=None, workers=workers, stack=stack)
    same_table(one, other)
    assert torch.get_num_threads() == threads


# --- adding, resuming --------------------------------------------------------------------------------------


def test_values_added_later_do_not_redo_what_is_there(tiny_sweep, stacks_trained, same_table):
    tiny_sweep({**AXES, "seed": [0]})
    assert len(stacks_trained) == 2
    grown = tiny_sweep(AXES)
    assert sorted(run for stack in stacks_trained[2:] for run in stack) == [
        (d, lr, 1) for d in (2, 3) for lr in (0.01, 0.02)
    ]
    del stacks_trained[:]
    same_table(grown, tiny_sweep(AXES, path="afresh"))
    del stacks_trained[:]
    part = tiny_sweep({"seed": [1], "lr": [0.02], "d_head": [3]})
    assert stacks_trained == []
    assert len(part.runs) == 1
    same_table(part, grown.select(d_head=3, lr=0.02, seed=1))


class Child:
    """Another process that sweeps into a folder; `with` waits until it has written some parts."""

    def __init__(self, path, axes, parts, **recipe):
        train = {"steps": 20, "batch_size": 12, "log_every": 5, "device": "cpu", **recipe}
        self.job = {"path": str(path), "axes": axes, "parts": parts, "train": train}

    def __enter__(self):
        command = [sys.executable, str(Path(__file__).with_name("child.py")), json.dumps(self.job)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n", self.process.stderr.read()
        return self

    def __exit__(self, *error):
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.mark.slow
def test_a_kill_loses_only_the_stacks_that_were_going(tiny_sweep, tmp_path, same_table, stacks_trained):
    axes = {"d_head": [2, 3, 4], "lr": [0.01, 0.02], "seed": [0, 1]}
    with Child(tmp_path / "sweep", axes, parts=2):
        pass
    there = len(list((tmp_path / "sweep" / "parts").glob("*.json")))
    assert there >= 2
    resumed = tiny_sweep(axes, stack=2)
    assert len(stacks_trained) == 6 - there
    same_table(resumed, tiny_sweep(axes, path="whole"))


@pytest.mark.slow
def test_a_death_around_any_write_loses_nothing(tiny_sweep, tmp_path, monkeypatch, same_table):
    class Killed(BaseException):
        pass

    axes, replace = {"lr": [0.01, 0.02], "seed": [0, 1]}, os.replace
    whole = tiny_sweep(axes, path="whole", stack=2, keep_weights=True)

    def dying(count, before):
        left = [count]

        def die(source, target):
            left[0] -= 1
            if left[0] == 0 and before:
                raise Killed
            replace(source, target)
            if left[0] == 0:
                raise Killed

        return die

    for count in range(1, 10):  # sweep.json, then two weights and a part twice, then two tables
        for before in (True, False):
            path = f"{count}{before}"
            monkeypatch.setattr(os, "replace", dying(count, before))
            with pytest.raises(Killed):
                tiny_sweep(axes, path=path, stack=2, keep_weights=True)
            monkeypatch.setattr(os, "replace", replace)
            again = tiny_sweep(axes, path=path, stack=2, keep_weights=True)
            same_table(again, whole)
            for name in ("runs", "table"):
                assert (tmp_path / path / f"{name}.csv").exists()
            for name in again.runs["run"]:
                again.run(name)


def test_ctrl_c_ends_with_what_is_written(tiny_sweep, tmp_path, monkeypatch, same_table):
    original, calls = engines.train_stack, []

    def press(configs, **options):
        calls.append(configs)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(configs, **options)

    monkeypatch.setattr(engines, "train_stack", press)
    with pytest.raises(KeyboardInterrupt):
        tiny_sweep(AXES, stack=2)
    monkeypatch.undo()
    assert len(load_sweep(tmp_path / "sweep").runs) == 2
    same_table(tiny_sweep(AXES), tiny_sweep(AXES, path=None))


# --- failures -------------------------------------------------------------------------------------------


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


# --- folders --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_sweeps_do_not_share_a_folder(tiny_sweep, tmp_path):
    long = {"steps": 10**6}
    axes = [{"d_head": 2, "steps": 5}, {"d_head": 3}]
    with (
        Child(tmp_path / "sweep", axes, parts=1, **long),
        pytest.raises(RunBusyError, match=r"sweep is in use by another sweep: wait"),
    ):
        tiny_sweep(AXES)
    assert len(load_sweep(tmp_path / "sweep").runs) == 1, "readable while another sweep writes"
    tiny_sweep({"seed": [0]})


def test_two_sweeps_of_one_process_do_not_share_a_folder(tiny_sweep, monkeypatch):
    errors, original = [], engines.train_stack

    def another(configs, **options):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        return original(configs, **options)

    def attempt():
        try:
            tiny_sweep(AXES)
        except RunBusyError as error:
            errors.append(error)

    monkeypatch.setattr(engines, "train_stack", another)
    tiny_sweep({"seed": [0]})
    assert len(errors) == 1


def test_other_settings_and_other_files_are_refused(tiny_sweep, tmp_path):
    tiny_sweep({"seed": [0]})
    with pytest.raises(RunError, match=r"other settings \(keep_weights=False != True\): pass those"):
        tiny_sweep({"seed": [0]}, keep_weights=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"home is no folder of a sweep \(no sweep\.json, but notes\.txt\)"):
        tiny_sweep({"seed": [0]}, path="home")
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["notes.txt"]
    with pytest.raises(RunError, match=r"must be a folder, got the file"):
        tiny_sweep({"seed": [0]}, path="home/notes.txt")
    with pytest.raises(RunError, match=r"no sweep\.json"):
        load_sweep(tmp_path / "home")


def test_damage_is_noticed(tiny_sweep, tmp_path):
    result = tiny_sweep({"seed": [0]}, keep_weights=True)
    (part,) = (tmp_path / "sweep" / "parts").glob("*.json")
    content = part.read_bytes()
    part.write_bytes(content.replace(b'"seed": 0', b'"seed": 1'))
    with pytest.raises(RunError, match=r"is damaged: restore it, or delete it to train its runs again"):
        tiny_sweep({"seed": [0]}, keep_weights=True)
    part.write_bytes(content)
    (weights,) = (tmp_path / "sweep" / "weights").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-4])
    again = tiny_sweep({"seed": [0]}, keep_weights=True)
    with pytest.raises(RunError, match=r"safetensors is damaged"):
        again.run(again.runs["run"][0])
    assert result.runs["run"][0] == again.runs["run"][0]
    settings = tmp_path / "sweep" / "sweep.json"
    settings.write_text(settings.read_text().replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(RunError, match="format version 2, this version reads up to 1"):
        load_sweep(tmp_path / "sweep")


def test_defaults_are_the_papers():
    with pytest.raises(ConfigError, match="invalid point"):
        sweep({"batch_size": [253]})
    assert TrainConfig() == TrainConfig.paper()
