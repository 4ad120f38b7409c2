"""Where the tests of this folder run, how two results are compared, and how waits for the device are counted.

OCR_INTERP_GPU_TESTS_ON=cpu runs them on the CPU, which shows that they are sound; no wait is seen there.
"""

import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

sys.path += [str(Path(__file__).parents[1] / name) for name in ("circuits", "llm")]

DEVICE = os.environ.get("OCR_INTERP_GPU_TESTS_ON", "cuda")
ON_GPU = DEVICE != "cpu"

MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(
        ON_GPU and not torch.cuda.is_available(), reason="no CUDA device: OCR_INTERP_GPU_TESTS_ON=cpu runs it"
    ),
    # The first product in the thread of the backward pass makes the context there, and says so.
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
]

_WAIT = "called a synchronizing CUDA operation"
_OTHERS = ("transformers", "accelerate", "peft")
"""Packages whose own waits are not the library's to mend."""


@contextmanager
def waits() -> Iterator[Counter[str]]:
    """Counts the calls that wait for the GPU by the line that made them; filled when the block ends."""
    found: Counter[str] = Counter()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if ON_GPU:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            if ON_GPU:
                torch.cuda.set_sync_debug_mode("default")
    for each in said:
        parts = Path(each.filename).parts
        if _WAIT in str(each.message) and not set(parts) & set(_OTHERS):
            found[f"{'/'.join(parts[-3:])}:{each.lineno}"] += 1


def more(many: Counter[str], few: Counter[str]) -> dict[str, str]:
    """The lines that waited more often, or less often, in one of two blocks."""
    return {line: f"{few[line]} -> {many[line]}" for line in many | few if many[line] != few[line]}


def assert_close(ours: Any, theirs: Any, *, rtol: float = 1e-8, atol: float = 1e-10) -> None:
    """Compares numbers, arrays, tables and collections of them; texts must be equal."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for name in ours:
            assert_close(ours[name], theirs[name], rtol=rtol, atol=atol)
    elif isinstance(ours, tuple | list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_close(one, other, rtol=rtol, atol=atol)
    elif isinstance(ours, pd.DataFrame):
        pd.testing.assert_frame_equal(ours, theirs, rtol=rtol, atol=atol)
    elif isinstance(ours, torch.Tensor):
        torch.testing.assert_close(ours.cpu(), theirs.cpu(), rtol=rtol, atol=atol, equal_nan=True)
    elif isinstance(ours, np.ndarray | float):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)
    else:
        assert ours == theirs
