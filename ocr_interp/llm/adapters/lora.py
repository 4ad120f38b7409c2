"""LoRA: low-rank updates of the linear maps (Hu et al., arXiv 2106.09685), with peft; DoRA is an option."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from ocr_interp.llm.adapters.base import Recipe
from ocr_interp.llm.adapters.peft_base import PeftAdapter


class LoRA(PeftAdapter):
    """W + (lora_alpha / lora_rank) B A on all linear maps but the unembedding; B starts at zero.

    Its rank and scale are fields of FinetuneConfig, not `method_options`. The options are peft's:
        use_dora: the size of each output's weights is trained apart from their direction (arXiv 2402.09353).
        use_rslora: the scale is lora_alpha / √lora_rank (arXiv 2312.03732).
    """

    label = "LoRA"
    options = MappingProxyType({"use_dora": False, "use_rslora": False})

    def peft_config(self, recipe: Recipe, targets: list[str] | str) -> Any:
        """peft's LoraConfig."""
        from peft import LoraConfig

        return LoraConfig(
            r=recipe.lora_rank,
            lora_alpha=recipe.lora_alpha,  # pyright: ignore[reportArgumentType]  # peft accepts a float
            lora_dropout=0.0,
            target_modules=targets,
            task_type="CAUSAL_LM",
            **self.settings(recipe),  # pyright: ignore[reportArgumentType]
        )


ADAPTER = LoRA()
