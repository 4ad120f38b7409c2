"""What a wrong command, subcommand or option was probably meant to be."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import tyro

_INSTEAD = {"help": "--help", "version": "--version"}
"""Words that other programs have as commands, and what they are here."""

_POSITIONAL = typing.get_args(tyro.conf.Positional[int])[1]


def subcommands(union: Any) -> dict[str, type]:
    """Name -> class of the commands in a union of `Annotated[Class, tyro.conf.subcommand(name)]`."""
    members = [typing.get_args(member) for member in typing.get_args(union)]
    return {about.name: cls for cls, about in members}


def complaint(program: str, commands: Mapping[str, type], arguments: Sequence[str]) -> str | None:
    """One sentence about the first argument that no command knows, with the closest matches.

    Args:
        program: the command so far, for the hint at its --help.
        commands: the commands that may come next, by name.
        arguments: what was typed after it.

    Returns: None if every command and every option exists; then something else is wrong.
    """
    first = arguments[0] if arguments else None
    if first is None or first not in commands:
        return None if first is None else _unknown_command(program, commands, first)
    cls, rest = commands[first], arguments[1:]
    inner = getattr(cls, "COMMANDS", None)
    if inner is not None:
        if not rest:
            return f"{program} {first} needs one of {', '.join(inner)}"
        return complaint(f"{program} {first}", inner, rest)
    known = options(cls)
    for argument in rest:
        name = argument.partition("=")[0].replace("_", "-")
        if name.startswith("--") and name not in known and name != "--help":
            return _unknown_option(f"{program} {first}", name, known, commands)
    return None


def options(cls: Any) -> dict[str, str]:
    """Option -> first line of its description, of a command and of the configurations in its fields."""
    found: dict[str, str] = {}
    about = dict(re.findall(r"^\s+(\w+): (.+)$", cls.__doc__ or "", re.MULTILINE))
    for name, field, kind in _fields(cls):
        if dataclasses.is_dataclass(kind):
            found |= options(kind)
            continue
        found[f"--{name}"] = about.get(field, "")
        if kind is bool:
            found[f"--no-{name}"] = ""
    return found


def _fields(cls: Any) -> list[tuple[str, str, Any]]:
    """(option without dashes, field, type) of every field that is an option."""
    plain, annotated = typing.get_type_hints(cls), typing.get_type_hints(cls, include_extras=True)
    found = []
    for field in dataclasses.fields(cls):
        settings = getattr(annotated[field.name], "__metadata__", ())
        if _POSITIONAL not in settings:
            named = next((each.name for each in settings if getattr(each, "name", None)), field.name)
            found.append((named.replace("_", "-"), field.name, plain[field.name]))
    return found


def _unknown_command(program: str, commands: Mapping[str, type], got: str) -> str:
    known = list(commands)
    if got in _INSTEAD:
        return f"unknown command {got!r}: did you mean {program} {_INSTEAD[got]}?"
    if got.startswith("-"):
        return f"unknown option {got} of {program}: a command comes first, one of {', '.join(known)}"
    return f"unknown command {got!r}: {_meant(got.lower(), known)}commands of {program}: {', '.join(known)}"


def _unknown_option(program: str, got: str, known: Mapping[str, str], commands: Mapping[str, type]) -> str:
    words = re.escape(got.removeprefix("--").replace("-", " "))
    described = [name for name, about in known.items() if re.match(rf"{words}\b", about.lower())]
    hint = f"did you mean {described[0]}? " if described else _meant(got, list(known))
    others = {name: cls for name, cls in commands.items() if not hasattr(cls, "COMMANDS")}
    elsewhere = [name for name, cls in others.items() if got in options(cls)]
    has = f"{', '.join(elsewhere)} {'has' if len(elsewhere) == 1 else 'have'} {got}; " if elsewhere else ""
    return f"unknown option {got} of {program}: {hint}{has}{program} --help lists all"


def _meant(got: str, known: Sequence[str]) -> str:
    # Dashes would make all options look alike; a prefix such as train. is not written here.
    plain = {name.lstrip("-"): name for name in known}
    close = difflib.get_close_matches(got.lstrip("-").rpartition(".")[2], plain, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(plain[name] for name in close)}? " if close else ""
