"""No mitigation: the factorized model from a small start, where both implications are deduced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ocr_interp.mitigation.methods.base import Mitigation


@dataclass(frozen=True)
class Nothing(Mitigation):
    """Every default."""

    name: ClassVar[str] = "none"
    label: ClassVar[str] = "nothing"


MITIGATION = Nothing
