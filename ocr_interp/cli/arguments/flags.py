"""Configurations as the options that make them."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any


def flags_of(*configurations: Any) -> str:
    """The options of configurations whose values differ from the defaults, as they are typed."""
    words: list[str] = []
    for config in configurations:
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if value == field.default:
                continue
            name = field.name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{name}" if value else f"--no-{name}")
            else:
                words += [f"--{name}", *_words(value)]
    return shlex.join(words)


def _words(value: Any) -> list[str]:
    """A value as words; pairs NAME VALUE and sequences become several."""
    if isinstance(value, tuple):
        return [word for each in value for word in _words(each)]
    return [f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)]
