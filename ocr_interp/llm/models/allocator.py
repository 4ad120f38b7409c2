"""Keeping freed memory: gradients of hundreds of megabytes come and go at every step."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tells glibc to keep what this process frees instead of handing it back to the system; for good.

    Otherwise every gradient is new memory, which the system clears page by page: a third of a step on
    the CPU (benchmarks/bench_llm.py). For a process that does nothing but train.

    Returns: whether there is a glibc to tell.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
