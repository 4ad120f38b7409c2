"""Files whose digest fits and whose content does not: weights that are NaN, of other shapes, or not there."""

import pytest
import torch
from run_files import content, differing, train_into

from ocr_interp.errors import RunError, RunReadOnlyError
from ocr_interp.storage.folders import FolderKind
from ocr_interp.storage.tensors import read_tensors, write_tensors
from ocr_interp.training.store import RunStore, load_run

FILES = {
    "snapshot": "snapshots/step_00000005.safetensors",
    "weights": "weights.safetensors",
    "checkpoint": "checkpoint/state.safetensors",
}


def forge(run_dir, kind, change):
    """Writes a file anew, with a digest that fits."""
    path = run_dir / FILES[kind]
    tensors, metadata = read_tensors(path, RunStore(run_dir).fingerprint, kind, "")
    change(tensors, metadata)
    write_tensors(path, tensors, metadata)
    return path


def read(run_dir, kind):
    run = load_run(run_dir)
    return run.at(5).weights if kind == "snapshot" else run.weights


def spoiled(value):
    def change(tensors, metadata):
        name = "W_V" if "W_V" in tensors else "parameter.W_V"
        tensors[name].view(-1)[3] = value

    return change


def without(tensors, metadata):
    del tensors["W_V" if "W_V" in tensors else "parameter.W_V"]


def narrower(tensors, metadata):
    name = "W_V" if "W_V" in tensors else "parameter.W_V"
    tensors[name] = tensors[name][:, :1].contiguous()


def stepless(tensors, metadata):
    del metadata["step"]


def with_a_word_for_a_step(tensors, metadata):
    metadata["step"] = "many"


CHANGES = {
    "nan": (spoiled(float("nan")), "W_V must be finite, got NaN or inf"),
    "inf": (spoiled(float("inf")), "W_V must be finite, got NaN or inf"),
    "without": (without, "W_V"),
    "narrower": (narrower, "W_V"),
    "stepless": (stepless, "says no step"),
    "word": (with_a_word_for_a_step, "says no step"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", FILES)
def test_a_file_with_a_fitting_digest_is_not_believed_either(kind, change, run_dir):
    edit, message = CHANGES[change]
    if kind == "checkpoint":
        (run_dir / FILES["weights"]).unlink()  # the run is read from its checkpoint then
        if change in ("nan", "inf"):
            message = "must be finite"
    path = forge(run_dir, kind, edit)
    with pytest.raises(RunError, match=message) as caught:
        read(run_dir, kind)
    assert str(path) in str(caught.value)


def test_training_does_not_go_on_from_a_checkpoint_of_another_shape(run_dir):
    def stopped(tensors, metadata):
        metadata["status"] = "unfinished"
        narrower(tensors, metadata)

    forge(run_dir, "checkpoint", stopped)
    with pytest.raises(RunError, match=r"holds 'W_V' with the shape \(\d+, 1\), this model has"):
        train_into(run_dir)


def test_nothing_changed_is_nothing_refused(run_dir):
    expected = read(run_dir, "snapshot").tensors()
    forge(run_dir, "snapshot", lambda tensors, metadata: None)
    for name, tensor in read(run_dir, "snapshot").tensors().items():
        assert torch.equal(tensor, expected[name])


# --- places where nothing can be written -----------------------------------------------------------------


@pytest.fixture
def read_only(monkeypatch):
    """Locks cannot be taken, as on a file system that is mounted to be read."""

    def refuse(self, path):
        raise RunReadOnlyError(f"cannot make the {self.name} {path}: Read-only file system")

    monkeypatch.setattr(FolderKind, "locked", refuse)


def test_a_finished_run_in_a_read_only_place_is_read(run_dir, read_only):
    before = content(run_dir)
    assert train_into(run_dir).status == "finished"
    assert differing(content(run_dir), before) == []
    with pytest.raises(RunError, match=r"another configuration \(train\.seed: 3 != 0\)"):
        train_into(run_dir, seed=3)


def test_an_unfinished_run_in_a_read_only_place_is_refused(run_dir, read_only, tmp_path):
    (run_dir / FILES["checkpoint"]).unlink()
    for path in (run_dir, tmp_path / "new"):
        with pytest.raises(RunReadOnlyError, match="Read-only file system"):
            train_into(path)
