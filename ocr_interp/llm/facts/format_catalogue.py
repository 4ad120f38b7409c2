"""The registry of file formats. It is not in the folder `formats`, to avoid a circular import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_interp.registry import Registry

if TYPE_CHECKING:
    from ocr_interp.llm.facts.formats.base import Format

formats: Registry[Format] = Registry("format", "ocr_interp.llm.facts.formats", "FORMAT")
"""The formats of files of facts; which one a file has is seen from its columns or keys."""
