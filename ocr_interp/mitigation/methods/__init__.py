"""Ways to lose an unwanted deduction: one file for each method, found automatically."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_interp.registry import Registry

if TYPE_CHECKING:
    from ocr_interp.mitigation.methods.base import Mitigation

mitigations: Registry[type[Mitigation]] = Registry(
    "mitigation", "ocr_interp.mitigation.methods", "MITIGATION"
)
"""Name -> class of the method, the constant MITIGATION of each module; `base` describes the interface."""
