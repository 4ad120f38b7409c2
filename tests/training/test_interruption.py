"""Training that is killed, interrupted or dies while it writes, and then goes on to the same bytes."""

import os
import random
import signal
import threading
import time

import pytest
from run_files import MODELS, Child, Killed, content, differing, stop_at, train_into

from ocr_interp.training.store import load_run

RECIPES = {
    "adamw": {},
    "sgd": {"optimizer": "sgd", "lr": 0.1},
    "momentum": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9},
    "noise_free": {"data": "noise_free"},
    "exhaustive": {"data": "exhaustive"},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        *((model, "adamw") for model in MODELS),
        *(("factorized", recipe) for recipe in RECIPES if recipe != "adamw"),
    ],
)
def test_going_on_equals_never_having_stopped(model, recipe, tmp_path):
    whole, parts, options = (
        tmp_path / "whole",
        tmp_path / "parts",
        {"model": MODELS[model], **RECIPES[recipe]},
    )
    train_into(whole, **options)
    for step in (15, 20, 35):  # between checkpoints, on one, before the end
        with pytest.raises(Killed):
            train_into(parts, on_log=stop_at(step), **options)
    rows = []
    train_into(parts, on_log=rows.append, **options)
    assert rows[0]["step"] == 35, "it went on from the checkpoint at step 30"
    assert differing(content(whole), content(parts)) == []


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_death_around_any_write_loses_nothing(when, tmp_path, monkeypatch):
    """Every moment at which files change: just before and just after each replacement."""
    whole, replace, writes = tmp_path / "whole", os.replace, []
    monkeypatch.setattr(os, "replace", lambda *args: (writes.append(args), replace(*args)))
    train_into(whole)
    n_writes, expected = len(writes), content(whole)
    assert n_writes > 10

    def die_at(count):
        left = [count]

        def dying(source, target):
            left[0] -= 1
            if left[0] == 0 and when == "before":
                raise Killed
            replace(source, target)
            if left[0] == 0:
                raise Killed

        return dying

    for count in range(1, n_writes + 1):
        run_dir = tmp_path / str(count)
        monkeypatch.setattr(os, "replace", die_at(count))
        with pytest.raises(Killed):
            train_into(run_dir)
        monkeypatch.setattr(os, "replace", replace)
        assert train_into(run_dir).status == "finished"
        assert differing(content(run_dir), expected) == [], f"death {when} write {count}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "which"),
    [(0, signal.SIGINT), (5, signal.SIGINT), (10, signal.SIGTERM), (35, signal.SIGTERM)],
)
def test_a_request_to_stop_keeps_what_is_done(step, which, tmp_path):
    def press(row):
        if row["step"] == step:
            signal.raise_signal(which)

    before, whole = signal.getsignal(which), tmp_path / "whole"
    run = train_into(tmp_path / "run", on_log=press)
    assert (run.status, run.step, run.complete) == ("interrupted", step, False)
    assert run.history["step"].iloc[-1] == step
    assert signal.getsignal(which) is before
    again = load_run(tmp_path / "run")
    assert (again.status, again.step) == ("interrupted", step)
    assert train_into(tmp_path / "run").status == "finished"
    train_into(whole)
    assert differing(content(tmp_path / "run"), content(whole)) == []
    assert train_into(None, on_log=press).status == "interrupted", "also without a run_dir"


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    def press_twice(row):
        signal.raise_signal(signal.SIGINT)
        while signal.getsignal(signal.SIGINT) is not before:  # two at once would be one to Python
            time.sleep(0.001)
        signal.raise_signal(signal.SIGINT)

    # A suite that a shell started in the background inherits an ignored SIGINT.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            train_into(tmp_path / "run", on_log=press_twice)
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert train_into(tmp_path / "run").status == "finished"


def test_training_in_a_thread_works():
    """Signals belong to the main thread; elsewhere training simply does without."""
    runs = []
    thread = threading.Thread(target=lambda: runs.append(train_into(None)))
    thread.start()
    thread.join()
    assert runs[0].history.equals(train_into(None).history)


LONG = {"steps": 2500, "log_every": 20, "checkpoint_every": 40, "snapshots": 40}


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """(bytes of a run that nothing stopped, its seconds)."""
    path, start = tmp_path_factory.mktemp("long") / "run", time.perf_counter()
    train_into(path, **LONG)
    return content(path), time.perf_counter() - start


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_killed_again_and_again_and_resumed(seed, long_run, tmp_path):
    expected, seconds = long_run
    rng, run_dir, kills, progress = random.Random(seed), tmp_path / "run", 0, []
    for attempt in range(4):
        with Child(run_dir, LONG, "train" if attempt == 0 else "say_when_logged") as child:
            time.sleep(0 if attempt == 0 else rng.uniform(0, seconds / 8))
            child.send_signal(signal.SIGKILL)
            kills += child.result()[0] == -signal.SIGKILL
        if (run_dir / "checkpoint" / "state.safetensors").exists():
            progress.append(load_run(run_dir).step)
    assert kills >= 1, "the run ended before it could be killed: make it longer"
    assert progress == sorted(progress)
    assert progress[-1] > 0
    run = train_into(run_dir, **LONG)
    assert run.status == "finished"
    assert differing(content(run_dir), expected) == []


@pytest.mark.slow
def test_sigterm_to_another_process(long_run, tmp_path):
    expected, seconds = long_run
    with Child(tmp_path / "run", LONG, "say_when_logged") as child:
        time.sleep(seconds / 8)
        child.send_signal(signal.SIGTERM)
        code, out, err = child.result()
    assert (code, err) == (0, "")
    run = load_run(tmp_path / "run")
    assert out == f"interrupted {run.step}\n"
    assert run.status == "interrupted"
    assert 0 <= run.step < LONG["steps"]
    train_into(tmp_path / "run", **LONG)
    assert differing(content(tmp_path / "run"), expected) == []
