"""Compacter++: PHM bottlenecks after the MLP only (Karimi Mahabadi et al., arXiv 2106.04647)."""

from __future__ import annotations

from ocr_interp.llm.adapters.phm_base import PhmMethod


class CompacterPlus(PhmMethod):
    """As Compacter, after the MLP only; the options are those of `PhmMethod`."""

    label = "Compacter++"
    default_parts = ("mlp",)


ADAPTER = CompacterPlus()
