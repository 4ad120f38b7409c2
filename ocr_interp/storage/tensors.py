"""Tensors in safetensors files with a digest of their content: reading detects any damage."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from ocr_interp.errors import RunError
from ocr_interp.storage.atomic import GO_ON, replacing, write_atomic
from ocr_interp.storage.digests import digest_of_tensors
from ocr_interp.storage.reading import parse_json, require_regular

_METADATA = "ocr_interp"


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    *,
    large: bool = False,
    then: str = GO_ON,
) -> None:
    """Writes a safetensors file that carries a digest of its content.

    Args:
        path: the file; its folder must exist.
        tensors: by name, on any device.
        metadata: values that JSON can hold. `read_tensors` checks "kind" and "fingerprint".
        large: write straight to disk instead of building all bytes in memory first; for files several times
            as large as a language model.
        then: advice in the error message, what to do once the cause of a failure is gone.

    Raises:
        RunError: the file cannot be written; the old file is unchanged.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One key, because safetensors writes several keys in an order that differs between calls.
    digest = digest_of_tensors(tensors, before=json.dumps(metadata, sort_keys=True))
    sealed = {_METADATA: json.dumps({**metadata, "digest": digest})}  # rows keep the order of their columns
    if not large:
        write_atomic(path, save(tensors, sealed), then)
        return
    with replacing(path, then) as temporary:
        try:
            save_file(tensors, temporary, sealed)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())


def read_tensors(
    path: Path, fingerprint: str, kind: str, advice: str, *, bare: bool = False
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and metadata of a file of the run with this fingerprint.

    Args:
        path: the file.
        fingerprint: the fingerprint that the file must have.
        kind: the kind that the file must have.
        advice: what to do about a damaged file.
        bare: whether the file may lack a kind and have a digest of its tensors alone, as version-1
            checkpoints of language models do.

    Raises:
        RunError: no such file, a truncated or damaged one, or one of another run.
    """
    tensors, metadata = read_any_tensors(path, advice, bare=bare)
    digest, is_bare = metadata.pop("digest", None), bare and "kind" not in metadata
    if digest is None or metadata.get("fingerprint") != fingerprint:
        raise RunError(
            f"{path} belongs to another run (fingerprint {metadata.get('fingerprint')}, expected "
            f"{fingerprint}): put the right file back"
        )
    if not is_bare and metadata.get("kind") != kind:
        raise RunError(f"{path} is no {kind} (but a {metadata.get('kind')}): put the right file back")
    return tensors, metadata


def read_any_tensors(
    path: Path, advice: str, *, bare: bool = False
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and metadata of any safetensors file; "digest" is in it if the file carries one.

    Args:
        path: the file, of this package or not.
        advice: what to do about a damaged file.
        bare: as in `read_tensors`.

    Raises:
        RunError: no such file, a truncated or damaged one, or one whose content is not that of its digest.
    """
    try:
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            sealed = (file.metadata() or {}).get(_METADATA, "{}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
    except FileNotFoundError:
        raise RunError(f"{path} is missing: the run is incomplete or was moved") from None
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is damaged ({error}): {advice}") from None
    try:
        metadata = dict(parse_json(sealed))
    except (ValueError, TypeError):
        raise RunError(f"{path} is damaged (its metadata is no JSON): {advice}") from None
    digest = metadata.get("digest")
    others = {name: value for name, value in metadata.items() if name != "digest"}
    before = "" if bare and "kind" not in metadata else json.dumps(others, sort_keys=True)
    if digest is not None and digest != digest_of_tensors(tensors, before=before):
        raise RunError(f"{path} is damaged (its content is not that of its digest): {advice}")
    return tensors, metadata
