"""The registries of fact sets and of file formats; not in their folders, to avoid circular imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_interp.registry import Registry

if TYPE_CHECKING:
    from ocr_interp.llm.facts.formats.base import Format
    from ocr_interp.llm.facts.sets.base import FactSource

fact_sets: Registry[FactSource] = Registry("data set", "ocr_interp.llm.facts.sets", "FACTS")
"""The values of `FactConfig.data`."""

formats: Registry[Format] = Registry("format", "ocr_interp.llm.facts.formats", "FORMAT")
"""The formats of files of facts; which one a file has is seen from its columns or keys."""
