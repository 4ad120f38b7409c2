"""Files that are whole or not there: atomic writes, and reads that notice damage."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ocr_interp.errors import RunError

TEMPORARY_PREFIX = ".tmp-"
_METADATA = "ocr_interp"

_WHAT_TO_DO = {
    "checkpoint": "restore it, or train into a new run_dir",
    "model": "restore it, or delete it: the checkpoint holds the same weights",
    "weights": "restore it, or train into a new path",
    "snapshot": "restore it; the other snapshots and the model are not touched by it",
}


def write_atomic(path: Path, content: bytes) -> None:
    """Writes a file so that its old content stays until the new one is complete on disk.

    Raises:
        RunError: the file system refuses (full disk, no permission); the old file is as it was.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(
            f"cannot write {path}: {error.strerror or error}. What was written before is intact: free space "
            "or rights there, then start again with the same run_dir to go on from the last checkpoint"
        ) from error


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a safetensors file that carries a digest of its content."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One key: safetensors writes several in an order that differs from call to call.
    sealed = json.dumps({**metadata, "digest": _digest(tensors, metadata)}, sort_keys=True)
    write_atomic(path, save(tensors, {_METADATA: sealed}))


def read_tensors(path: Path, fingerprint: str, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (on the CPU) and metadata of a file of the run with this fingerprint.

    Raises:
        RunError: no such file, a truncated or damaged one, or one of another run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            sealed = (file.metadata() or {}).get(_METADATA, "{}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
    except FileNotFoundError:
        raise RunError(f"{path} is missing: the run is incomplete or was moved") from None
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is damaged ({error}): {_WHAT_TO_DO[kind]}") from None
    try:
        metadata = dict(json.loads(sealed))
    except (ValueError, TypeError):
        raise RunError(f"{path} is damaged (its metadata is no JSON): {_WHAT_TO_DO[kind]}") from None
    digest = metadata.pop("digest", None)
    if digest is not None and digest != _digest(tensors, metadata):
        raise RunError(f"{path} is damaged (its content is not that of its digest): {_WHAT_TO_DO[kind]}")
    if digest is None or metadata.get("fingerprint") != fingerprint:
        raise RunError(
            f"{path} belongs to another run (fingerprint {metadata.get('fingerprint')}, expected "
            f"{fingerprint}): put the right file back"
        )
    if metadata.get("kind") != kind:
        raise RunError(f"{path} is no {kind} (but a {metadata.get('kind')}): put the right file back")
    return tensors, metadata


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """Hash of metadata, names, shapes, dtypes and bytes."""
    sha = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        sha.update(tensor.numpy().tobytes())
    return sha.hexdigest()[:32]
