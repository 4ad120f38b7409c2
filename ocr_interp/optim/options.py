"""Options of optimisers that a recipe has no field for. Imports torch only if there are any."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ocr_interp.checks import Option, Pairs, as_options, check_flag, check_number
from ocr_interp.errors import ConfigError, unknown_name
from ocr_interp.optim import optimizers


def checked_options(given: Any, used: Sequence[str], fields: Collection[str]) -> Pairs:
    """Options as a configuration keeps them: sorted pairs, each value of the type of its default.

    Args:
        given: option -> value, or pairs of them.
        used: names of the optimisers of the recipe; each option must belong to one of them.
        fields: settings that the recipe has a field for; they are not allowed as options.

    Raises:
        ConfigError: neither pairs nor a dict, a setting with a field, an option given twice, or a value that
            is not allowed.
        UnknownNameError: an option that none of the optimisers reads, with the close matches.
    """
    named = dict(as_options("optimizer_options", given))
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


def _of_type(name: str, value: Any, default: Option) -> Option:
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
