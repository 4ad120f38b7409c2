"""What an edit is, and an intervention: an edit at a place.

A new edit is one file in this folder: a frozen dataclass that inherits `Edit` and defines `prepare`, and the
line `EDIT = ItsName`. Its description, random control, number of touched positions, repeatability and
command line follow from its fields; override what does not fit. Your own edit needs no file:
`ablated` and `run_ablation_study` accept it as it is, and `with edits.registered("scale", Scale):` makes it
known to the command line.
"""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.ablation.binding import Bound, digest
from ocr_interp.ablation.controls import RANDOM, Draw
from ocr_interp.ablation.where.base import Place, Replacement, Where
from ocr_interp.errors import ConfigError, ModelError, OcrInterpError, unknown_name
from ocr_interp.hooked.passes import TokenReader
from ocr_interp.hooked.protocol import HookedModel


class Edit(ABC):
    """A replacement of the values at a site or on a path. Inherit from it in a frozen dataclass.

    Attributes:
        former_names: names used in descriptions instead of the default (the class's name, with "Path" in
            front on a path), because tables on disk were written with them.
        needs_others: whether values come from other prompts of the same batch and length; a study refuses
            batches that leave one prompt alone.
    """

    former_names: ClassVar[Mapping[str, str]] = {}
    needs_others: ClassVar[bool] = False

    def at(self, where: Where) -> Intervention:
        """This edit at a site or on a path, as an intervention for `ablated` and `run_ablation_study`.

        Raises:
            ModelError: this edit has no meaning at the place; the message says what to use instead.
        """
        return Intervention(where, self)

    @abstractmethod
    def prepare(self, place: Place) -> Replacement:
        """Called once when `ablated` is entered; returns the function (value, mask) -> replacement.

        Seed random generators here, and run references here (`place.read`).
        """

    def check(self, where: Where) -> None:  # noqa: B027  # most edits have a meaning everywhere
        """Raises ModelError if this edit has no meaning at a place; the message says what to use instead."""

    def describe(self) -> str:
        """The options as one phrase that is equal in every process; studies are resumed by it.

        Fields that are None are left out; tensors and arrays are described by a digest.

        Raises:
            ModelError: a field cannot be described in this way: override `describe`.
        """
        shown = {name: value for name, value in self._options().items() if value is not None}
        return " ".join(f"{name} {_said(type(self), name, value)}" for name, value in shown.items())

    @property
    def repeats(self) -> bool:
        """Whether the edit does the same each time `ablated` is entered; a study requires it.

        By default False if a field is a random generator, whose state depends on what ran before.
        """
        generators = torch.Generator | np.random.Generator
        return not any(isinstance(value, generators) for value in self._options().values())

    def controls(self, where: Where, draw: Draw) -> dict[str, Intervention]:
        """Matched random interventions by name, e.g. {RANDOM: ...}; empty if there is nothing to draw.

        By default the same edit at a random place of the same size.
        """
        drawn = where.random(draw)
        return {} if drawn is None else {RANDOM: self.at(drawn)}

    def touched(
        self,
        where: Where,
        model: HookedModel,
        tokens: Int[Tensor, "batch pos"],
        labels: Sequence[str] | None,
    ) -> Float[Tensor, " batch"]:
        """How many positions of each prompt are edited; by default all that the place chooses."""
        return where.touched(model, tokens, labels)

    @classmethod
    def from_text(cls, options: Mapping[str, str], prompts: Int[Tensor, "batch pos"]) -> Edit:
        """The edit for NAME or NAME:option=value,option=value on the command line.

        By default the options are the fields; values are read as Python literals if possible, else as text.

        Args:
            options: name -> value as text.
            prompts: token ids of the examples that will be measured, for edits with a reference.

        Raises:
            UnknownNameError: an unknown option; the message lists close matches.
            ConfigError: a missing option, or an edit that cannot be made from text.
        """
        return cls._made(options)

    @classmethod
    def _made(cls, options: Mapping[str, str], **given: Any) -> Edit:
        """The edit from options given as text and from other fields given as values."""
        known = {each.name: each for each in fields(cls)} if is_dataclass(cls) else {}
        known = {name: each for name, each in known.items() if name not in given}
        for name in options:
            if name not in known:
                raise unknown_name(f"option of {cls.__name__}", name, known)
        bare = [n for n, each in known.items() if each.default is MISSING and each.default_factory is MISSING]
        missing = [name for name in bare if name not in options]
        if missing:
            raise ConfigError(
                f"{cls.__name__} must have {', '.join(missing)}, got {', '.join(options) or 'no option'}: "
                "write NAME:option=value,option=value"
            )
        return cls(**given, **{name: _literal(text) for name, text in options.items()})

    def _options(self) -> dict[str, Any]:
        if not is_dataclass(self):
            raise ModelError(
                f"an edit must be a frozen dataclass, got {type(self).__name__}: decorate it with "
                "@dataclass(frozen=True), so that its fields are its options"
            )
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True)
class Intervention:
    """An edit at a place; write `edit.at(where)`.

    Attributes:
        where: a `Site`, a `Path` or `Edges`.
        what: the edit.

    Raises:
        OcrInterpError: an argument that is not an edit, or not a place.
        ModelError: the edit has no meaning at the place; the message says what to use instead.
    """

    where: Where
    what: Edit

    def __post_init__(self) -> None:
        if not isinstance(self.what, Edit):
            raise OcrInterpError(f"an intervention needs an edit, got {self.what!r}: write Zero().at(site)")
        if not isinstance(self.where, Where):
            raise OcrInterpError(
                f"an intervention needs a Site, a Path or Edges, got {self.where!r}: write e.g. "
                f'{type(self.what).__name__}(...).at(Site.at("z", layer=0, heads=[3]))'
            )
        self.what.check(self.where)

    def describe(self) -> str:
        """One phrase that identifies the intervention; studies are resumed by it."""
        name = f"{self.where.prefix}{type(self.what).__name__}"
        name = self.what.former_names.get(name, name)
        return " ".join(part for part in (name, self.where.describe(), self.what.describe()) if part)

    def bind(self, model: HookedModel, reader: TokenReader, labels: Sequence[str] | None) -> Bound:
        """Checks the intervention against the model and returns its hooks; attaches nothing."""
        return self.where.bind(model, reader, labels, self.what.prepare, self.describe())

    @property
    def repeats(self) -> bool:
        """Whether applying it again has the same effect."""
        return self.what.repeats

    @property
    def needs_others(self) -> bool:
        """Whether it takes values of other prompts of the batch."""
        return self.what.needs_others

    def controls(self, draw: Draw) -> dict[str, Intervention]:
        """Matched random interventions by name; empty if there is nothing to draw."""
        return self.what.controls(self.where, draw)

    def touched(
        self, model: HookedModel, tokens: Int[Tensor, "batch pos"], labels: Sequence[str] | None
    ) -> Float[Tensor, " batch"]:
        """How many positions of each prompt it edits (for paths, key positions); heads are not counted."""
        return self.what.touched(self.where, model, tokens, labels)


def _said(cls: type, name: str, value: Any) -> str:
    """The value of an option as text that is equal in every process."""
    if isinstance(value, Tensor | np.ndarray):
        return digest(torch.as_tensor(value))
    if isinstance(value, torch.Generator | np.random.Generator):
        return "generator"
    if isinstance(value, tuple | list):
        return ",".join(_said(cls, name, each) for each in value)
    if isinstance(value, str | bool | int | float | np.generic):
        return str(value)
    raise ModelError(
        f"{cls.__name__} must define describe(): its option {name} is a {type(value).__name__}, of which no "
        "phrase is known that is the same in every process"
    )


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
