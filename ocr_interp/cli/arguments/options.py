"""How options of variants, such as --ov-options, are read: as NAME VALUE pairs."""

from __future__ import annotations

from typing import Any

import tyro

from ocr_interp.checks import Option, Options
from ocr_interp.cli.arguments.values import as_value

READING = tyro.constructors.ConstructorRegistry()
"""Rules that tyro follows beside its own."""

_KINDS = (Options, Options | dict[str, Option])


@READING.primitive_rule
def _named_values(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
    """The rule for options of a variant; None for any other type, which tyro reads itself."""
    if info.type not in _KINDS:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[NAME VALUE [NAME VALUE ...]]",
        instance_from_str=_pairs,
        is_instance=lambda value: isinstance(value, tuple | dict),
        str_from_instance=lambda value: [str(part) for pair in dict(value).items() for part in pair],
    )


def _pairs(words: list[str]) -> tuple[tuple[str, Any], ...]:
    if len(words) % 2:
        raise ValueError(f"must be pairs NAME VALUE, e.g. rank 3, got {' '.join(words)}")
    return tuple((name, as_value(value)) for name, value in zip(words[::2], words[1::2], strict=True))
