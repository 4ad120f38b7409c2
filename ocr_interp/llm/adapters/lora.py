"""LoRA: low-rank updates of the linear maps (Hu et al., arXiv 2106.09685), with peft."""

from __future__ import annotations

from typing import Any

from ocr_interp.llm.adapters.base import Recipe
from ocr_interp.llm.adapters.peft_base import PeftAdapter


class LoRA(PeftAdapter):
    """W + (lora_alpha / lora_rank) B A on all linear maps but the unembedding; B starts at zero.

    Its rank and scale are fields of FinetuneConfig, not `method_options`.
    """

    label = "LoRA"

    def peft_config(self, recipe: Recipe) -> Any:
        """peft's LoraConfig."""
        from peft import LoraConfig

        return LoraConfig(
            r=recipe.lora_rank,
            lora_alpha=recipe.lora_alpha,  # pyright: ignore[reportArgumentType]  # peft accepts a float
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )


ADAPTER = LoRA()
