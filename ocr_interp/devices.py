"""Devices of tensors, and seeded random generators."""

from __future__ import annotations

import hashlib
import os

import torch

from ocr_interp.errors import ConfigError, shown

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def physical_memory() -> int:
    """Bytes of this machine's memory, used or not; 2**63 where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**63


def resolve_device(name: str, dtype: str = "float32") -> torch.device:
    """The device of a name: "auto" takes cuda, then mps, then cpu.

    Raises:
        ConfigError: a device that torch does not know or this machine does not have, or float64 on mps.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available() and dtype != "float64":
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if name == "auto":
        return torch.device(available[0])
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError, ValueError):
        raise ConfigError(f"device must be 'auto' or one of {available}, got {shown(name)}") from None
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if device.type not in available or (device.index or 0) >= count:
        reason = "mps has no float64" if name == "mps" and dtype == "float64" else "not on this machine"
        raise ConfigError(f"device must be 'auto' or one of {available}, got {shown(name)} ({reason})")
    return device


def seeded_generator(device: torch.device | str, *key: int) -> torch.Generator:
    """A generator on `device` that depends on nothing but the whole numbers of `key`.

    Keys are hashed (sha256), so that (seed, step) and (seed + 1, step) are unrelated.
    """
    # Not numpy's SeedSequence: it pads with zeros, so (1,), (1, 0) and (1, 0, 0) would be one stream.
    digest = hashlib.sha256(repr(tuple(map(int, key))).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def sent(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """A tensor of the CPU on a device, without waiting for the device: a GPU copies it in its own time.

    `Tensor.to` from ordinary memory waits until the copy is made, and so for everything before it.
    """
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
