"""All weights are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ocr_interp.llm.adapters.base import Adapter

if TYPE_CHECKING:
    from ocr_interp.llm.training.configuration import FinetuneConfig


class FullFinetuning(Adapter):
    """All weights of the model, embeddings and norms too."""

    label = "full"

    def attach(self, model: Any, recipe: FinetuneConfig) -> Any:
        """Every parameter asks for a gradient."""
        return model.requires_grad_(True)


ADAPTER = FullFinetuning()
