"""Fine-tuning methods, one file each: what is trained, how it starts, and how the update is merged."""

from __future__ import annotations

from ocr_interp.llm.adapters.base import Adapter
from ocr_interp.registry import Registry

methods: Registry[Adapter] = Registry(
    "method",
    "ocr_interp.llm.adapters",
    "ADAPTER",
    beside=("base", "counts", "peft_base", "phm_base"),
)
"""The values of `FinetuneConfig.method`; their names are known without importing torch or peft."""
