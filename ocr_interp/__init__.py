"""ocr-interp: mechanistic interpretability of out-of-context reasoning in transformers.

OCR means out-of-context reasoning here, never character recognition. The public names below are
imported when they are first used: `import ocr_interp` pulls in neither torch nor transformer_lens.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocr_interp.task import FactRecallTask as FactRecallTask

__version__ = "0.1.0"

_HOME_OF_NAME = {
    "FactRecallTask": "ocr_interp.task",
}

__all__ = ["__version__", *_HOME_OF_NAME]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF_NAME:
        raise AttributeError(f"module 'ocr_interp' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME_OF_NAME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
