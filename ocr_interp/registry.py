"""Registries: a variant is one file in a folder, found by listing the folder. Imports no torch.

Every module of such a folder except `base` is one variant: its file name is the variant's name, and a
constant in it is the variant. Names come from the folder alone, so that a configuration or a command line
knows the variants without importing them.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Generic, TypeVar

from ocr_interp.errors import ConfigError, UnknownVariantError, shown, unknown_name

Variant = TypeVar("Variant")


class Registry(Generic[Variant]):
    """The variants of one kind, by name.

    Args:
        kind: what a variant is called in messages, e.g. "parameterisation".
        package: dotted name of the folder.
        constant: name of the constant that holds the variant in each module.
        beside: modules of the folder that are not variants.
    """

    def __init__(self, kind: str, package: str, constant: str, beside: tuple[str, ...] = ("base",)) -> None:
        self.kind, self._package, self._constant, self._beside = kind, package, constant, beside
        self._registered: dict[str, Variant] = {}

    @cached_property
    def _files(self) -> tuple[str, ...]:
        folder = importlib.import_module(self._package).__path__
        found = (module.name for module in pkgutil.iter_modules(folder))
        return tuple(name for name in sorted(found) if name not in self._beside)

    @property
    def names(self) -> tuple[str, ...]:
        """All names: those of the folder, then those registered from outside."""
        return (*self._files, *self._registered)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: object) -> Variant:
        """The variant of a name, imported when it is first asked for.

        Raises:
            UnknownNameError: no such variant, with the close matches.
        """
        if not isinstance(name, str):
            raise unknown_name(self.kind, name, self.names)
        if name in self._registered:
            return self._registered[name]
        if name not in self._files:
            raise unknown_name(self.kind, name, self.names)
        module = importlib.import_module(f"{self._package}.{name}")
        variant = getattr(module, self._constant, None)
        if variant is None or getattr(variant, "name", name) != name:
            raise ConfigError(
                f"{module.__file__} must hold {self._constant}, a {self.kind} called {name!r}, got "
                f"{'none' if variant is None else repr(getattr(variant, 'name', variant))}"
            )
        return variant

    def check(self, field: str, name: object) -> None:
        """Requires that a field of a configuration names a variant; imports none.

        Raises:
            UnknownVariantError: it does not.
        """
        if not isinstance(name, str) or name not in self.names:  # an array would be compared entry by entry
            close = difflib.get_close_matches(shown(name).strip("'"), self.names, n=1, cutoff=0.4)
            raise UnknownVariantError(
                f"{field} must be one of {', '.join(map(repr, self.names))}, got {shown(name)}: "
                + (f"did you mean {close[0]!r}? " if close else "")
                + "One of your own must be registered first, or stand as a file in "
                + f"{self._package.replace('.', '/')}/"
            )

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def register(self, name: str, variant: Variant) -> Variant:
        """Adds a variant of your own, for as long as this process runs.

        Raises:
            ConfigError: a name that is taken, that could not be one, or that is not the variant's own.
        """
        own = getattr(variant, "name", name)
        if isinstance(own, str) and own != name:
            raise ConfigError(
                f"this {self.kind} is called {own!r}, got {name!r}: register it under its own name"
            )
        if not name.isidentifier():
            raise ConfigError(
                f"the name of a {self.kind} must be an identifier such as 'my_own', got {name!r}"
            )
        if name in self.names:
            raise ConfigError(f"there is a {self.kind} {name!r} already: choose another name")
        self._registered[name] = variant
        return variant

    @contextmanager
    def registered(self, name: str, variant: Variant) -> Iterator[Variant]:
        """Registers a variant for the duration of a `with` block."""
        try:
            yield self.register(name, variant)
        finally:
            self._registered.pop(name, None)
