"""Zero: sets values to zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ocr_interp.ablation.edits.base import Edit
from ocr_interp.ablation.where.base import Place, Replacement


@dataclass(frozen=True)
class Zero(Edit):
    """Sets the chosen entries of an activation to zero; cuts a path.

    At hook_pattern the other entries do not change (a softmax pattern then sums to less than 1). At
    hook_attn_scores a zero removes the attention to a token if the attention is linear; under softmax, zero
    is a score like any other.
    """

    former_names: ClassVar = {"Zero": "ZeroAblation", "PathZero": "PathAblation"}

    def prepare(self, place: Place) -> Replacement:
        return lambda value, mask: torch.zeros_like(value)


EDIT = Zero
