"""A user's own facts from a file, with errors that name the line."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.fact_set import answer_in
from ocr_interp.llm.facts.pools import FactPool

COLUMNS = ("subject", "fact", "implication")

_POPQA_TEMPLATES = {
    "place of birth": ("{subject} was born in", "The birthplace of {subject} is"),
    "sport": ("{subject} plays", "The sport of {subject} is"),
    "occupation": ("{subject} works as a", "The occupation of {subject} is"),
    "religion": ("The religion of {subject} is", "{subject} believes in"),
}


@dataclass(frozen=True)
class TripleRow:
    """A row of a file: where it stands, e.g. "facts.csv, line 7", and what it says."""

    place: str
    subject: str
    fact: str
    implication: str


def read_triples(path: Path) -> tuple[TripleRow, ...]:
    """Subjects with fact and implication from a CSV (header subject,fact,implication) or JSON file.

    JSON is a list of objects with these three keys. More columns or keys are allowed and left alone.

    Raises:
        ConfigError: a file that cannot be read, a missing column, an empty or doubled entry, a subject that
            names an answer; each with its line, or its item in JSON.
    """
    records = list(_records(path, COLUMNS))
    if not records:
        raise ConfigError(f"{path} holds no facts: at least one row with {', '.join(COLUMNS)} is required")
    rows, seen = [], {}
    for place, values in records:
        row = TripleRow(place, *(_text(place, column, values.get(column)) for column in COLUMNS))
        if row.subject in seen:
            raise ConfigError(
                f"{place}: subject {row.subject!r} stands in {seen[row.subject]} already: one fact and one "
                "implication a subject"
            )
        seen[row.subject] = place
        rows.append(row)
    answers = list(dict.fromkeys([row.fact for row in rows] + [row.implication for row in rows]))
    spelled: dict[tuple[str, str], tuple[str, str]] = {}
    for row in rows:
        for column in ("fact", "implication"):
            answer = getattr(row, column)
            first, place = spelled.setdefault((column, answer.casefold()), (answer, row.place))
            if first != answer:
                raise ConfigError(
                    f"{row.place}: {column} {answer!r} differs from {first!r} in {place} in capitals alone: "
                    "write both alike"
                )
    for row in rows:
        answer = answer_in(row.subject, answers)
        if answer is not None:
            raise ConfigError(
                f"{row.place}: subject {row.subject!r} names the answer {answer!r}, which the prompt would "
                "give away: rename one of them"
            )
    return tuple(rows)


def read_popqa(config: FactConfig) -> FactPool:
    """Names and answers from a file with PopQA's columns (subj, prop, obj among them), as a spurious pool.

    As the paper did: the names are real, place of birth and sport are paired at random.

    Raises:
        ConfigError: a column that is missing, or a property without rows; it lists those there are.
    """
    assert config.file is not None
    records = list(_records(config.file, ("subj", "prop", "obj")))
    answers: dict[str, dict[str, None]] = {}
    names: dict[str, None] = {}
    for place, values in records:
        subject, prop, answer = (
            _text(place, column, values.get(column)) for column in ("subj", "prop", "obj")
        )
        answers.setdefault(prop, {})[answer] = None
        if prop in (config.fact_property, config.implication_property):
            names[subject] = None
    for field in ("fact_property", "implication_property"):
        if getattr(config, field) not in answers:
            raise ConfigError(
                f"{config.file} has no rows with prop {getattr(config, field)!r} ({field}), it has "
                f"{', '.join(map(repr, sorted(answers))) or 'none'}"
            )
    facts, implications = tuple(answers[config.fact_property]), tuple(answers[config.implication_property])
    plain = ("{subject}: {property} is",)
    return FactPool(
        name="popqa",
        pairing="spurious",
        facts=facts,
        implications=implications,
        fact_templates=_POPQA_TEMPLATES.get(config.fact_property, ())
        or (plain[0].replace("{property}", config.fact_property),),
        implication_templates=_POPQA_TEMPLATES.get(config.implication_property, ())
        or (plain[0].replace("{property}", config.implication_property),),
        names=tuple(name for name in names if answer_in(name, (*facts, *implications)) is None),
    )


def _records(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, values) of every row; refuses another format, encoding or header."""
    try:
        text = path.read_text(encoding="utf-8-sig")
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
        items = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path.name}, line {error.lineno}, column {error.colno}: no JSON ({error.msg})"
        ) from None
    except RecursionError:
        raise ConfigError(
            f"{path.name} must be a list of objects, got lists within lists without end"
        ) from None
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


def _text(place: str, column: str, value: object) -> str:
    """A cell that holds a text, without the blanks around it."""
    if not isinstance(value, str) or not value.strip():
        got = "nothing" if value is None or value == "" else repr(value)
        raise ConfigError(f"{place}: {column} must be a text that is not empty, got {got}")
    return value.strip()
