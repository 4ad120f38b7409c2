"""Compacter: PHM bottlenecks after attention and after the MLP (Karimi Mahabadi et al., arXiv 2106.04647)."""

from __future__ import annotations

from ocr_interp.llm.adapters.phm_base import PhmMethod


class Compacter(PhmMethod):
    """H = Σ A_i ⊗ s_i t_iᵀ, with one A for the whole model; the options are those of `PhmMethod`."""

    label = "Compacter"


ADAPTER = Compacter()
