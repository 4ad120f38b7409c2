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
    metadata = {**metadata, "digest": _digest(tensors)}
    write_atomic(path, save(tensors, metadata))


def read_tensors(path: Path, fingerprint: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (on the CPU) and metadata of a file of the run with this fingerprint.

    Raises:
        RunError: no such file, a truncated or damaged one, or one of another run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
    except FileNotFoundError:
        raise RunError(f"{path} is missing: the run is incomplete or was moved") from None
    except (SafetensorError, OSError) as error:
        raise RunError(
            f"{path} is damaged ({error}): delete the file and train again, or restore it"
        ) from None
    if metadata.get("fingerprint") != fingerprint:
        raise RunError(
            f"{path} belongs to another run (fingerprint {metadata.get('fingerprint')}, expected "
            f"{fingerprint}): put the right file back"
        )
    if metadata.get("digest") != _digest(tensors):
        raise RunError(f"{path} is damaged (its content does not match its digest): restore or delete it")
    return tensors, metadata


def _digest(tensors: dict[str, Tensor]) -> str:
    """Hash of names, shapes, dtypes and bytes."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        sha.update(tensor.numpy().tobytes())
    return sha.hexdigest()[:32]
