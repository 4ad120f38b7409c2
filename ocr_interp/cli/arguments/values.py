"""Words of the command line and of YAML files as Python values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORDS = {"true": True, "false": False, "none": None, "null": None}


def as_value(value: Any) -> Any:
    """Turns text into bool, None, int or float where it can be read as one, also inside containers."""
    if isinstance(value, Mapping):
        return {key: as_value(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [as_value(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if value.lower() in _WORDS:
        return _WORDS[value.lower()]
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    return value
