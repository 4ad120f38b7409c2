"""Digests (SHA-256) of text, files and named tensors. No torch until tensors are given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def digest_of(content: str | bytes, length: int = 64) -> str:
    """The first hexadecimal digits of the SHA-256 of some bytes, or of text as UTF-8."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()[:length]


def digest_of_file(path: Path) -> str:
    """The SHA-256 of the bytes of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_header(name: str, tensor: Any) -> str:
    """Text that is hashed before the bytes of a tensor in a file: name, dtype, shape."""
    return json.dumps([name, str(tensor.dtype), list(tensor.shape)])


def digest_of_tensors(
    tensors: Mapping[str, Any],
    length: int = 32,
    *,
    header: Callable[[str, Any], str] = json_header,
    before: str = "",
) -> str:
    """The first hexadecimal digits of the SHA-256 of tensors, in the order of their names.

    The device does not matter. Tensors that are contiguous on the CPU are not copied.

    Args:
        tensors: torch tensors by name, of any dtype.
        length: number of digits.
        header: text that is hashed before the bytes of each tensor; fingerprints in published files are older
            than `json_header` and pass their own.
        before: text that is hashed before all tensors.
    """
    import torch

    sha = hashlib.sha256(before.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(header(name, tensor).encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()[:length]
