"""Keeps freed memory in the process: gradients of hundreds of megabytes are allocated at every step."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Makes glibc keep the memory that this process frees, instead of returning it to the system.

    Otherwise every gradient is new memory, which the system clears page by page; this takes a third of a
    step on the CPU (benchmarks/bench_llm.py). The setting cannot be undone: use it in a process that only
    trains.

    Returns: whether the process uses glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
