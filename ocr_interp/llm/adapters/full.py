"""All weights are trained."""

from __future__ import annotations

from typing import Any

from ocr_interp.llm.adapters.base import Adapter, Recipe


class FullFinetuning(Adapter):
    """All weights of the model, embeddings and norms too."""

    label = "full"
    trains_all = True

    def attach(self, model: Any, recipe: Recipe) -> Any:
        """Makes every parameter require a gradient."""
        return model.requires_grad_(True)


ADAPTER = FullFinetuning()
