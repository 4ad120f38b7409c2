"""Reads the rows of a user's CSV, TSV or JSON file; errors name the line."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ocr_interp.errors import ConfigError
from ocr_interp.storage.reading import parse_json, read_text


def read_records(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, values) of every row; another format, encoding or header raises ConfigError."""
    try:
        text = read_text(path, encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path} is no file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    suffix = path.suffix.lower()
    if suffix == ".json":
        yield from _json_records(path, text)
    elif suffix in (".csv", ".tsv"):
        yield from _csv_records(path, text, columns)
    else:
        raise ConfigError(f"{path} must end with .csv, .tsv or .json, got {path.suffix or 'no suffix'!r}")


def _json_records(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        items = parse_json(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path.name}, line {error.lineno}, column {error.colno}: no JSON ({error.msg})"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{path.name} must be a list of objects, but {error}") from None
    if not isinstance(items, list):
        raise ConfigError(f"{path.name} must be a list of objects, got {type(items).__name__}")
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise ConfigError(f"{path.name}, item {number} must be an object, got {item!r}")
        yield f"{path.name}, item {number}", item


def _csv_records(path: Path, text: str, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(text), delimiter=separator, strict=True)
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        for column in columns:
            if column not in header:
                close = difflib.get_close_matches(column, header, n=1)
                hint = f" (is it {close[0]!r}?)" if close else ""
                if len(header) == 1:
                    hint += f" (are columns separated by {separator!r}?)"
                raise ConfigError(
                    f"{path.name}, line 1: the header has no column {column!r}{hint}, "
                    f"required: {', '.join(columns)}, got: {', '.join(header) or 'nothing'}"
                )
            if header.count(column) > 1:
                raise ConfigError(
                    f"{path.name}, line 1: the header has {header.count(column)} columns {column!r}: keep one"
                )
        for values in reader:
            place = f"{path.name}, line {reader.line_num}"
            if None in values:
                raise ConfigError(
                    f"{place}: more cells than the header's {len(header)} columns: quote a cell that holds "
                    "the separator"
                )
            yield place, values
    except csv.Error as error:
        raise ConfigError(f"{path.name}, line {reader.line_num + 1}: no CSV ({error})") from None


def text_cell(place: str, column: str, value: object) -> str:
    """A cell that must contain a text, without the spaces around it."""
    if not isinstance(value, str) or not value.strip():
        got = "nothing" if value is None or value == "" else repr(value)
        raise ConfigError(f"{place}: {column} must be a text that is not empty, got {got}")
    return value.strip()
