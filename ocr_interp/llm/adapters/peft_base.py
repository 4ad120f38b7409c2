"""Fine-tuning methods of the package peft: one peft configuration each."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import Any

from ocr_interp.errors import ModelError
from ocr_interp.llm.adapters.base import Adapter, Recipe
from ocr_interp.llm.packages import require_packages


class PeftAdapter(Adapter):
    """A method of peft whose update can be merged into the weights."""

    packages = ("peft",)
    takes_parts = True

    @abstractmethod
    def peft_config(self, recipe: Recipe, targets: list[str] | str) -> Any:
        """peft's configuration of the method, e.g. a LoraConfig.

        Args:
            recipe: the recipe.
            targets: its target_modules: "all-linear", or the paths of the modules of `train_parts`.
        """

    def attach(self, model: Any, recipe: Recipe) -> Any:
        """The model in peft's wrapper.

        Raises:
            ModelError: peft is not installed, or refuses the model.
        """
        require_packages(*self.packages)
        from peft import get_peft_model

        config = self.peft_config(recipe, self._targets(model, recipe))
        with warnings.catch_warnings():
            # peft 0.21 uses a name that transformers 5 has deprecated.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            # It sees that GPT-2's maps are transposed, and says that it does.
            warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)
            try:
                return get_peft_model(model, config)
            except (ValueError, TypeError) as error:  # no linear map, or one or a model that peft refuses
                reason = " ".join(str(error).split())[:300]
                raise ModelError(
                    f"peft cannot put {self.label} on the linear maps of {type(model).__name__}: {reason}: "
                    "take method='full', or another model"
                ) from None

    def _targets(self, model: Any, recipe: Recipe) -> list[str] | str:
        if not recipe.train_parts:
            return "all-linear"
        from ocr_interp.llm.layers.layout import layout_of
        from ocr_interp.llm.layers.parts import chosen_maps

        return list(chosen_maps(model, layout_of(model), recipe.train_parts, recipe.method))

    def merged(self, model: Any) -> Any:
        """The model without its wrapper and with the update in its weights."""
        return model.merge_and_unload()
