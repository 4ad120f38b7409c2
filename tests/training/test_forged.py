"""Files whose digest fits and whose content does not: refused by name, never a traceback, never believed."""

import json

import pytest
import torch
from run_files import content, differing, train_into
from safetensors import safe_open
from safetensors.torch import save_file

from ocr_interp.errors import RunError, RunReadOnlyError
from ocr_interp.storage.folders import FolderKind
from ocr_interp.storage.tensors import write_tensors
from ocr_interp.training.store import load_run

CHECKPOINT, SNAPSHOT = "checkpoint/state.safetensors", "snapshots/step_00000005.safetensors"
WEIGHTS, AVERAGE = "weights.safetensors", "optimizer.W_V.exp_avg"
FILES = {"snapshot": SNAPSHOT, "weights": WEIGHTS, "checkpoint": CHECKPOINT}


def reseal(file, metadata=None, tensors=None):
    """Changes a file's metadata and tensors, which both functions do in place, under a digest that fits."""
    with safe_open(file, framework="pt") as opened:
        told = json.loads(opened.metadata()["ocr_interp"])
        named = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no dict
    told.pop("digest")
    for change, values in ((metadata, told), (tensors, named)):
        if change is not None:
            change(values)
    write_tensors(file, named, told)


def read_all(run):
    return [run.at(step) for step in run.snapshot_steps]


def refused(run_dir, file, message):
    before = content(run_dir)
    with pytest.raises(RunError, match=message) as caught:
        read_all(load_run(run_dir))
    assert str(run_dir / file) in str(caught.value)
    assert differing(content(run_dir), before) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("step"), "it has no 'step'"),
        (lambda m: m.update(step="1e3"), "invalid literal"),
        (lambda m: m.update(step=[3]), r"int\(\) argument"),
        (lambda m: m.update(step="9" * 5_000), "damaged"),
        (lambda m: m.update(step="-3"), "step must be >= 0"),
        (lambda m: m.pop("history_digest"), "it has no 'history_digest'"),
        (lambda m: m.update(status="done"), "status must be one of"),
        (lambda m: m.update(columns=3), "not iterable"),
        (lambda m: m["columns"].append(m["columns"][-1]), "named twice"),
    ],
)
def test_metadata_of_a_checkpoint(run_dir, change, message):
    reseal(run_dir / CHECKPOINT, change)
    refused(run_dir, "history.csv" if "twice" in message else CHECKPOINT, message)
    with pytest.raises(RunError, match=message):
        train_into(run_dir)


@pytest.mark.parametrize("file", [SNAPSHOT, WEIGHTS])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(W_V=t["W_V"] * torch.nan), "W_V must be finite, got NaN or inf"),
        (lambda t: t.update(W_V=t["W_V"].double()), "must be float32"),
        (lambda t: t.update(W_V=t["W_V"][:1]), "must hold the weights"),
        (lambda t: t.pop("W_QK"), "must hold the weights"),
        (lambda t: t.update(more=torch.ones(1)), "must hold the weights"),
    ],
)
def test_weights_of_a_run(run_dir, file, change, message):
    reseal(run_dir / file, tensors=change)
    refused(run_dir, file, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({"parameter.W_V": torch.ones(1)}), "W_V must be torch.float32"),
        (lambda t: t.pop("parameter.W_V"), "lacks the parameter 'W_V'"),
        (lambda t: t.update(odd=torch.ones(1)), "holds 'odd'"),
        (lambda t: t.update({"optimizer.W_V": torch.ones(1)}), "holds 'optimizer.W_V'"),
        (lambda t: t.update({AVERAGE: torch.ones(3, 3)}), "holds 'exp_avg' of"),
        (lambda t: t.update({AVERAGE: t[AVERAGE].double()}), "holds 'exp_avg'"),
        (lambda t: t.pop(AVERAGE), r"must hold exp_avg, exp_avg_sq, step .* got exp_avg_sq, step"),
        (lambda t: t.update({f"{AVERAGE}_odd": t[AVERAGE].clone()}), "must hold exp_avg, exp_avg_sq, step"),
    ],
)  # fmt: skip
def test_tensors_of_a_checkpoint_are_not_converted(run_dir, change, message):
    reseal(run_dir / CHECKPOINT, lambda m: m.update(status="interrupted"), change)
    with pytest.raises(RunError, match=message):
        train_into(run_dir)


def test_a_hundred_thousand_brackets_of_metadata(run_dir):
    save_file({"W_V": torch.ones(1)}, run_dir / WEIGHTS, {"ocr_interp": "[" * 100_000})
    refused(run_dir, WEIGHTS, "its metadata is no JSON")


def test_files_that_only_look_like_snapshots_are_left_alone(run_dir):
    expected = load_run(run_dir).snapshot_steps
    for name in ("step_1x.safetensors", f"step_{'9' * 30}.safetensors", "step_٣٣٣٣٣٣٣٣.safetensors"):
        (run_dir / "snapshots" / name).write_bytes(b"")
    assert load_run(run_dir).snapshot_steps == expected


def read(run_dir, kind):
    run = load_run(run_dir)
    return run.at(5).weights if kind == "snapshot" else run.weights


def spoiled(value):
    def change(tensors):
        name = "W_V" if "W_V" in tensors else "parameter.W_V"
        tensors[name].view(-1)[3] = value

    return change


def without(tensors):
    del tensors["W_V" if "W_V" in tensors else "parameter.W_V"]


def narrower(tensors):
    name = "W_V" if "W_V" in tensors else "parameter.W_V"
    tensors[name] = tensors[name][:, :1].contiguous()


def stepless(metadata):
    del metadata["step"]


def with_a_word_for_a_step(metadata):
    metadata["step"] = "many"


CHANGES = {
    "nan": (spoiled(float("nan")), "W_V must be finite, got NaN or inf"),
    "inf": (spoiled(float("inf")), "W_V must be finite, got NaN or inf"),
    "without": (without, "W_V"),
    "narrower": (narrower, "W_V"),
    "stepless": (stepless, "it has no 'step'"),
    "word": (with_a_word_for_a_step, "invalid literal"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", FILES)
def test_a_file_with_a_fitting_digest_is_not_believed_either(kind, change, run_dir):
    edit, message = CHANGES[change]
    if kind == "checkpoint":
        (run_dir / FILES["weights"]).unlink()  # the run is read from its checkpoint then
        if change in ("nan", "inf"):
            message = "must be finite"
    path = run_dir / FILES[kind]
    reseal(path, **{"metadata" if change in ("stepless", "word") else "tensors": edit})
    with pytest.raises(RunError, match=message) as caught:
        read(run_dir, kind)
    assert str(path) in str(caught.value)


def test_training_does_not_go_on_from_a_checkpoint_of_another_shape(run_dir):
    reseal(run_dir / CHECKPOINT, lambda m: m.update(status="unfinished"), narrower)
    with pytest.raises(RunError, match=r"W_V must be torch.float32 \(.*\), got torch.float32 \(\d+, 1\)"):
        train_into(run_dir)


def test_a_snapshot_of_another_step(run_dir):
    reseal(run_dir / SNAPSHOT, lambda m: m.update(step="10"))
    refused(run_dir, SNAPSHOT, "holds the weights at step 10")


def test_nothing_changed_is_nothing_refused(run_dir):
    expected = read(run_dir, "snapshot").tensors()
    reseal(run_dir / SNAPSHOT)
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
