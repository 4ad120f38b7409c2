"""Mean: the values of a reference batch, averaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from ocr_interp.ablation.binding import digest
from ocr_interp.ablation.edits.base import Edit
from ocr_interp.ablation.where.base import Place, Replacement, Where
from ocr_interp.ablation.where.path import Path
from ocr_interp.errors import InterventionNeverFiredError, ModelError
from ocr_interp.hooked.padding import Padding
from ocr_interp.hooked.tokens.ids import Ids
from ocr_interp.hooked.tokens.prompts import prompts_given, with_mask


@dataclass(frozen=True, eq=False)
class Mean(Edit):
    """Sets the chosen entries to their mean over a reference batch.

    The reference is run once, when the block is entered, through the model in its state at that time. At a
    site the mean is over sequences and over the positions of the reference that the site chooses (by position
    or token), so that noise tokens become a mean noise token. On a path it is over the sequences in which the
    query attends to a token of the path, separately for each query position.

    Attributes:
        reference: the reference batch: token ids [reference, pos], or prompts in words as for `Patch`.
        by_position: whether each position has its own mean, which needs sequences of equal length. Leave it
            out on a path, whose means are always by query position.
        attention_mask: of a padded reference, 1 at tokens and 0 at padding, which is left out. A mean by
            position is then over the prompts that have the position, counted from their first token.

    Raises:
        ModelError: at an attention pattern (use Resample); in the forward pass, prompts of another length if
            the mean is by position, or a position without a mean.
        InterventionNeverFiredError: when the block is entered, if the reference has no chosen token.
    """

    reference: Ids = field(repr=False)
    by_position: bool = False
    attention_mask: Any = field(default=None, repr=False, kw_only=True)

    former_names: ClassVar = {"Mean": "MeanAblation"}

    def __post_init__(self) -> None:
        reference, mask = with_mask(self.reference, self.attention_mask, "reference")
        object.__setattr__(self, "reference", prompts_given(reference, "reference"))
        object.__setattr__(self, "attention_mask", mask)
        if self.attention_mask is not None:
            mask = Padding.of(self.attention_mask, self.reference).mask
            object.__setattr__(self, "attention_mask", mask)

    def check(self, where: Where) -> None:
        if where.is_pattern:
            raise ModelError(
                f"a mean needs an activation [batch, pos, ...], got {where.describe()}: a mean pattern is of "
                "no prompt; use Resample or Zero there"
            )
        if self.by_position and isinstance(where, Path):
            raise ModelError(
                "a mean on a path is always by query position, got by_position=True: leave it out"
            )

    def describe(self) -> str:
        reference = (
            digest(self.reference, self.attention_mask)
            if isinstance(self.reference, Tensor)
            else " ".join(map(str, self.reference))
        )
        return f"reference {reference}{' by position' if self.by_position else ''}"

    def prepare(self, place: Place) -> Replacement:
        value, chosen = place.read(self.reference, "reference", self.attention_mask)
        by_position = self.by_position or place.by_query
        over: tuple[int, ...] = (0,) if by_position else (0, 1)
        count = chosen.to(value.dtype).sum(over, keepdim=True)
        none = count == 0
        if bool(none.all()):
            raise InterventionNeverFiredError(
                f"reference must hold a chosen token or position of {place.name}, got none"
            )
        every = torch.where(chosen, value, 0).sum(over, keepdim=True) / count
        is_lacking = bool(none.any())

        def replacement(value: Tensor, mask: Tensor) -> Tensor:
            mean, lacking = every, none
            if by_position and self.attention_mask is not None:  # prompts may be shorter than the longest
                mean, lacking = every[:, : value.shape[1]], none[:, : value.shape[1]]
            if by_position and value.shape[1] != mean.shape[1]:
                raise ModelError(
                    f"a mean by position needs sequences of {mean.shape[1]} tokens as the reference, got "
                    f"{value.shape[1]}: pass prompts and a reference of the same length"
                    + ("" if place.by_query else ", or by_position=False")
                )
            if is_lacking and bool((mask & lacking.to(mask.device)).any()):
                raise ModelError(
                    f"reference must hold {place.name} wherever a prompt does, got none at positions "
                    f"{lacking.flatten().nonzero().flatten().tolist()}: pass a larger reference, such as the "
                    "prompts"
                )
            return mean.expand_as(value)

        return replacement

    @classmethod
    def from_text(cls, options: Mapping[str, str], prompts: Int[Tensor, "batch pos"]) -> Edit:
        """The mean over the measured prompts; the only option is by_position=True."""
        return cls._made(options, reference=prompts, attention_mask=None)


EDIT = Mean
