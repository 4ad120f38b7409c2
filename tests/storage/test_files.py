"""Atomic files, digests, plain data, tables, tensors and locked folders, each against a case by hand."""

import hashlib
import json
import math
import os
import struct
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from ocr_interp.ablation.binding import digest
from ocr_interp.errors import RunBusyError, RunError
from ocr_interp.hooked.provenance import fingerprint_of
from ocr_interp.storage.atomic import write_atomic
from ocr_interp.storage.digests import digest_of, digest_of_tensors
from ocr_interp.storage.folders import FolderKind
from ocr_interp.storage.plain import plain
from ocr_interp.storage.tables import csv_bytes, history_table, read_history
from ocr_interp.storage.tensors import read_tensors, write_tensors

# --- atomic ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_what_was_there(broken, tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomic(path, b"before")

    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, refuse)
    with pytest.raises(RunError, match=r"a\.json: No space left on device\. .* intact: .*then drink tea"):
        write_atomic(path, b"after", "drink tea")
    with pytest.raises(RunError, match="cannot write"):
        write_tensors(path, {"a": torch.ones(3)}, {"kind": "x"}, large=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_bytes() == b"before"
    with pytest.raises(RunError, match="No such file"):
        write_atomic(tmp_path / "missing" / "a", b"")


# --- digests ---------------------------------------------------------------------------------------------


def test_digests_are_those_of_the_bytes():
    assert digest_of("a", 8) == hashlib.sha256(b"a").hexdigest()[:8]
    tensors = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor([[True]]), "c": torch.zeros(0)}
    said = b'before["a", "torch.bool", [1, 1]]\x01["b", "torch.float32", [2]]' + struct.pack("<2f", 1, 2)
    said += b'["c", "torch.float32", [0]]'
    assert digest_of_tensors(tensors, 32, before="before") == hashlib.sha256(said).hexdigest()[:32]


def test_older_digests_keep_their_values():
    """They stand in published figures and in tables of studies."""
    weights = {"W": torch.tensor([[1.0], [2.0]]).mT, "n": torch.tensor(3)}
    said = (
        b"W (1, 2) torch.float32\n" + struct.pack("<2f", 1, 2) + b"n () torch.int64\n" + struct.pack("<q", 3)
    )
    assert fingerprint_of(weights) == hashlib.sha256(said).hexdigest()[:16]
    said = b"(1, 2) torch.float32" + struct.pack("<2f", 1, 2) + b"() torch.int64" + struct.pack("<q", 3)
    assert digest(weights["W"], None, weights["n"]) == hashlib.sha256(said).hexdigest()[:8]
    ones = [torch.tensor(k) for k in range(12)]
    said = b"".join(b"() torch.int64" + struct.pack("<q", k) for k in range(12))
    assert digest(*ones) == hashlib.sha256(said).hexdigest()[:8]


def test_digests_take_any_dtype():
    x = torch.tensor([1.0, -2.0], dtype=torch.bfloat16)
    assert digest_of_tensors({"x": x}) != digest_of_tensors({"x": x.half()})
    assert digest_of_tensors({"x": x}) == digest_of_tensors({"x": torch.stack([x, x], 1)[:, 0]})


# --- plain data ------------------------------------------------------------------------------------------


@dataclass
class Result:
    name: str
    values: np.ndarray


def test_results_become_plain_data():
    result = Result("a", np.array([[1 / 3, np.nan], [np.inf, 2]], dtype=np.float32))
    given = {1: result, "k": (np.int64(3), np.bool_(True), None, 1e-7 / 3, True), "x": np.float32(0.1)}
    found = plain(given, 4)
    expected = {
        "1": {"name": "a", "values": [[0.3333, None], [None, 2.0]]},
        "k": [3, True, None, 3.333e-08, True],
        "x": 0.1,
    }
    assert json.dumps(found) == json.dumps(expected)
    assert plain([1 / 3, math.inf]) == [1 / 3, None]
    kept = object()
    assert plain([kept])[0] is kept, "what JSON does not have is json's to refuse"


# --- tables ----------------------------------------------------------------------------------------------


def test_a_history_is_read_back_exactly(tmp_path):
    rows = [{"step": 0, "a": 0.1 + 0.2, "b": math.nan}, {"step": 7, "a": -0.0, "b": 5e-324, "c": math.inf}]
    table = history_table(rows)
    assert [str(dtype) for dtype in table.dtypes] == ["int64", "float64", "float64", "float64"]
    (tmp_path / "h.csv").write_bytes(csv_bytes(table))
    assert (tmp_path / "h.csv").read_text() == "step,a,b,c\n0,0.30000000000000004,,\n7,-0.0,5e-324,inf\n"
    found = read_history(tmp_path / "h.csv", None, "")
    pd.testing.assert_frame_equal(found, table, check_exact=True)
    assert math.copysign(1, found["a"][1]) == -1
    assert list(read_history(tmp_path / "h.csv", ["step", "c"], "").columns) == ["step", "c"]
    assert list(history_table([]).columns) == ["step"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,step\n1,2\n", "must begin with step"),
        ("step,b\n1,2\n", r"lacks the columns a\): restore it"),
        ("step,a\n1,x\n", "is damaged"),
        ("step,a\n,1\n", "is damaged"),
        ("", "is damaged"),
    ],
)
def test_other_tables_are_refused(content, message, tmp_path):
    (tmp_path / "h.csv").write_text(content)
    with pytest.raises(RunError, match=rf"h\.csv .*{message}"):
        read_history(tmp_path / "h.csv", ["step", "a"], "restore it")
    with pytest.raises(RunError, match=r"n\.csv is missing: restore it"):
        read_history(tmp_path / "n.csv", None, "restore it")


# --- tensors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("large", [False, True])
def test_tensors_come_back_with_what_is_said_of_them(large, tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"a": torch.tensor([[1.5, 2.0]]).mT, "b": torch.tensor(3), "c": torch.ones(2).bfloat16()}
    rows = [{"step": 1, "loss": math.nan, "b": 0.1}]
    about = {"kind": "checkpoint", "fingerprint": "f" * 16, "rows": rows}
    write_tensors(path, tensors, about, large=large)
    found, said = read_tensors(path, "f" * 16, "checkpoint", "restore it")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert found.keys() == load_file(path).keys() == tensors.keys()
    assert repr(said) == repr(about), "the order of columns too"
    with pytest.raises(RunError, match="belongs to another run"):
        read_tensors(path, "e" * 16, "checkpoint", "")
    with pytest.raises(RunError, match="is no snapshot"):
        read_tensors(path, "f" * 16, "snapshot", "")
    path.write_bytes(path.read_bytes().replace(b'\\"loss\\"', b'\\"lots\\"'))
    for bare in (False, True):
        with pytest.raises(RunError, match=r"not that of its digest.*: restore it"):
            read_tensors(path, "f" * 16, "checkpoint", "restore it", bare=bare)


# --- folders ---------------------------------------------------------------------------------------------


def test_a_folder_has_one_owner_at_a_time(tmp_path):
    kind = FolderKind("box", "folder", "path", "box.json", ("inside",), "another box")
    with kind.locked(tmp_path / "box"):
        assert (tmp_path / "box" / "inside").is_dir()
        with pytest.raises(
            RunBusyError, match="is in use by another box: wait for it, or choose another path"
        ):
            kind.locked(tmp_path / "box").__enter__()
    with kind.locked(tmp_path / "box"):
        (tmp_path / "box" / "notes").write_text("mine")
    with pytest.raises(RunError, match=r"is no box \(no box\.json, but notes\)"):
        kind.locked(tmp_path / "box").__enter__()
    (tmp_path / "box" / "box.json").write_text("{}")
    with kind.locked(tmp_path / "box"):
        pass
