"""Where the model before fine-tuning comes from, and whether it is the one that a run was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ocr_interp.llm.models.kept_weights import KeptWeights, kept_weights
from ocr_interp.llm.models.loading import DTYPES, LanguageModel, load_config, load_model
from ocr_interp.llm.training.configuration import FinetuneConfig
from ocr_interp.llm.training.files.inputs import BaseModel, RunInputs, model_files


class BaseSource:
    """The model before fine-tuning.

    Args:
        recipe: the recipe, which names a model.
        given: a model in memory instead; it is changed in place.

    Attributes:
        digested: whether `load` takes digests of the model, which costs about as much as reading it.
        digests: the digests, after `load`.
    """

    def __init__(self, recipe: FinetuneConfig, given: LanguageModel | None) -> None:
        self.recipe, self.given = recipe, given
        self.digested = False
        self.digests: BaseModel | None = None
        self._compared = False

    def config(self) -> Any:
        """Its transformers configuration; no weight is loaded."""
        if self.given is not None:
            return self.given.model.config
        return load_config(self.recipe.model, download=self.recipe.download)

    def load(self) -> LanguageModel:
        """The model in the precision of the recipe."""
        recipe = self.recipe
        if self.given is None:
            lm = load_model(recipe.model, dtype=recipe.dtype, download=recipe.download)
        else:
            lm = self.given
            for parameter in lm.model.parameters():  # buffers such as rotary frequencies stay as they are
                parameter.data = parameter.data.to(DTYPES[recipe.dtype])
        if self.digested and not self._compared:
            self.digests = BaseModel.of(lm, self._files())
        return lm

    def _files(self) -> dict[str, str]:
        """Digests of its files; empty for a model in memory, or one that is not on this machine."""
        return {} if self.given is not None else model_files(self.recipe.model)

    def start_weights(self, lm: LanguageModel) -> KeptWeights | str:
        """Reads the weights before fine-tuning from their folder; a text says why that cannot be done.

        Args:
            lm: what `load` gave, before it is trained.
        """
        kept = kept_weights(lm)
        if self.given is not None and isinstance(kept, KeptWeights) and not kept.are_of(lm.model):
            return f"the model in memory is not the one in {lm.name}, from which the start is read"
        return kept

    def require_files(self, inputs: RunInputs, run_dir: Path) -> None:
        """Requires the files of a run's model, before any weight is loaded.

        Raises:
            RunError: other files.
        """
        self._compared = inputs.require_files(self.recipe.model, self._files(), run_dir)

    def require_loaded(self, inputs: RunInputs, run_dir: Path) -> None:
        """Requires the weights and the tokenizer of a run's model, where files could not be compared.

        Raises:
            RunError: other weights or another tokenizer.
        """
        if not self._compared:
            assert self.digests is not None
            inputs.require_same(self.digests, self.recipe.model, run_dir)

    def require_of_finished(self, inputs: RunInputs, run_dir: Path) -> None:
        """Requires that the model, as it is today, is the one that a finished run was given.

        Its files are read, or a model in memory, which is not changed. A model that is not there any more is
        not needed: the run has ended.

        Raises:
            RunError: other files, other weights or another tokenizer.
            ModelError: a folder that cannot be loaded, for a run that was given a model in memory.
        """
        recipe, files = self.recipe, self._files()
        if inputs.require_files(recipe.model, files, run_dir):
            return
        if self.given is not None:
            now = BaseModel.of(self.given, {}, DTYPES[recipe.dtype])
        elif files:
            now = BaseModel.of(load_model(recipe.model, dtype=recipe.dtype), files)
        else:
            return
        inputs.require_same(now, recipe.model, run_dir)
