"""JSON whose objects know their line, and in which no key stands twice."""

from __future__ import annotations

import json
import json.decoder
import json.scanner
import re
from bisect import bisect_left
from typing import Any

from ocr_interp.errors import ConfigError


class Located(dict[str, Any]):
    """An object of a JSON file, with the line on which it begins."""

    line: int = 1


class _KeyTwiceError(ValueError):
    """The key is its message."""


def parse_json(text: str, name: str, first_line: int = 1) -> Any:
    """The value of a JSON text; its objects are `Located`.

    Args:
        text: the JSON.
        name: of the file, for messages.
        first_line: the line of the file on which the text begins.

    Raises:
        ConfigError: no JSON, a key twice in one object, or nesting without end.
    """
    breaks = [found.start() for found in re.finditer("\n", text)]
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    whole = json.decoder.JSONObject  # pyright: ignore[reportAttributeAccessIssue]

    def located(start: tuple[str, int], *rest: Any) -> tuple[Located, int]:
        line = first_line + bisect_left(breaks, start[1])
        try:
            found, end = whole(start, *rest)
        except _KeyTwiceError as error:
            raise ConfigError(
                f"{name}, line {line}: the key {str(error)!r} stands twice in one object: keep one"
            ) from None
        found.line = line
        return found, end

    decoder.parse_object = located  # pyright: ignore[reportAttributeAccessIssue]
    # The scanner in C does not call parse_object; this one reads 30 MB a second.
    decoder.scan_once = json.scanner.py_make_scanner(decoder)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        return decoder.decode(text)
    except json.JSONDecodeError as error:
        line = first_line - 1 + error.lineno
        raise ConfigError(f"{name}, line {line}, column {error.colno}: no JSON ({error.msg})") from None
    except RecursionError:
        raise ConfigError(f"{name} must be a list of objects, got lists within lists without end") from None
    except ConfigError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError(f"{name}: no JSON that can be read ({error})") from None


def _object(pairs: list[tuple[str, Any]]) -> Located:
    found = Located(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _KeyTwiceError(next(key for k, key in enumerate(keys) if key in keys[:k]))
    return found
