"""Checks of configuration values: each error names the field, the value and what is allowed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeVar

import numpy as np

from ocr_interp.errors import ConfigError, shown, unknown_name

Made = TypeVar("Made")


LARGEST = 2**63 - 1
"""Largest whole number of a field: what an index of a tensor can be."""


def check_count(field: str, value: Any, at_least: int, at_most: int = LARGEST) -> None:
    """Requires a whole number, not a bool, from `at_least` to `at_most`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ConfigError(f"{field} must be a whole number >= {at_least}, got {shown(value)}")
    if int(value) < at_least:
        raise ConfigError(f"{field} must be >= {at_least}, got {shown(int(value))}")
    if int(value) > at_most:
        raise ConfigError(f"{field} must be <= {at_most}, got {shown(int(value))}")


def check_type(field: str, value: Any, wanted: type, hint: str) -> None:
    """Requires an argument of a class, e.g. where arguments are easily swapped.

    Raises:
        ConfigError: another one, with what to pass.
    """
    if not isinstance(value, wanted):
        own = isinstance(getattr(value, "task", None), wanted)
        raise ConfigError(
            f"{field} must be a {wanted.__name__}, got a {type(value).__name__}: "
            + (f"pass its .{field}" if own else hint)
        )


def check_number(
    field: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> None:
    """Requires a finite real number, optionally above, at least or at most a bound."""
    allowed = "a finite number"
    if above is not None:
        allowed += f" > {above:g}"
    if at_least is not None:
        allowed += f" >= {at_least:g}"
    if at_most is not None:
        allowed += f" and <= {at_most:g}" if (above, at_least) != (None, None) else f" <= {at_most:g}"
    ok = isinstance(value, int | float | np.number) and not isinstance(value, bool | np.complexfloating)
    if ok:
        try:
            ok = math.isfinite(value)
        except OverflowError:  # a whole number that no float can be
            ok = False
    if ok and above is not None:
        ok = value > above
    if ok and at_least is not None:
        ok = value >= at_least
    if ok and at_most is not None:
        ok = value <= at_most
    if not ok:
        raise ConfigError(f"{field} must be {allowed}, got {shown(value)}")


def check_choice(field: str, value: Any, allowed: Sequence[str]) -> None:
    """Requires one of the allowed values."""
    if not isinstance(value, str) or value not in allowed:  # an array would be compared entry by entry
        raise ConfigError(f"{field} must be one of {', '.join(map(repr, allowed))}, got {shown(value)}")


def check_flag(field: str, value: Any) -> None:
    """Requires True or False; 0, 1 and "no" are refused, since they hide typing errors."""
    if not isinstance(value, bool):
        raise ConfigError(f"{field} must be True or False, got {shown(value)}")


def check_text(field: str, value: Any) -> None:
    """Requires a text that is not empty and without the control character that no file name may have."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ConfigError(f"{field} must be a text that is not empty, got {shown(value)}")


def check_mapping(
    n_pairs: int,
    m_train: int | None,
    m_test: int | None,
    mapping: tuple[Any, Any, Any],
    implied_relations: int = 1,
) -> None:
    """Requires a complete mapping (fact_of_subject, implication_of_fact, trained) of a fact-recall task."""
    names = ("fact_of_subject", "implication_of_fact", "trained")
    missing = [name for name, part in zip(names, mapping, strict=True) if part is None]
    if missing:
        raise ConfigError(f"{', '.join(names)} must be given together, got no {', '.join(missing)}")
    for name, part in zip(names, mapping, strict=True):
        if not isinstance(part, tuple):
            raise ConfigError(f"{name} must be a tuple with one entry each, got {shown(part)}")
    fact_of_subject, implication_of_fact, trained = mapping
    n_facts, rest = divmod(len(implication_of_fact), implied_relations)
    if rest:
        raise ConfigError(
            f"implication_of_fact must have an entry per fact for each of {implied_relations} relations, got "
            f"{len(implication_of_fact)} in all"
        )
    if m_train is not None or m_test is not None or n_pairs != n_facts:
        raise ConfigError(
            "with a mapping n_pairs must be the number of facts and m_train and m_test must be None, "
            f"got n_pairs={shown(n_pairs)}, m_train={shown(m_train)}, m_test={shown(m_test)}: leave them "
            "out, or use FactRecallTask.from_mapping"
        )
    if len(trained) not in (len(fact_of_subject), implied_relations * len(fact_of_subject)):
        each = f" or {implied_relations} times as many" if implied_relations > 1 else ""
        raise ConfigError(
            f"trained must have one entry a subject ({len(fact_of_subject)}){each}, got {len(trained)}"
        )
    for subject, value in enumerate(trained):
        if not isinstance(value, bool):
            raise ConfigError(f"trained[{subject}] must be True or False, got {shown(value)}")
    for subject, fact in enumerate(fact_of_subject):
        if isinstance(fact, Sequence | np.ndarray) and not isinstance(fact, str):
            raise ConfigError(
                f"fact_of_subject[{subject}] must be one fact, got {shown(fact)}: a subject with several "
                "facts contradicts itself (the same sequence would have two right answers)"
            )
    _check_indices("fact_of_subject", fact_of_subject, n_facts)
    for k in range(implied_relations):
        column = implication_of_fact[n_facts * k : n_facts * (k + 1)]
        name = "implication_of_fact" if implied_relations == 1 else f"implication_of_fact of r{k + 2}"
        n_implications = max((v for v in column if isinstance(v, int)), default=-1) + 1
        _check_indices(name, column, n_implications)
        if n_implications < 2:
            raise ConfigError(f"{name} must name at least 2 implications, got 1: nothing to tell apart")


def _check_indices(name: str, values: tuple[int, ...], n_targets: int) -> None:
    """Requires whole numbers in 0..n_targets-1 that use every one of them."""
    for index, value in enumerate(values):
        if isinstance(value, str):
            raise ConfigError(
                f"{name}[{index}] must be a whole number >= 0, got {value!r}: for names use "
                "FactRecallTask.from_names or from_rows"
            )
        check_count(f"{name}[{index}]", value, 0)
        if value >= n_targets:
            raise ConfigError(f"{name}[{index}] must be < {n_targets}, got {value}")
    # There are at most as many indices as entries: a huge one is never counted up to.
    unused = sorted(set(range(min(n_targets, len(values) + 1))) - set(values))
    if unused or not values:
        raise ConfigError(f"{name} must use every index 0..{n_targets - 1}, got none for {unused[:5]}")


def as_plain(config: Any) -> None:
    """Turns the numbers of a checked frozen dataclass into Python numbers, and float fields into floats."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, bool | str | tuple) or value is None:
            continue
        as_float = "float" in str(field.type)
        object.__setattr__(config, field.name, float(value) if as_float else int(value))


def from_fields(cls: type[Made], part: str, values: Mapping[str, Any]) -> Made:
    """A configuration made of values read from JSON; missing fields take their defaults.

    Args:
        cls: a configuration class, a dataclass.
        part: name of the configuration in messages, e.g. "train".
        values: value of each field, by name.

    Raises:
        UnknownNameError: a field that this version does not know, with the close matches.
        ConfigError: a value that is not allowed.
    """
    known = [field.name for field in dataclasses.fields(cls)]  # pyright: ignore[reportArgumentType]
    for name in values:
        if name not in known:
            raise unknown_name(f"{part} field", name, known)
    return cls(**{name: as_tuples(value) for name, value in values.items()})


Option = bool | int | float | str
Pairs = tuple[tuple[str, Option], ...]
Options = Mapping[str, Option] | Pairs
"""Options of a variant that have no field of their own; a configuration keeps them as sorted pairs."""


def as_options(field: str, given: Any) -> Pairs:
    """Options as sorted pairs, from pairs or a mapping.

    Raises:
        ConfigError: a name that is not a string, a value that is not a number, string or bool, or a name
            given twice.
    """
    pairs = given.items() if isinstance(given, Mapping) else given
    if isinstance(pairs, str) or not isinstance(pairs, Iterable):
        raise ConfigError(f"{field} must be pairs of a name and a value, or a dict, got {shown(given)}")
    found: list[tuple[str, Option]] = []
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ConfigError(f"{field} must be pairs of a name and a value, got {shown(pair)}")
        name, value = pair[0], pair[1].item() if isinstance(pair[1], np.generic) else pair[1]
        if not isinstance(value, bool | int | float | str):
            raise ConfigError(f"{field} must hold numbers, texts or flags, got {name}={shown(value)}")
        found.append((name, value))
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        raise ConfigError(f"{field} must name every option once, got {', '.join(names)}")
    return tuple(sorted(found))


_KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}


def typed_options(
    owner: str,
    given: Mapping[str, Any],
    defaults: Mapping[str, Option],
    hints: Mapping[str, str] | None = None,
) -> Pairs:
    """Options in the types of their defaults, sorted, without those that equal their default.

    Args:
        owner: whose options, in messages, e.g. "method 'lora'".
        given: option -> value.
        defaults: option -> default.
        hints: option -> what to do where its value has another type.

    Raises:
        UnknownNameError: an option that is not among the defaults, with the close matches.
        ConfigError: a value of another type.
    """
    found: dict[str, Option] = {}
    for name, value in given.items():
        if name not in defaults:
            raise unknown_name(f"{owner} option", name, defaults)
        kind = type(defaults[name])
        accepted = (int, float) if kind is float else (kind,)
        if kind is int and isinstance(value, float) and value.is_integer():
            value = int(value)
        if kind is str and type(value) is int and name not in (hints or {}):
            value = str(value)  # of digits, which the command line reads as a number
        fits = isinstance(value, bool) == (kind is bool) and isinstance(value, accepted)
        if fits and isinstance(value, int):  # no float is as large, and no size
            fits = abs(value) <= LARGEST
        if not fits:
            example = f" such as {defaults[name]!r}" if defaults[name] != "" else ""
            raise ConfigError(
                f"option {name!r} of {owner} must be {_KINDS[kind]}{example}, got "
                f"{shown(value)}" + (f": {hints[name]}" if hints and name in hints else "")
            )
        found[name] = kind(value)
    return tuple((name, found[name]) for name in sorted(found) if found[name] != defaults[name])


def as_tuples(value: Any) -> Any:
    """Lists, which JSON makes of tuples, turned back into tuples."""
    if isinstance(value, dict):
        return {name: as_tuples(item) for name, item in value.items()}
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value
