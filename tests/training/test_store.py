"""Run directories: which are taken, which are left alone, other processes, and full disks."""

import os
import shutil
import threading

import pytest
from run_files import MODELS, Child, content, differing, train_into

from ocr_interp.errors import RunBusyError, RunError
from ocr_interp.training.store import load_run


def test_another_configuration_is_refused_with_its_differences(run_dir):
    before = content(run_dir)
    with pytest.raises(RunError, match=r"\(train\.lr: 0\.1 != 0\.005; train\.seed: 3 != 0\): .*run_dir"):
        train_into(run_dir, lr=0.1, seed=3)
    with pytest.raises(RunError, match=r"model\.ov: 'non_factorized' != 'factorized'"):
        train_into(run_dir, model=MODELS["non_factorized"])
    assert differing(content(run_dir), before) == []


def test_a_whole_number_is_the_same_configuration(tmp_path):
    train_into(tmp_path / "run", lr=1, optimizer="sgd")
    assert train_into(tmp_path / "run", lr=1.0, optimizer="sgd").status == "finished"


# --- directories -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["notes.txt", "history.csv", "checkpoint/other.bin", "snapshots/photo.png"])
def test_a_directory_with_other_files_is_left_alone(tmp_path, name):
    path = tmp_path / "home" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    with pytest.raises(RunError, match=r"home is no run directory \(no config\.json, but .*a new one"):
        train_into(tmp_path / "home")
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before
    assert path.read_text() == "mine"


def test_a_file_is_no_run_directory(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(RunError, match=r"run_dir must be a directory, got the file .*file"):
        train_into(path)
    with pytest.raises(RunError, match="cannot make the run directory"):
        train_into(path / "below")
    for missing in (path, path / "below", tmp_path / "nothing"):
        with pytest.raises(RunError, match="no run directory"):
            load_run(missing)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_empty_and_deep_directories_are_made(tmp_path):
    (tmp_path / "empty").mkdir()
    assert train_into(str(tmp_path / "empty")).path == tmp_path / "empty"
    assert train_into(tmp_path / "a" / "b" / "c").status == "finished"


def test_two_trainings_of_one_process_do_not_share_a_directory(tmp_path):
    errors = []

    def try_the_same(row):
        if row["step"] == 10:
            thread = threading.Thread(target=attempt)
            thread.start()
            thread.join()

    def attempt():
        try:
            train_into(tmp_path / "run")
        except RunError as error:
            errors.append(error)

    assert train_into(tmp_path / "run", on_log=try_the_same).status == "finished"
    assert [type(error) for error in errors] == [RunBusyError]


# --- another process, and a full disk --------------------------------------------------------------------


@pytest.mark.slow
def test_a_directory_in_use_is_busy_until_the_other_process_is_gone(tmp_path):
    recipe = {"steps": 10**6, "log_every": 5}
    busy = pytest.raises(RunBusyError, match=r"run is in use by another process.*another run_dir")
    with Child(tmp_path / "run", recipe, "say_when_logged"), busy:
        train_into(tmp_path / "run", **recipe)
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    (tmp_path / "run" / "config.json").unlink()
    for leftover in [*(tmp_path / "run").glob("*.csv"), *(tmp_path / "run" / "snapshots").iterdir()]:
        leftover.unlink()
    assert train_into(tmp_path / "run").status == "finished", "the lock died with its process"


@pytest.mark.slow
def test_a_limit_on_file_size_keeps_the_last_checkpoint(finished, tmp_path):
    """The kernel refuses to write more than 1,000 bytes to a file, from step 25 on."""
    with Child(tmp_path / "run", {}, "full_disk", at=25) as child:
        code, out, err = child.result()
    assert (code, err) == (0, "")
    assert out.startswith("RunError cannot write ")
    assert "What was written before is intact" in out
    run = load_run(tmp_path / "run")
    assert (run.step, run.status) == (20, "unfinished")
    assert not [name for name in content(tmp_path / "run") if ".tmp-" in name]
    assert train_into(tmp_path / "run").status == "finished"
    assert differing(content(tmp_path / "run"), content(finished)) == []


@pytest.mark.slow
def test_a_disk_that_fills_up_at_any_write(finished, tmp_path, monkeypatch):
    sync, expected = os.fsync, content(finished)

    def full_from(count):
        written = []

        def refuse(descriptor):
            written.append(descriptor)
            if len(written) >= count:
                raise OSError(28, "No space left on device")
            sync(descriptor)

        return refuse

    for count in range(1, 14, 2):
        run_dir = tmp_path / str(count)
        monkeypatch.setattr(os, "fsync", full_from(count))
        with pytest.raises(RunError, match=r"cannot write .*No space left on device.*same run_dir"):
            train_into(run_dir)
        monkeypatch.setattr(os, "fsync", sync)
        assert not [name for name in content(run_dir) if ".tmp-" in name]
        assert train_into(run_dir).status == "finished"
        assert differing(content(run_dir), expected) == [], f"full at write {count}"
