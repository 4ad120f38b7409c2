"""Names for the symbols of a task: which are allowed, and how columns of them are read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from ocr_interp.errors import ConfigError, shown

RESERVED = re.compile(r"r1|r2|EOS|noise\d+")
"""Labels that every task has for its other tokens; one with further implications also has r3 and on."""

MOST_ENTRIES = 10**6
"""Most entries of a list of names or of a mapping."""

_SHOWN = 5
"""Largest number of offending names in a message."""


def normal_form(name: str) -> str:
    """What two spellings of one name have in common: composed, without invisible characters, one case."""
    visible = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFKC", " ".join(visible.split()).casefold())


def check_names(
    names: tuple[Any, ...], n_subjects: int, n_facts: int, n_implications: int, implied_relations: int = 1
) -> None:
    """Requires a name for every subject, fact and implication, all of them distinct in their normal form.

    Raises:
        ConfigError: another number of names, an empty name or one with control characters, a label of another
            token, or names that are alike; the message lists them.
    """
    kinds = ["subject"] * n_subjects + ["fact"] * n_facts + ["implication"] * n_implications
    if len(names) != len(kinds):
        raise ConfigError(
            f"names must name {n_subjects} subjects, then {n_facts} facts, then {n_implications} "
            f"implications ({len(kinds)} in all), got {len(names)}"
        )
    further = {f"r{k}" for k in range(3, implied_relations + 2)}
    bad, alike, seen = [], [], {}
    for kind, name in zip(kinds, names, strict=True):
        if not isinstance(name, str) or not normal_form(name) or name != name.strip() or not _printable(name):
            bad.append(f"{kind} {shown(name)}")
            continue
        form = normal_form(name)
        if RESERVED.fullmatch(name) or name in further:
            bad.append(f"{kind} {shown(name)} (the label of another token)")
        elif form in seen:
            alike.append(f"{seen[form]} and {kind} {shown(name)}")
        seen.setdefault(form, f"{kind} {shown(name)}")
    if bad:
        raise ConfigError(
            f"names must be texts without blanks around them, control characters or reserved labels (r1, r2, "
            f"noise0, ..., EOS), got {some_of(bad)}"
        )
    if alike:
        raise ConfigError(
            f"names must differ in more than capitals, accents' encoding and blanks, got {some_of(alike)}: "
            'give each a name of its own, e.g. "Paris (city)"'
        )


def _printable(name: str) -> bool:
    return not any(unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") for c in name)


def some_of(found: Sequence[str]) -> str:
    """The first offending names of a message, and how many more there are."""
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(_distinguishable(text) for text in found[:_SHOWN]) + more


def _distinguishable(text: str) -> str:
    """The text; with escapes for what is not ASCII where only that tells spellings apart."""
    plain = unicodedata.normalize("NFKC", text)
    return text if plain == text and all(unicodedata.category(c) != "Cf" for c in text) else ascii(text)[1:-1]


def entries(name: str, values: Any) -> tuple[Any, ...]:
    """A column as Python values: of a list, a numpy array, a Series of pandas or polars, or a tensor.

    Raises:
        ConfigError: something without an order or of more than one value's depth, or more entries than a
            task has tokens.
    """
    given = type(values).__name__
    for method in ("tolist", "to_list"):
        if not isinstance(values, Sequence) and hasattr(values, method):
            values = getattr(values, method)()
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(
            f"{name} must be a sequence with one entry each (a list, an array, a column of a table), "
            f"got {given}"
        )
    if len(values) > MOST_ENTRIES:
        raise ConfigError(f"{name} must have at most {MOST_ENTRIES:,} entries, got {len(values):,}")
    return tuple(value.item() if hasattr(value, "item") else value for value in values)


def per_relation(name: str, values: Any) -> list[tuple[Any, ...]]:
    """One column, or one column per implication relation if the entries are columns themselves.

    Raises:
        ConfigError: as `entries`, or columns of unequal length.
    """
    found = entries(name, values)
    if not found or not all(isinstance(each, list | tuple) or hasattr(each, "__array__") for each in found):
        return [found]
    columns = [entries(f"{name}[{k}]", each) for k, each in enumerate(found)]
    if len({len(column) for column in columns}) > 1:
        sizes = ", ".join(str(len(column)) for column in columns)
        raise ConfigError(f"{name} must have as many entries for every relation, got {sizes}")
    return columns
