"""Sweeps into folders: what is there is kept, what is missing is trained, what is wrong is refused."""

import os
import random
import signal
import threading

import pytest
import sweep_elsewhere
from other_process import OtherProcess

from ocr_interp.errors import RunBusyError, RunError
from ocr_interp.sweeps import engines
from ocr_interp.sweeps.sweep import load_sweep

AXES = {"d_head": [2, 3], "lr": [0.01, 0.02], "seed": [0, 1]}


# --- adding, resuming --------------------------------------------------------------------------------------


@pytest.mark.slow
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


class Child(OtherProcess):
    """Another process that sweeps into a folder; `with` waits until it has written some parts."""

    def __init__(self, path, axes, parts, **recipe):
        train = {"steps": 20, "batch_size": 12, "log_every": 5, "device": "cpu", **recipe}
        super().__init__(sweep_elsewhere.main, path, axes, parts, train)

    def __enter__(self):
        assert self.stdout.readline() == "ready\n", self.stderr.read()
        return self


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_sigterm_ends_like_ctrl_c(tiny_sweep, tmp_path, same_table):
    axes = [{"d_head": 2, "steps": 5}, {"d_head": 3}]
    with Child(tmp_path / "sweep", axes, parts=1, steps=10**6) as child:
        child.send_signal(signal.SIGTERM)
        assert child.stderr.read().splitlines()[-1] == "KeyboardInterrupt"
        assert child.wait(60) == 1
    assert len(load_sweep(tmp_path / "sweep").runs) == 1
    assert not list((tmp_path / "sweep").rglob(".tmp-*"))


@pytest.mark.slow
def test_no_digit_of_a_sweep_is_changed_in_silence(tiny_sweep, tmp_path):
    tiny_sweep({"seed": [0]}, keep_weights=True)
    folder, rng = tmp_path / "sweep", random.Random(0)

    def read():
        found = load_sweep(folder)
        weights = [found.run(name).weights.tensors() for name in found.runs["run"]]
        return found.table.to_csv(), found.runs.to_csv(), dict(found.provenance), repr(weights)

    expected, refused = read(), 0
    for path in (folder / "sweep.json", *folder.glob("parts/*.json"), *folder.glob("weights/*")):
        whole = path.read_bytes()
        digits = [at for at in range(8, min(len(whole), 4000)) if chr(whole[at]).isdigit()]
        for at in rng.sample(digits, 25):
            other = rng.choice([digit for digit in "0123456789" if digit != chr(whole[at])])
            path.write_bytes(whole[:at] + other.encode() + whole[at + 1 :])
            try:
                found = read()
            except RunError as error:
                refused += str(path) in str(error)
            else:
                assert found == expected, (path, whole[at - 20 : at + 10])
        path.write_bytes(whole)
    assert refused > 70


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
    settings.write_text(settings.read_text().replace('"format_version": 2', '"format_version": 3'))
    with pytest.raises(RunError, match="format version 3, this version reads up to 2"):
        load_sweep(tmp_path / "sweep")
