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

    @abstractmethod
    def peft_config(self, recipe: Recipe) -> Any:
        """peft's configuration of the method, e.g. a LoraConfig."""

    def attach(self, model: Any, recipe: Recipe) -> Any:
        """The model in peft's wrapper.

        Raises:
            ModelError: peft is not installed, or refuses the model.
        """
        require_packages(*self.packages)
        from peft import get_peft_model

        config = self.peft_config(recipe)
        with warnings.catch_warnings():
            # peft 0.21 uses a name that transformers 5 has deprecated.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            try:
                return get_peft_model(model, config)
            except ValueError as error:  # no linear map, or an architecture that peft refuses
                reason = " ".join(str(error).split())[:300]
                raise ModelError(
                    f"peft cannot put {self.label} on the linear maps of {type(model).__name__}: {reason}: "
                    "take method='full', or another model"
                ) from None

    def merged(self, model: Any) -> Any:
        """The model without its wrapper and with the update in its weights."""
        return model.merge_and_unload()
