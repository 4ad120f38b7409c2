"""What an intervention does at its place: one file for each edit, found automatically."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_interp.registry import Registry

if TYPE_CHECKING:
    from ocr_interp.ablation.edits.base import Edit

edits: Registry[type[Edit]] = Registry("edit", "ocr_interp.ablation.edits", "EDIT")
"""Name -> class of the edit, the constant EDIT of each module; `base` describes the interface."""
