"""Files of others: regular ones only, within bounds; and writing beside files and links of others."""

import json
import os
import stat

import pytest

from ocr_interp.errors import RunError
from ocr_interp.storage.atomic import TEMPORARY_PREFIX, replacing, write_atomic
from ocr_interp.storage.folders import FolderKind
from ocr_interp.storage.plain import printable
from ocr_interp.storage.reading import DEEPEST, parse_json, parse_yaml, read_bytes, read_text
from ocr_interp.storage.tensors import read_tensors

# --- files -----------------------------------------------------------------------------------------------


def test_pipes_and_directories_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in ((tmp_path / "pipe", "pipe, socket or device"), (tmp_path, "it is a directory")):
        with pytest.raises(OSError, match=message):
            read_bytes(path)
    with pytest.raises(OSError, match="pipe, socket or device"):
        read_bytes("/dev/zero")
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "nothing")
    with pytest.raises(OSError, match="name is not allowed"):
        read_bytes("a\0b")
    with pytest.raises(RunError, match=r"pipe is damaged \(.*pipe, socket or device"):
        read_tensors(tmp_path / "pipe", "f", "kind", "restore it")


def test_a_larger_file_than_allowed_is_not_read(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 100)
    assert read_text(tmp_path / "a", 100) == "x" * 100
    with pytest.raises(OSError, match="it has 100 bytes, allowed are 99"):
        read_bytes(tmp_path / "a", 99)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert read_bytes(tmp_path / "link") == b"x" * 100


# --- JSON and YAML ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["{}", "[1, -2.5e-3, null, true]", '{"a": [{"b": "\\u00e4"}]}', "NaN", "1" * 60]
)
def test_json_is_what_it_always_was(text):
    assert repr(parse_json(text)) == repr(json.loads(text)) == repr(parse_json(text.encode()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "lists within lists"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "more than 64 deep"),
        ('{"a":' * 65 + "1" + "}" * 65, "more than 64 deep"),
        ("1" * 6_000, "whole number of 6,000 digits"),
        ('{"a": [-' + "1" * 61 + "]}", "whole number of 62 digits"),
        (b"\xff\xfe", "can't decode"),
        ("[1,", "Expecting value"),
    ],
)
def test_json_has_bounds(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)
    assert parse_json("[" * DEEPEST + "]" * DEEPEST) is not None


def laughs(levels, width=9):
    lines = ["a0: &a0 [1, 2]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * width)}]" for k in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (laughs(10), "more than 100,000 values with its aliases written out"),
        (laughs(200, 1), "deep"),
        ("&a [*a]", "inside of itself"),
        ("a: &x {b: [*x]}", "inside of itself"),
        ("- " * 70 + "1", "more than 64 deep"),
        ("[" * 50_000, "more than 64 deep"),
        ("[" + "1," * 100_001 + "]", "more than 100,000 values"),
        ("a: " + "9" * 6_000, "whole number of 6,000 digits"),
        ("a: 2024-13-45", "month must be in"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("---\na: 1\n---\nb: 2", "expected a single document"),
        ("a: [", "expected the node content|while parsing|did not find"),
        ("? [a]\n: 1", "unhashable"),
        ("!!int ''", "cannot be read"),
    ],
)
def test_yaml_has_bounds(text, message):
    with pytest.raises(ValueError, match=message):
        parse_yaml(text)


def test_yaml_within_bounds_may_use_aliases():
    assert parse_yaml("a: &x [1, 2]\nb: [*x, *x]\nc: {<<: {d: 0.5}}") == {
        "a": [1, 2],
        "b": [[1, 2], [1, 2]],
        "c": {"d": 0.5},
    }
    assert parse_yaml("") is None
    assert parse_yaml(laughs(4)) is not None


# --- writing beside others -------------------------------------------------------------------------------


def test_temporary_names_cannot_be_foreseen_and_follow_no_link(tmp_path, monkeypatch):
    names = set()
    for _ in range(3):
        with replacing(tmp_path / "a") as temporary:
            assert temporary.parent == tmp_path
            names.add(temporary.name)
            temporary.write_bytes(b"x")
    assert len(names) == 3
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    monkeypatch.setattr("secrets.token_hex", lambda count: "0" * 2 * count)  # somebody foresaw it
    (tmp_path / f"{TEMPORARY_PREFIX}{'0' * 32}").symlink_to(victim)
    with pytest.raises(RunError, match=r"cannot write .*File exists"):
        write_atomic(tmp_path / "a", b"new")
    assert victim.read_bytes() == b"mine"
    assert (tmp_path / f"{TEMPORARY_PREFIX}{'0' * 32}").is_symlink(), "what is not ours is not deleted"


def test_a_target_that_is_a_link_is_replaced_and_its_victim_is_not(tmp_path):
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "a").symlink_to(tmp_path / "victim")
    write_atomic(tmp_path / "a", b"new")
    assert not (tmp_path / "a").is_symlink()
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "victim").read_bytes()) == (b"new", b"mine")


def test_files_have_the_rights_that_others_have(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_atomic(tmp_path / "a", b"x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_failed_clean_up_does_not_hide_the_error(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    with pytest.raises(RunError, match="No space left"), replacing(tmp_path / "a"):
        raise OSError(28, "No space left on device")


KIND = FolderKind("folder", "folder", "path", "settings.json", ("inside",), "another")


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    left = [tmp_path / f"{TEMPORARY_PREFIX}{'a' * 32}", tmp_path / "inside" / f"{TEMPORARY_PREFIX}{'b' * 32}"]
    others = [tmp_path / ".tmp-mine", tmp_path / "settings.json", tmp_path / f"{TEMPORARY_PREFIX}{'c' * 31}"]
    (tmp_path / "inside").mkdir()
    for path in (*left, *others):
        path.write_bytes(b"")
    with KIND.locked(tmp_path):
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in others)


def test_a_lock_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "victim").write_bytes(b"mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(RunError, match=r"its \.lock is a link"), KIND.locked(folder):
        pass
    assert (tmp_path / "victim").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "x/" * 5_000])
def test_names_that_no_folder_can_have_are_refused_in_one_line(name, tmp_path):
    with pytest.raises(RunError, match="cannot make the folder"), KIND.locked(tmp_path / name):
        pass


# --- printing --------------------------------------------------------------------------------------------


def test_control_characters_are_printed_as_escapes():
    assert printable("Ädä 日本 →\n−1") == "Ädä 日本 →\n−1"
    assert printable("a\x1b[31mb\x00\r\t") == r"a\x1b[31mb\x00\x0d\x09"
    assert printable("\ud800x\u202ey\ufffe\U0001fffe") == r"\ud800x\u202ey\ufffe\U0001fffe"
