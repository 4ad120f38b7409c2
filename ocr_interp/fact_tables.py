"""Tables of named facts: their columns and cells, and how their rows become a mapping."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ocr_interp.errors import ConfigError, shown, unknown_name
from ocr_interp.naming import entries, normal_form, some_of

COLUMNS = ("subject", "fact", "implication", "told")
"""Columns of a table of facts; "told" may be left out."""

_TOLD = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_MISSPELT = 0.8
"""Likeness (difflib's) from which on a column is taken for a misspelling: "tolld" of "told" is 0.89."""


@dataclass(frozen=True)
class NamedMapping:
    """A table of facts as a mapping of indices, in the order of first appearance.

    Attributes:
        subjects, facts, implications: the names.
        fact_of_subject: index of each subject's fact.
        implication_of_fact: index of each fact's implication.
        told: whether each subject's implication is told.
    """

    subjects: tuple[str, ...]
    facts: tuple[str, ...]
    implications: tuple[str, ...]
    fact_of_subject: tuple[int, ...]
    implication_of_fact: tuple[int, ...]
    told: tuple[bool, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Subjects, facts and implications, as `FactRecallTask.names` has them."""
        return (*self.subjects, *self.facts, *self.implications)


def mapping_of_names(facts: Any, implications: Any) -> NamedMapping:
    """A mapping from fact -> subject -> told, and fact -> implication.

    Raises:
        ConfigError: a fact without subjects or without an implication, a subject of two facts, or a value
            that is not True or False.
    """
    for name, given in (("facts", facts), ("implications", implications)):
        if not isinstance(given, Mapping):
            raise ConfigError(f"{name} must be a mapping, got {type(given).__name__}")
    unknown = [fact for fact in implications if fact not in facts]
    if unknown:
        raise unknown_name("fact of implications", unknown[0], tuple(facts))
    missing = [repr(fact) for fact in facts if fact not in implications]
    if missing:
        raise ConfigError(f"implications must have every fact, got none for {some_of(missing)}")
    rows = []
    for fact, subjects in facts.items():
        if not isinstance(subjects, Mapping) or not subjects:
            raise ConfigError(
                f"fact {fact!r} must map its subjects to True (told) or False, at least one, got {subjects!r}"
            )
        for subject, told in subjects.items():
            row = {"subject": subject, "fact": fact, "implication": implications[fact], "told": told}
            rows.append((f"fact {fact!r}", row))
    return mapping_of_rows(rows)


def mapping_of_rows(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> NamedMapping:
    """A mapping from rows with COLUMNS, each with the place that messages name.

    Without a column "told" a row is told if it has an implication. An untold row may leave its implication
    out if another row of the same fact has it.

    Raises:
        ConfigError: a missing or empty cell, a subject twice, a fact with no or two implications, a column
            that reads like one of COLUMNS.
    """
    rows = list(rows)
    first_place = {name: place for place, row in reversed(rows) for name in row}
    for name, place in first_place.items():
        check_column(place, name, first_place, COLUMNS)
    has_told = COLUMNS[3] in first_place
    fact_of: dict[str, str] = {}
    place_of: dict[str, str] = {}
    implication_of: dict[str, tuple[str, str]] = {}
    told: list[bool] = []
    for place, row in rows:
        subject, fact = (_text(place, column, row.get(column)) for column in COLUMNS[:2])
        if subject in fact_of:
            raise ConfigError(
                f"{place}: subject {subject!r} stands in {place_of[subject]} already: one fact a subject"
            )
        fact_of[subject], place_of[subject] = fact, place
        named = not is_empty(row.get("implication"))
        told.append(row_told(place, row, named) if has_told else named)
        if named:
            implication = _text(place, "implication", row["implication"])
            first, where = implication_of.setdefault(fact, (implication, place))
            if first != implication:
                raise ConfigError(
                    f"{place}: fact {fact!r} implies {implication!r}, and in {where} {first!r}: one "
                    "implication a fact (two facts may share one)"
                )
    facts = tuple(dict.fromkeys(fact_of.values()))
    missing = [repr(fact) for fact in facts if fact not in implication_of]
    if missing:
        raise ConfigError(
            f"every fact needs its implication in one row at least, also where nobody is told it (told: no), "
            f"got none for {some_of(missing)}"
        )
    implications = tuple(dict.fromkeys(implication_of[fact][0] for fact in facts))
    index_of_fact = {fact: index for index, fact in enumerate(facts)}
    index_of = {implication: index for index, implication in enumerate(implications)}
    return NamedMapping(
        subjects=tuple(fact_of),
        facts=facts,
        implications=implications,
        fact_of_subject=tuple(index_of_fact[fact] for fact in fact_of.values()),
        implication_of_fact=tuple(index_of[implication_of[fact][0]] for fact in facts),
        told=tuple(told),
    )


def rows_of(table: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Rows with their places, of a DataFrame (pandas or polars), a mapping of columns, or a list of mappings.

    Raises:
        ConfigError: something else, no rows, columns of unequal length, or no column "subject" or "fact".
    """
    if hasattr(table, "to_dicts"):  # polars
        rows = table.to_dicts()
    elif hasattr(table, "to_dict") and hasattr(table, "columns"):  # pandas
        rows = table.to_dict("records")
    elif isinstance(table, Mapping):
        columns = {name: entries(str(name), column) for name, column in table.items()}
        if len({len(column) for column in columns.values()}) > 1:
            sizes = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
            raise ConfigError(f"columns must be of equal length, got {sizes}")
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    else:
        rows = table
    if isinstance(table, str | PurePath):
        reader = "json" if str(table).lower().endswith(".json") else "csv"
        separator = ', sep="\\t"' if str(table).lower().endswith(".tsv") else ""
        raise ConfigError(
            f"a table of facts must be a DataFrame, a mapping of columns or a list of rows, got the path "
            f"{shown(str(table))}: read it first, from_rows(pandas.read_{reader}({str(table)!r}{separator}))"
        )
    if isinstance(rows, str) or not isinstance(rows, Sequence) or not rows:
        raise ConfigError(
            f"a table of facts must be a DataFrame, a mapping of columns or a list of rows with the columns "
            f"{', '.join(COLUMNS)}, at least one row, got {type(table).__name__}"
        )
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ConfigError(f"row {number} must map columns to values, got {row!r}")
    found = list(dict.fromkeys(name for row in rows for name in row))
    for column in COLUMNS[:3]:
        if column not in found:
            raise ConfigError(
                "a table of facts must have the columns subject, fact, implication and optionally told, got "
                f"no {column!r} among {', '.join(map(repr, found))}"
            )
    return [(f"row {number}", row) for number, row in enumerate(rows)]


def check_column(place: str, name: Any, columns: Collection[Any], known: Sequence[str]) -> None:
    """Requires that one of the columns is no misspelling of a known one that is lacking, as nothing reads it.

    Raises:
        ConfigError: a column that reads like a known one; one that is further from all is allowed.
    """
    if not isinstance(name, str) or name in known:
        return
    form = normal_form(name)
    for other in known:
        if form == other:
            raise ConfigError(f"{place}: the column {name!r} must be called {other!r}, else it says nothing")
    lacking = [other for other in known if other not in columns]
    close = difflib.get_close_matches(form, lacking, n=1, cutoff=_MISSPELT) or [
        other for other in lacking if other in form.split("_") or sorted(form) == sorted(other)
    ]  # "is_told" and "tlod" are meant, "gold" is a word of its own
    if close:
        raise ConfigError(
            f"{place}: unknown column {name!r}: did you mean {close[0]!r}? Allowed: {', '.join(known)}; "
            "rename or remove it"
        )


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: None, a blank text, or a table's missing value."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    return (isinstance(value, float) and math.isnan(value)) or type(value).__name__ in ("NAType", "NaTType")


def _text(place: str, column: str, value: Any) -> str:
    """A name; whole numbers are names too, as tables read them."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if is_empty(value) or not isinstance(value, str):
        got = "nothing" if is_empty(value) else repr(value)
        raise ConfigError(f"{place}: {column} must be a text that is not empty, got {got}")
    return value.strip()


def row_told(place: str, row: Mapping[str, Any], named: bool) -> bool:
    """Whether a row of a table with the column told is told; one that is not `named`, has no implication, may
    leave it empty and is not.

    Raises:
        ConfigError: another value, or none beside an implication; the message gives the place.
    """
    value = row.get(COLUMNS[3])
    if not is_empty(value):
        return told_value(place, value)
    if named:
        raise ConfigError(
            f"{place}: told must be one of {', '.join(_TOLD)} where the row names its implication, got "
            "nothing: write yes or no, or remove the column told"
        )
    return False


def told_value(place: str, value: Any) -> bool:
    """A cell of the column told: true or false, yes or no, 1 or 0.

    Raises:
        ConfigError: another value; the message gives the place.
    """
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, bool):
        return plain
    found = _TOLD.get(str(plain).strip().casefold()) if isinstance(plain, str | int) else None
    if found is None:
        raise ConfigError(f"{place}: told must be one of {', '.join(_TOLD)}, got {plain!r}")
    return found
