"""PHM-adapter: bottlenecks with A and B of their own in every layer (arXiv 2106.04647, section 4)."""

from __future__ import annotations

from types import MappingProxyType

from ocr_interp.llm.adapters.phm_base import PhmMethod


class PhmAdapter(PhmMethod):
    """H = Σ A_i ⊗ B_i with free B_i, n = 12 and an own A in every layer; the options are `PhmMethod`'s."""

    label = "PHM-adapter"
    start_tolerance = 0.05
    options = MappingProxyType(
        {
            **PhmMethod.options,
            "phm_dim": 12,
            "shared_phm_rule": False,
            "factorized_phm_W": False,
            "phm_init_range": 0.01,
        }
    )


ADAPTER = PhmAdapter()
