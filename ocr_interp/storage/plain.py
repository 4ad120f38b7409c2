"""Results as plain data that JSON can hold."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np


def plain(value: Any, digits: int | None = None) -> Any:
    """A result converted to values that JSON can hold.

    Dataclasses and dictionaries become objects, arrays, lists and tuples become lists, numpy numbers become
    Python numbers, and NaN and infinite numbers become null. Anything else is unchanged.

    Args:
        value: the result.
        digits: significant digits of floating-point numbers; None keeps all.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name), digits) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item, digits) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist(), digits)
    if isinstance(value, list | tuple):
        return [plain(item, digits) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item(), digits)
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return value if digits is None else float(f"{value:.{digits}g}")
