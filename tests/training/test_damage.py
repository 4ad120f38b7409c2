"""Damaged, foreign and edited files of a run: each is refused by name and nothing on disk changes."""

import dataclasses
import json
import shutil

import pytest
import torch
from run_files import content, differing, train_into

from ocr_interp.errors import OcrInterpError, RunError
from ocr_interp.training.store import RunStore, load_run

CONFIG, HISTORY, WEIGHTS = "config.json", "history.csv", "weights.safetensors"
CHECKPOINT, SNAPSHOT = "checkpoint/state.safetensors", "snapshots/step_00000005.safetensors"
FILES = (CONFIG, HISTORY, WEIGHTS, CHECKPOINT, SNAPSHOT)


def read_all(run_dir):
    """Everything a run says: its configuration, state, history, weights, all snapshots."""
    run = load_run(run_dir)
    weights = [run.weights, *(run.at(step).weights for step in run.snapshot_steps)]
    tensors = [(name, t.numpy().tobytes()) for w in weights for name, t in w.tensors().items()]
    history = [repr(row) for row in run.history.to_numpy().tolist()]
    return run.config, run.step, run.status, run.snapshot_steps, history, tensors


def assert_refused(run_dir, name, train_too=True):
    """Reading names the file, training refuses too, and both leave every byte as it was."""
    before = content(run_dir)
    with pytest.raises(RunError) as caught:
        read_all(run_dir)
    assert str(run_dir / name) in str(caught.value)
    if train_too:
        with pytest.raises(RunError) as caught:
            train_into(run_dir)
        assert str(run_dir) in str(caught.value)
    assert differing(content(run_dir), before) == []


# --- damage ----------------------------------------------------------------------------------------------


def test_a_whole_run_reads_back(finished):
    run, before = load_run(finished), content(finished)
    assert set(FILES) <= before.keys()
    assert (run.step, run.status, run.path) == (40, "finished", finished)
    assert read_all(finished) == read_all(finished)
    assert train_into(finished).history.equals(run.history)
    assert differing(content(finished), before) == []
    kept = train_into(None)
    assert kept.history.equals(run.history)
    for name, tensor in kept.weights.tensors().items():
        assert torch.equal(tensor, run.weights.tensors()[name])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_truncated_files_are_refused(run_dir, name, share):
    path, whole = run_dir / name, (run_dir / name).read_bytes()
    keep = min(int(len(whole) * share), len(whole) - 2)  # less than a line end is missing at most
    path.write_bytes(whole[:keep])
    assert_refused(run_dir, name, train_too=name != SNAPSHOT)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "junk", [b"not what it was\n", b"\x00" * 500, b"\xff\xfe" * 50, b"[1, 2]", b"{}", b"null"]
)
def test_files_of_something_else_are_refused(run_dir, name, junk):
    (run_dir / name).write_bytes(junk)
    assert_refused(run_dir, name, train_too=name != SNAPSHOT)


@pytest.mark.parametrize("name", [CHECKPOINT, WEIGHTS, HISTORY, SNAPSHOT])
def test_files_of_another_run_are_refused(run_dir, foreign, name):
    shutil.copy(foreign / name, run_dir / name)
    assert_refused(run_dir, name, train_too=name != SNAPSHOT)


def test_the_configuration_of_another_run_is_refused(run_dir, foreign):
    shutil.copy(foreign / CONFIG, run_dir / CONFIG)
    before = content(run_dir)
    with pytest.raises(RunError, match=f"{run_dir}.*another run"):
        load_run(run_dir)
    with pytest.raises(RunError, match=r"another configuration \(train\.seed: 0 != 1\)"):
        train_into(run_dir)
    with pytest.raises(RunError, match=f"{run_dir}.*another run"):
        train_into(run_dir, seed=1)
    assert differing(content(run_dir), before) == []


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("snapshots/step_00000040.safetensors", SNAPSHOT),
        ("snapshots/step_00000040.safetensors", CHECKPOINT),
        ("snapshots/step_00000040.safetensors", WEIGHTS),
        (WEIGHTS, CHECKPOINT),
        (CHECKPOINT, WEIGHTS),
        (CHECKPOINT, SNAPSHOT),
    ],
)
def test_files_of_the_same_run_in_the_wrong_place_are_refused(run_dir, source, target):
    shutil.copy(run_dir / source, run_dir / target)
    assert_refused(run_dir, target, train_too=target != SNAPSHOT)


@pytest.mark.parametrize("name", [CONFIG, HISTORY, SNAPSHOT])
def test_missing_files_are_named(run_dir, name):
    (run_dir / name).unlink()
    if name == SNAPSHOT:
        run = load_run(run_dir)
        assert 5 not in run.snapshot_steps
        with pytest.raises(OcrInterpError, match="no snapshot at step 5"):
            run.at(5)
        return
    before = content(run_dir)
    with pytest.raises(RunError, match=name if name != CONFIG else f"{run_dir} is no run directory"):
        load_run(run_dir)
    with pytest.raises(RunError, match=str(run_dir)):
        train_into(run_dir)
    assert differing(content(run_dir), before) == []


def test_without_its_file_of_weights_a_run_is_read_from_the_checkpoint(run_dir):
    expected = load_run(run_dir).weights.tensors()
    (run_dir / WEIGHTS).unlink()
    found = load_run(run_dir).weights.tensors()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-7)


def test_going_on_with_another_kind_of_device_is_refused(run_dir):
    store = RunStore(run_dir)
    checkpoint = store.read_checkpoint()
    store.write_checkpoint(dataclasses.replace(checkpoint, device="cuda", status="interrupted"))
    with pytest.raises(RunError, match="trained on 'cuda' and cannot go on, bit for bit, on 'cpu'"):
        train_into(run_dir)


def test_without_its_checkpoint_a_run_is_trained_again_to_the_same_bytes(run_dir, finished):
    """What the message about a damaged checkpoint advises."""
    (run_dir / CHECKPOINT).unlink()
    with pytest.raises(RunError, match="no checkpoint yet"):
        load_run(run_dir)
    assert train_into(run_dir).status == "finished"
    assert differing(content(run_dir), content(finished)) == []


def flip_and_check(run_dir, name, bits, expected):
    """Flips one bit at a time: the run is refused by name, or reads as if nothing had happened."""
    path, whole, silent, refused = run_dir / name, (run_dir / name).read_bytes(), [], 0
    for bit in bits:
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            if read_all(run_dir) != expected:
                silent.append(bit)
        except RunError as error:
            refused += 1
            if str(path) not in str(error):
                silent.append((bit, str(error)))
    path.write_bytes(whole)
    assert silent == []
    assert refused > 0


def header_bits(run_dir, name):
    """Number of bits before the tensors (safetensors), or of the whole file."""
    whole = (run_dir / name).read_bytes()
    return 8 * (8 + int.from_bytes(whole[:8], "little") if name.endswith("safetensors") else len(whole))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_flipped_bits_are_noticed(run_dir, name):
    expected, whole = read_all(run_dir), header_bits(run_dir, name)
    last = 8 * (run_dir / name).stat().st_size - 8 * 3
    some = range(0, whole, whole // 30 + 1)
    inside = range(whole, last, (last - whole) // 10 + 1) if whole < last else []
    flip_and_check(run_dir, name, [*some, *inside], expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("nth", [13, pytest.param(4, marks=pytest.mark.long)])
def test_flipped_bits_are_noticed_wherever_they_are(run_dir, name, nth):
    """One bit of every nth byte of all that is not tensors, of a long table of every 4 nth; another bit for
    another byte."""
    expected, step = read_all(run_dir), 4 * nth if name == "history.csv" else nth
    bits = [8 * byte + byte % 7 for byte in range(0, header_bits(run_dir, name) // 8, step)]
    flip_and_check(run_dir, name, bits, expected)


# --- configurations --------------------------------------------------------------------------------------


def rewrite_config(run_dir, change):
    values = json.loads((run_dir / CONFIG).read_text())
    change(values)
    (run_dir / CONFIG).write_text(json.dumps(values))


@pytest.mark.parametrize("version", [3, 99, 0, -1, "1", None, True])
def test_a_newer_format_is_refused(run_dir, version):
    rewrite_config(run_dir, lambda values: values.update(format_version=version))
    assert_refused(run_dir, CONFIG)
    with pytest.raises(RunError, match=rf"format version {version!r}.*reads up to 2: update ocr-interp"):
        load_run(run_dir)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["train"].update(lr=0.5),
        lambda values: values["train"].update(steps=80),
        lambda values: values["model"].update(ov="non_factorized", d_head=None),
        lambda values: values["task"].update(n_pairs=4),
        lambda values: values.update(fingerprint="0" * 16),
        lambda values: values.pop("fingerprint"),
        lambda values: values.pop("train"),
        lambda values: values["train"].pop("steps"),
        lambda values: values["train"].update(lr=-1),
        lambda values: values["train"].update(rate=1),
        lambda values: values["train"].update(lr="0.005"),
        lambda values: values.update(task=[]),
        lambda values: values.update(model="factorized"),
        lambda values: values.update(train=None),
    ],
)  # fmt: skip
def test_an_edited_configuration_is_refused(run_dir, change):
    rewrite_config(run_dir, change)
    assert_refused(run_dir, CONFIG)
