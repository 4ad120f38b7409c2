"""Seals of JSON files and folders, folders that appear whole, locks and names of folders."""

import errno
import fcntl
import json
import os
import stat
from pathlib import Path

import pytest
from safetensors import SafetensorError

from ocr_interp.errors import RunBusyError, RunError, RunReadOnlyError
from ocr_interp.storage import folders
from ocr_interp.storage.atomic import write_atomic
from ocr_interp.storage.digests import digest_of, digest_of_file
from ocr_interp.storage.folders import FolderKind, locked_beside
from ocr_interp.storage.seals import (
    SEAL_FILE,
    require_seal,
    require_sealed_folder,
    seal_folder,
    seal_of,
    sealed,
)
from ocr_interp.storage.whole import whole_folder

# --- seals -----------------------------------------------------------------------------------------------


def test_a_seal_is_the_digest_of_the_content():
    content = {"b": [1, 2.5, None], "a": {"x": "é"}}
    said = sealed(content)
    assert said == {**content, "seal": seal_of(content)}
    assert seal_of(said) == seal_of(dict(reversed(content.items()))) == seal_of(content)
    assert seal_of(content) == digest_of('{"a": {"x": "\\u00e9"}, "b": [1, 2.5, null]}', 32)
    assert seal_of({**content, "b": [1, 2.5, 0]}) != seal_of(content)


def test_what_lost_its_seal_is_refused_unless_it_never_had_one():
    content, path = {"version": 1, "new": 2}, Path("a.json")
    require_seal(path, sealed(content), ("version",), "restore it")
    require_seal(path, {"version": 1}, ("version",), "restore it")  # of an earlier version
    for changed in ({**sealed(content), "new": 3}, content, {**content, "sea1": seal_of(content)}):
        with pytest.raises(RunError, match=r"a\.json was changed after it was written .*: restore it"):
            require_seal(path, changed, ("version",), "restore it")


def test_the_files_of_a_folder_are_sealed(tmp_path):
    (tmp_path / "inside").mkdir()
    for name in ("a.bin", "b.bin", "inside/c.bin"):
        (tmp_path / name).write_bytes(name.encode())
    assert require_sealed_folder(tmp_path, "") is None
    seal_folder(tmp_path, {"fingerprint": "f"})
    said = require_sealed_folder(tmp_path, "")
    assert said["fingerprint"] == "f"
    assert (
        said["files"]["inside/c.bin"]
        == digest_of_file(tmp_path / "inside" / "c.bin")
        == digest_of("inside/c.bin")
    )
    (tmp_path / "later.txt").write_text("does not matter")
    require_sealed_folder(tmp_path, "")
    (tmp_path / "inside" / "c.bin").write_bytes(b"other")
    (tmp_path / "a.bin").unlink()
    with pytest.raises(
        RunError, match=r"inside/c\.bin: changed after it was written; .*a\.bin: missing .*: take tea"
    ):
        require_sealed_folder(tmp_path, "take tea")
    for damage in (b"{", b"[]", b"null", b'{"files": 3}', b"[" * 100_000):
        (tmp_path / SEAL_FILE).write_bytes(damage)
        with pytest.raises(RunError, match=rf"{SEAL_FILE} .*: take tea"):
            require_sealed_folder(tmp_path, "take tea")


def test_no_digit_of_a_seal_is_changed_in_silence(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"a")
    seal_folder(tmp_path, {"fingerprint": "f"})
    whole = (tmp_path / SEAL_FILE).read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        (tmp_path / SEAL_FILE).write_bytes(bytes(damaged))
        try:
            found = require_sealed_folder(tmp_path, "")
        except RunError:
            continue
        assert found == json.loads(whole), whole[at - 5 : at + 5]  # only a blank was changed


# --- folders that appear whole ---------------------------------------------------------------------------


def test_a_folder_appears_whole_and_replaces_an_earlier_one(tmp_path):
    for content in (b"one", b"two"):
        with whole_folder(tmp_path / "model", "drink tea") as temporary:
            assert temporary.parent == tmp_path
            (temporary / "weights").write_bytes(content)
            assert (tmp_path / "model").exists() == (content == b"two")
        assert (tmp_path / "model" / "weights").read_bytes() == content
    made, plain = tmp_path / "model", tmp_path / "plain"
    plain.mkdir()
    assert stat.S_IMODE(made.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "plain"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(28, "No space left on device"), RunError),
        (SafetensorError("I/O error: File too large (os error 27)"), RunError),
        (RunError("said already"), RunError),
        (ZeroDivisionError("of ours"), ZeroDivisionError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_folder_that_cannot_be_written_leaves_nothing(error, kind, tmp_path):
    def fill():
        with whole_folder(tmp_path / "model", "drink tea") as temporary:
            (temporary / "weights").write_bytes(b"half")
            raise error

    with pytest.raises(kind, match="drink tea" if kind is RunError and "said" not in str(error) else None):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    stale, other, mine = tmp_path / ".tmp-model-x1", tmp_path / ".tmp-other-x1", tmp_path / "elsewhere"
    for folder in (stale, other, mine):
        folder.mkdir()
        (folder / "weights").write_bytes(b"half")
    link = tmp_path / ".tmp-model-x2"
    link.symlink_to(mine)
    with whole_folder(tmp_path / "model", "") as temporary:
        assert not stale.exists()
        (temporary / "weights").write_bytes(b"all")
    assert (mine / "weights").exists()
    assert other.exists()
    assert link.is_symlink()


# --- locks -----------------------------------------------------------------------------------------------

BOX = FolderKind("box", "folder", "path", "box.json", ("inside",), "another box")


def test_a_name_is_made_by_one_process_at_a_time(tmp_path):
    busy = pytest.raises(RunBusyError, match="model is in use by another process that makes it: wait")
    with locked_beside(tmp_path / "a" / "model"), busy, locked_beside(tmp_path / "a" / "model"):
        pass
    with locked_beside(tmp_path / "a" / "model"):
        assert not (tmp_path / "a" / "model").exists()


@pytest.mark.parametrize("refusal", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES, errno.EIO])
def test_a_file_system_that_refuses_a_lock_is_not_in_use(refusal, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunError, match=os.strerror(refusal)) as caught:
        BOX.locked(tmp_path / "box").__enter__()
    assert "in use" not in str(caught.value)
    if refusal != errno.EIO:
        assert "refuses to lock it" in str(caught.value)
        assert "choose a path on another one" in str(caught.value)


@pytest.mark.parametrize("refusal", [errno.EROFS, errno.EACCES])
def test_a_place_that_is_read_only_has_an_error_of_its_own(refusal, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(RunReadOnlyError, match="cannot make the box"):
        BOX.locked(tmp_path / "box").__enter__()


def test_temporary_files_of_killed_processes_are_removed_under_the_lock(tmp_path):
    box = tmp_path / "box"
    (box / "inside").mkdir(parents=True)
    (box / "box.json").write_text("{}")
    for place in (box, box / "inside"):
        (place / ".tmp-state.safetensors").write_bytes(b"half")
    (tmp_path / "victim").write_text("mine")
    (box / ".tmp-history.csv").symlink_to(tmp_path / "victim")
    with BOX.locked(box):
        assert sorted(path.name for path in box.rglob("*")) == [".lock", "box.json", "inside"]
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_name_that_is_no_utf8_is_said_before_anything_is_written(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    with pytest.raises(RunError, match=r"caf\\xe9' is no UTF-8.*choose a path of other letters"):
        BOX.locked(path).__enter__()
    assert list(tmp_path.iterdir()) == []
    assert folders.require_utf8(tmp_path / "café") is None


def test_a_file_that_cannot_be_deleted_does_not_hide_why_it_was_not_written(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    def refuse(self, **options):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(RunError, match=r"cannot write .*a\.json: No space left on device"):
        write_atomic(tmp_path / "a.json", b"content")
