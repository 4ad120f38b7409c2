"""LoKr: updates that are Kronecker products A ⊗ B of the linear maps (arXiv 2309.14859), with peft."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ocr_interp.checks import Option, check_count
from ocr_interp.errors import ConfigError
from ocr_interp.llm.adapters.base import Recipe
from ocr_interp.llm.adapters.peft_base import PeftAdapter


class LoKr(PeftAdapter):
    """W + (lora_alpha / lora_rank) A ⊗ B, B of rank lora_rank where that is smaller; starts at zero.

    The options are peft's:
        decompose_both: whether A has a low rank too.
        decompose_factor: the number of rows of A; -1 makes A and B about equal in size.
    """

    label = "LoKr"
    options = MappingProxyType({"decompose_both": False, "decompose_factor": -1})

    def check(self, settings: Mapping[str, Option]) -> None:
        """Raises ConfigError for a factor that is neither -1 nor a size."""
        if settings["decompose_factor"] != -1:
            check_count("decompose_factor", settings["decompose_factor"], 1)

    def peft_config(self, recipe: Recipe, targets: list[str] | str) -> Any:
        """peft's LoKrConfig."""
        from peft import LoKrConfig

        if not float(recipe.lora_alpha).is_integer():
            raise ConfigError(f"lora_alpha must be a whole number for LoKr, got {recipe.lora_alpha:g}")
        return LoKrConfig(
            r=recipe.lora_rank,
            alpha=int(recipe.lora_alpha),
            target_modules=targets,
            task_type="CAUSAL_LM",
            **self.settings(recipe),  # pyright: ignore[reportArgumentType]
        )


ADAPTER = LoKr()
