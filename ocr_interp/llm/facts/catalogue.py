"""Which fact sets there are. Here and not in the folder of the sets, which need the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_interp.registry import Registry

if TYPE_CHECKING:
    from ocr_interp.llm.facts.sets.base import FactSource

fact_sets: Registry[FactSource] = Registry("data set", "ocr_interp.llm.facts.sets", "FACTS")
"""What `FactConfig.data` may be."""
