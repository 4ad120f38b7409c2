"""Results as plain data that JSON can hold."""

from __future__ import annotations

import dataclasses
import math
import unicodedata
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


_DIRECTION = frozenset(range(0x202A, 0x202F)) | frozenset(range(0x2066, 0x206A))
"""Characters that turn the direction of the text after them."""


def printable(text: str) -> str:
    """A text for a terminal or a picture: line breaks stay, all that is no character is written as an escape.

    Labels come from tokens and files of others: control characters would move the cursor or end an SVG, a
    surrogate without its partner cannot be written as UTF-8, and a turned direction shows another text.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_shown(char) else _escaped(char) for char in text)


def _is_shown(char: str) -> bool:
    if char == "\n":
        return True
    code = ord(char)
    no_character = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return unicodedata.category(char) not in ("Cc", "Cs") and code not in _DIRECTION and not no_character


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
