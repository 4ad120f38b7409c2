"""Optimisers, one file each, for the one-layer models and for language models alike.

`optimizers` knows their names from the folder alone; torch is imported when one of them is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_interp.registry import Registry

if TYPE_CHECKING:
    from ocr_interp.optim.base import OptimizerKind

optimizers: Registry[OptimizerKind] = Registry(
    "optimizer",
    "ocr_interp.optim",
    "OPTIMIZER",
    beside=("base", "newton_schulz", "options", "stepping"),
)
"""Name -> OptimizerKind: the files of this folder, and what a program registers itself."""
