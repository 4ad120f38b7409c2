"""Reads a file of facts as records: CSV, TSV, JSON or JSON lines; errors name the line."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.located_json import Located, parse_json

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")
LARGEST = 512 * 2**20
"""Bytes of the largest file that is read."""

_HEADER_ROWS = 50
"""How many records say which keys a file of objects has."""


@dataclass(frozen=True)
class Records:
    """The records of a file.

    Attributes:
        path: the file.
        rows: the place of every record, e.g. "facts.csv, line 7", and its values.
        columns: the header of a table, or the keys of the first objects.
        place: where the columns stand, for messages.
        is_table: whether the columns are those of a header.
        separator: of the cells of a table.
    """

    path: Path
    rows: tuple[tuple[str, Mapping[str, Any]], ...]
    columns: tuple[str, ...]
    place: str
    is_table: bool
    separator: str = ","


def read_records(path: Path) -> Records:
    """The records of a file; a JSON file is a list of objects, or one object.

    Raises:
        ConfigError: another format or encoding, a file that cannot be read, a key or column twice, a line
            break or a stray quote in a cell; the message gives the line.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        allowed = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise ConfigError(f"{path} must end with {allowed}, got {path.suffix or 'no suffix'!r}")
    text = _read_text(path)
    if suffix in (".csv", ".tsv"):
        return _read_table(path, text, "\t" if suffix == ".tsv" else ",")
    items = _json_lines(path, text) if suffix == ".jsonl" else _json_items(path, text)
    rows = tuple(items)
    columns = tuple(dict.fromkeys(key for _, values in rows[:_HEADER_ROWS] for key in values))
    return Records(path, rows, columns, rows[0][0] if rows else path.name, is_table=False)


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():  # a folder, a pipe or a device would not end
            raise ConfigError(f"{path} is no file")
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{path} has more than {LARGEST >> 20} MiB: take a part of it")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None


def _json_items(path: Path, text: str) -> Iterator[tuple[str, Located]]:
    items = parse_json(text, path.name)
    if isinstance(items, Located):
        yield f"{path.name}, line {items.line}", items
        return
    if not isinstance(items, list):
        raise ConfigError(f"{path.name} must be a list of objects, got {type(items).__name__}")
    for number, item in enumerate(items, start=1):
        if not isinstance(item, Located):
            raise ConfigError(f"{path.name}, item {number} must be an object, got {item!r:.80}")
        yield f"{path.name}, line {item.line} (item {number})", item


def _json_lines(path: Path, text: str) -> Iterator[tuple[str, Located]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            item = parse_json(line, path.name, first_line=number)
            if not isinstance(item, Located):
                raise ConfigError(f"{path.name}, line {number} must be an object, got {item!r:.80}")
            yield f"{path.name}, line {number}", item


def _read_table(path: Path, text: str, separator: str) -> Records:
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    rows: list[tuple[str, Mapping[str, Any]]] = []
    start = 1
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header)
        start = reader.line_num + 1
        for cells in reader:
            place, start = f"{path.name}, line {start}", reader.line_num + 1
            if not cells:
                continue
            if len(cells) > len(header):
                raise ConfigError(
                    f"{place}: more cells than the header's {len(header)} columns: quote a cell that holds "
                    "the separator"
                )
            filled = dict(zip(header, cells, strict=False))
            _check_cells(place, filled)
            rows.append((place, {**dict.fromkeys(header), **filled}))  # a short row lacks its last cells
    except csv.Error as error:
        raise ConfigError(f"{path.name}, line {start}: no CSV ({error})") from None
    return Records(path, tuple(rows), tuple(header), f"{path.name}, line 1", True, separator)


def _check_header(path: Path, header: list[str]) -> None:
    twice = [f"{times} columns {name!r}" for name, times in Counter(header).items() if name and times > 1]
    if twice:
        raise ConfigError(f"{path.name}, line 1: the header has {', '.join(twice)}: keep one")


def _check_cells(place: str, values: Mapping[str, str]) -> None:
    """A quote that is never closed takes the lines after it into its cell."""
    for column, value in values.items():
        if "\n" in value:
            raise ConfigError(
                f"{place}: {column} holds a line break ({value[:40]!r}): a quote that opens there is closed "
                'lines later; remove it, or write "" for a quote inside a quoted cell'
            )
        if value.count('"') % 2:
            raise ConfigError(
                f"{place}: {column} holds a quote without its partner ({value[:40]!r}): remove it, or "
                "close it"
            )


def text_of(place: str, column: str, values: Mapping[str, Any]) -> str:
    """The text of a column or key of a record, without the blanks around it.

    Raises:
        ConfigError: there is none; the message gives the place and, where the key is missing, the keys that
            are there.
    """
    if column not in values:
        raise ConfigError(f"{place}: {column} is missing; it has {', '.join(map(repr, values)) or 'no keys'}")
    return checked_text(place, column, values[column])


def checked_text(place: str, column: str, value: object) -> str:
    """A value that must be a text of one line, without the blanks around it."""
    if not isinstance(value, str) or not value.strip():
        got = "nothing" if value is None or value == "" else f"{value!r:.80}"
        number = isinstance(value, int | float) and not isinstance(value, bool)
        hint = f': write "{value}" if that is what is meant' if number else ""
        raise ConfigError(f"{place}: {column} must be a text that is not empty, got {got}{hint}")
    text = value.strip()
    odd = next((c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")), None)
    if odd is not None:
        what = "a line break" if odd in "\n\r\u2028\u2029" else f"the control character {odd!r}"
        raise ConfigError(f"{place}: {column} holds {what} ({text[:40]!r}): write it on one line, without")
    return text
