"""The model's own weights are trained: all of them, or those of some parts."""

from __future__ import annotations

from typing import Any

from ocr_interp.llm.adapters.base import Adapter, Recipe


class FullFinetuning(Adapter):
    """All weights of the model, embeddings and norms too; with `train_parts` those of the parts."""

    label = "full"
    trains_all = True
    takes_parts = True

    def attach(self, model: Any, recipe: Recipe) -> Any:
        """Makes every parameter, or those of the parts, require a gradient."""
        if not recipe.train_parts:
            return model.requires_grad_(True)
        from ocr_interp.llm.layers.parts import trained_weights

        chosen = trained_weights(model, recipe.train_parts)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in chosen)
        return model


ADAPTER = FullFinetuning()
