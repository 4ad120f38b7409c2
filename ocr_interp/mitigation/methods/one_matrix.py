"""W_OV as one matrix: nothing untold is deduced, wanted or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ocr_interp.maps.base import LinearMap
from ocr_interp.maps.non_factorized import NonFactorized
from ocr_interp.mitigation.aim import Aim
from ocr_interp.mitigation.methods.base import Mitigation


@dataclass(frozen=True)
class OneMatrix(Mitigation):
    """The non-factorized model, whose smallest norm has β = 0.

    Source: Huang et al. 2025 (arXiv 2506.10887).
    """

    name: ClassVar[str] = "one_matrix"
    label: ClassVar[str] = "one matrix"

    def linear_map(self, aim: Aim, seed: int) -> LinearMap:
        """W_OV itself."""
        return NonFactorized()


MITIGATION = OneMatrix
