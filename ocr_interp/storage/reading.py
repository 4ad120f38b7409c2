"""Reads files that somebody else may have written: regular files only, JSON and YAML within bounds.

Every reader of the package goes through these functions. What is not allowed raises OSError (the file) or
ValueError (its content); the callers name the file and say what to do next.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ocr_interp.errors import RunError

MOST_BYTES = 64 * 2**20
"""Largest file of text; callers that write larger ones themselves say so."""

DEEPEST = 64
"""Most lists and objects within each other."""

LONGEST_NUMBER = 60
"""Most digits of a whole number: a count of 6,000 digits is a mistake, and slow to read."""

MOST_VALUES = 100_000
"""Most values of a YAML file, each counted as often as aliases repeat it."""


def require_regular(path: str | Path) -> os.stat_result:
    """Requires that a path is a regular file or a link to one: a pipe or device would be read without end.

    Raises:
        OSError: it is something else, or is not there.
    """
    try:
        found = os.stat(path)
    except ValueError:  # a NUL in the name
        raise OSError(errno.EINVAL, "its name is not allowed", str(path)) from None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory", str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file but a pipe, socket or device", str(path))
    return found


def read_bytes(path: str | Path, most: int = MOST_BYTES) -> bytes:
    """All bytes of a regular file.

    Args:
        path: the file.
        most: largest number of bytes that is read.

    Raises:
        OSError: no such file, no regular one, or a larger one.
    """
    require_regular(path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    with open(os.open(path, flags | getattr(os, "O_BINARY", 0)), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, allowed are {most:,}", str(path))
        return file.read(most)


def read_text(path: str | Path, most: int = MOST_BYTES, encoding: str = "utf-8") -> str:
    """The text of a regular file; errors as in `read_bytes`, and UnicodeDecodeError (a ValueError)."""
    return read_bytes(path, most).decode(encoding)


@contextmanager
def sealed_fields(path: Path, advice: str) -> Iterator[None]:
    """Turns what a file lacks, or has of another type, into an error about the file, whatever its digest.

    Raises:
        RunError: the block raised an error that wrong content causes; it names the file and ends with advice.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise RunError(f"{path} is damaged ({what}): {advice}") from None


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text, with bounds on its depth and on the digits of its whole numbers.

    Raises:
        ValueError: no JSON (json.JSONDecodeError), no UTF-8, too deep, or a number that is too long.
    """
    content = text.decode("utf-8") if isinstance(text, bytes) else text
    too_deep = f"it has lists within lists, or objects, more than {DEEPEST} deep"
    try:
        value = json.loads(content, parse_int=_whole_number)
    except RecursionError:
        raise ValueError(too_deep) from None
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(too_deep)
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return value


def _whole_number(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"it has a whole number of {len(digits):,} digits, allowed are {LONGEST_NUMBER}")
    return int(digits)


def parse_yaml(text: str) -> Any:
    """The value of a YAML document of plain data; aliases are allowed within bounds.

    Raises:
        ValueError: no YAML, several documents, an object of a program, too deep, too many values (as often as
            aliases repeat them), an alias inside of what it stands for, or a number that is too long.
    """
    import yaml  # only those who read YAML pay for this import

    try:
        _refuse_deep_events(text)
        loader = _loader()(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _refuse_expansion(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())[:300]) from None
    except (TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"a value that cannot be read ({type(error).__name__}: {error})") from None


def _loader() -> Any:
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _refuse_deep_events(text: str) -> None:
    """Bounds depth and number of values before anything is built: building recurses."""
    import yaml

    depth = 0
    for values, event in enumerate(yaml.parse(text, Loader=_loader())):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"it has lists or mappings more than {DEEPEST} deep within each other")
        if values > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES:,} values")


def _refuse_expansion(root: Any) -> None:
    """Bounds the size with every alias written out; an alias inside of itself is infinitely deep."""
    import yaml

    known: dict[int, tuple[int, int]] = {}

    def measured(node: Any, above: int) -> tuple[int, int]:
        """(values, levels) of a node that stands under `above` others."""
        if above > DEEPEST:
            raise ValueError(f"an alias stands inside of itself, or aliases are more than {DEEPEST} deep")
        if isinstance(node, yaml.ScalarNode):
            if len(node.value) > LONGEST_NUMBER and node.tag == "tag:yaml.org,2002:int":
                raise ValueError(f"it has a whole number of {len(node.value):,} digits")
            return 1, 0
        if id(node) not in known:
            children = node.value
            if isinstance(node, yaml.MappingNode):
                children = [child for pair in node.value for child in pair]
            found = [measured(child, above + 1) for child in children]
            known[id(node)] = 1 + sum(f[0] for f in found), 1 + max((f[1] for f in found), default=0)
        values, levels = known[id(node)]
        if values > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES:,} values with its aliases written out")
        if above + levels > DEEPEST:
            raise ValueError(f"it has lists or mappings more than {DEEPEST} deep within each other")
        return values, levels

    measured(root, 0)
