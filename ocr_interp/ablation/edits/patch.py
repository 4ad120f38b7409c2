"""Patch: replaces values by given ones, or by those of a donor prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ocr_interp.ablation.binding import Moved
from ocr_interp.ablation.edits.base import Edit
from ocr_interp.ablation.where.base import Place, Replacement, Where
from ocr_interp.ablation.where.edges import Edges
from ocr_interp.ablation.where.path import Path
from ocr_interp.errors import ConfigError, ModelError
from ocr_interp.hooked.padding import Padding
from ocr_interp.hooked.tokens.ids import Ids
from ocr_interp.hooked.tokens.prompts import prompts_given, with_mask


@dataclass(frozen=True, eq=False)
class Patch(Edit):
    """Sets the chosen entries to those of another prompt: activation patching, and path patching.

    Attributes:
        source: values of the whole activation at the hook, usually from a cache: one sequence, or one per
            prompt. Only at sites.
        donor: instead of source, one prompt, or one per prompt of the batch, with the same length as the
            prompts: token ids in lists, arrays or tensors, labels or single-token strings in lists, a text or
            several for the tokenizer, what the tokenizer returned, or a column of a table. They are run once,
            when the block is entered, through the model in its state at that time. On a path, `inputs` must
            name the tokens of the prompts and of the donors: to replace one subject by another, name both
            subjects, or all.
        attention_mask: of padded donors, 1 at tokens and 0 at padding. All donors must have one length.

    Raises:
        ModelError: both or neither of source and donor, a source with NaN, or a source on a path; in the
            forward pass, another shape.
        InterventionNeverFiredError: the donor has no token of the path.
    """

    source: Any = field(default=None, repr=False)
    donor: Ids = field(default=None, repr=False, kw_only=True)
    attention_mask: Any = field(default=None, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        if (self.source is None) == (self.donor is None):
            raise ModelError(
                f"a patch needs either source or donor, got {'neither' if self.donor is None else 'both'}: "
                "pass source=cache[hook], or donor=token ids of a prompt"
            )
        if self.source is not None:
            object.__setattr__(self, "source", torch.as_tensor(self.source))
        if self.donor is not None:
            donor, mask = with_mask(self.donor, self.attention_mask, "donor")
            object.__setattr__(self, "donor", prompts_given(donor, "donor"))
            object.__setattr__(self, "attention_mask", mask)
        if self.attention_mask is not None:
            padding = Padding.of(self.attention_mask, self.donor)
            if len(padding.parts) > 1:
                raise ModelError(
                    f"donors must be of one length, got {[part.columns.shape[1] for part in padding.parts]} "
                    "tokens: patch the prompts of each length by themselves"
                )
            object.__setattr__(self, "attention_mask", padding.mask)
        missing = 0 if self.source is None else int(self.source.isnan().sum())
        if self.source is not None and missing:
            raise ModelError(f"source must hold numbers, got {missing} NaN of {self.source.numel()} entries")

    def check(self, where: Where) -> None:
        if self.source is not None and isinstance(where, Path | Edges):
            raise ModelError(
                f"a patch on {'a path' if isinstance(where, Path) else 'edges'} takes a donor prompt, got "
                "source, the values of an activation: pass Patch(donor=token ids), or patch a Site"
            )

    def prepare(self, place: Place) -> Replacement:
        given = self.source
        what, hint = "source must be", "cache it from prompts of the same length"
        if self.donor is not None:
            given = place.read(self.donor, "donor", self.attention_mask)[0]
            what = "donor must give"
            hint = "pass token ids of the same length, and donors one or as many as prompts"
        assert given is not None  # __post_init__ requires source or donor
        moved = Moved(given)

        def replacement(value: Tensor, mask: Tensor) -> Tensor:
            if self.donor is not None and given.ndim == value.ndim and given.shape[2:] == value.shape[2:]:
                _check_sizes(given, value)
            if given.shape[1:] != value.shape[1:] or given.shape[0] not in (1, len(value)):
                raise ModelError(
                    f"{what} {tuple(value.shape)} (or one sequence of it) at {place.name}, got "
                    f"{tuple(given.shape)}: {hint}"
                )
            return moved.like(value)[0].expand_as(value)

        return replacement

    @classmethod
    def from_text(cls, options: Mapping[str, str], prompts: Int[Tensor, "batch pos"]) -> Edit:
        raise ConfigError(
            "a patch cannot be written on the command line: use Patch(donor=token ids).at(...) in Python, or "
            "resample, which takes the values of other prompts"
        )


def _check_sizes(given: Tensor, value: Tensor) -> None:
    """Requires one donor, or one for each prompt, of as many tokens."""
    if given.shape[1] != value.shape[1]:
        raise ModelError(
            f"donor must give as many tokens as the prompts, {value.shape[1]}, got {given.shape[1]}: pass "
            "donors of the prompts' length"
        )
    if len(given) not in (1, len(value)):
        raise ModelError(
            f"donor must be one prompt, or one for each of {len(value)} prompts, got {len(given)}: pass one "
            "or as many as prompts"
        )


EDIT = Patch
