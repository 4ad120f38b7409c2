"""The registry of fact sets. It is not in the folder `sets`, to avoid a circular import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_interp.registry import Registry

if TYPE_CHECKING:
    from ocr_interp.llm.facts.sets.base import FactSource

fact_sets: Registry[FactSource] = Registry("data set", "ocr_interp.llm.facts.sets", "FACTS")
"""The values of `FactConfig.data`."""
