"""Options of optimisers that a recipe has no field for. No torch unless there are some."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ocr_interp.checks import check_flag, check_number
from ocr_interp.errors import ConfigError, unknown_name
from ocr_interp.optim import optimizers

Option = bool | int | float | str
Options = tuple[tuple[str, Option], ...]


def checked_options(given: Any, used: Sequence[str], fields: Collection[str]) -> Options:
    """Options as a configuration keeps them: sorted pairs, each value of the type of its default.

    Args:
        given: option -> value, or pairs of them.
        used: names of the optimisers of the recipe; each option must be one of theirs.
        fields: settings that the recipe has a field for, which are no options.

    Raises:
        ConfigError: no such form, a field, an option twice, or a value that is not allowed.
        UnknownNameError: an option that none of the optimisers reads, with the close matches.
    """
    named = _named(given)
    if not named:
        return ()
    kinds = [optimizers[name] for name in dict.fromkeys(used)]
    known = {option: default for kind in kinds for option, default in kind.options.items()}
    found: dict[str, Option] = {}
    for name, value in named.items():
        if name in fields:
            raise ConfigError(
                f"{name} is a field of its own, not one of optimizer_options: write {name}={value!r}"
            )
        if name not in known:
            whose = " or ".join(kind.name for kind in kinds)
            raise unknown_name(f"option of {whose}", name, [n for n in known if n not in fields])
        found[name] = _of_type(name, value, known[name])
    for kind in kinds:
        kind.check({**kind.options, **{n: value for n, value in found.items() if n in kind.options}})
    return tuple(sorted(found.items()))


def _named(given: Any) -> dict[str, Any]:
    pairs = list(given.items()) if isinstance(given, Mapping) else given
    well_formed = isinstance(pairs, list | tuple) and all(
        isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
    )
    if not well_formed:
        raise ConfigError(
            f"optimizer_options must map options to values, such as {{'rho': 0.9}}, got {given!r}"
        )
    named = dict(pairs)
    if len(named) < len(pairs):
        raise ConfigError(f"optimizer_options must name each option once, got {given!r}")
    return named


def _of_type(name: str, value: Any, default: Option) -> Option:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(default, bool):
        check_flag(name, value)
        return value
    if isinstance(default, str):
        if not isinstance(value, str):
            raise ConfigError(f"{name} must be a word such as {default!r}, got {value!r}")
        return value
    check_number(name, value)
    if isinstance(default, float):
        return float(value)
    if not isinstance(value, int):
        raise ConfigError(f"{name} must be a whole number, got {value!r}")
    return value
