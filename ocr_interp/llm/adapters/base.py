"""The interface of a fine-tuning method, as one object. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ocr_interp.checks import Option, typed_options

if TYPE_CHECKING:
    from torch import Tensor

    from ocr_interp.llm.encoding import TokenBatch
    from ocr_interp.llm.facts.fact_set import Example

Recipe = Any
"""A `FinetuneConfig`. Its module imports this folder, so its type cannot be imported here."""


class Adapter(ABC):
    """One way to fine-tune a language model.

    A new one is a module in this folder with a constant ADAPTER, or an object that is registered from
    outside: `ocr_interp.llm.methods.register("bitfit", BitFit())`. It is stateless: everything that changes
    in training is kept in the model. Only `attach` must be written; the defaults of the other methods fit
    a method that trains weights which the model already has.

    Attributes:
        label: its name in tables and figures.
        packages: packages that it needs in addition to transformers and accelerate.
        options: the options that `FinetuneConfig.method_options` may set, with their defaults; a default's
            type is the option's type.
        takes_parts: whether `FinetuneConfig.train_parts` chooses what it trains or where it is put.
        trains_all: whether all weights of the model are trained, so that another method takes less memory.
        why_not_merged: why the update cannot be merged into the model's own weights, e.g. "a bottleneck is
            not linear"; None if it can.
        start_tolerance: largest change of a logit that attaching may cause, relative to the largest logit;
            0 if the attached model equals the model to the bit, with the default options.
    """

    label: str
    packages: tuple[str, ...] = ()
    options: Mapping[str, Option] = MappingProxyType({})
    takes_parts: bool = False
    trains_all: bool = False
    why_not_merged: str | None = None
    start_tolerance: float = 0.0

    @abstractmethod
    def attach(self, model: Any, recipe: Recipe) -> Any:
        """Adds the update, at its start, to a model, and makes only the trained parameters require gradients.

        Draw random numbers from torch's global CPU generator, which the caller has seeded with train_seed.
        To count the trained parameters this is also called on a model on the device "meta", which has
        shapes and no values.

        Args:
            model: a transformers model, which may be changed in place.
            recipe: the recipe; `settings(recipe)` are the options.

        Returns: the model, or a wrapper of it.

        Raises:
            ModelError: the update does not fit this model.
        """

    def attach_saved(self, model: Any, recipe: Recipe, tensors: Mapping[str, Tensor]) -> Any:
        """As `attach`, for an update that was saved; its values are put in afterwards.

        Args:
            model: the model.
            recipe: the recipe that it was saved with.
            tensors: of the update, by name: the trained parameters and the method's `state`.
        """
        return self.attach(model, recipe)

    def merged(self, model: Any) -> Any:
        """The plain model with the update merged into its weights; not called if `why_not_merged` is set."""
        return model

    def check(self, settings: Mapping[str, Option]) -> None:  # noqa: B027  # a default that allows all
        """Raises ConfigError if the value of an option is not allowed; `settings` includes the defaults."""

    def check_examples(  # noqa: B027  # a default that allows all
        self, recipe: Recipe, examples: Sequence[Example]
    ) -> None:
        """Raises ConfigError if this training set leaves a part of the update without anything to learn."""

    def before_forward(  # noqa: B027  # a default that does nothing
        self, model: Any, recipe: Recipe, batch: TokenBatch, step: int | None
    ) -> None:
        """Called before every forward pass.

        Args:
            model: what `attach` returned.
            recipe: the recipe.
            batch: the tokens; `batch.examples` has the example of every row, e.g. its relation.
            step: number of the update that the pass belongs to, from 0; None while the model is measured.
        """

    def extra_loss(self, model: Any, recipe: Recipe) -> Tensor | None:
        """A term that is added to the loss of every step after its forward pass; None adds nothing.

        The history's train_loss does not include it.
        """
        return None

    def columns(self, recipe: Recipe) -> dict[str, str]:
        """Additional columns of the history: name -> what it measures, with its unit."""
        return {}

    def statistics(self, model: Any, recipe: Recipe) -> dict[str, float]:
        """Values of `columns` at a logged step; called before the model is measured."""
        return {}

    def remarks(self, recipe: Recipe, row: Mapping[str, float]) -> tuple[str, ...]:
        """Sentences that a person should read about a finished run, e.g. that a router has collapsed.

        Args:
            recipe: the recipe.
            row: the last row of the history; `columns` are in it by their names there, "method/name".
        """
        return ()

    def state(self, model: Any) -> dict[str, Tensor]:
        """Tensors by name, e.g. running counts, that a resumed run needs beside the trained parameters.

        They are saved with a checkpoint and copied back in place.
        """
        return {}

    def activations_per_token(self, model: Any, recipe: Recipe) -> int:
        """Numbers that the update stores per token for the backward pass; for the memory estimate."""
        return 0

    def settings(self, recipe: Recipe) -> dict[str, Option]:
        """All options of a recipe, defaults included."""
        return {**self.options, **dict(recipe.method_options)}

    def checked_options(self, method: str, given: Mapping[str, Any]) -> tuple[tuple[str, Option], ...]:
        """The options converted to their types, sorted, without those that equal their default.

        Raises:
            UnknownNameError: an option that the method does not have.
            ConfigError: a value of another type, or one that is not allowed.
        """
        checked = typed_options(f"method {method!r}", given, self.options)
        self.check({**self.options, **dict(checked)})
        return checked


@dataclass(frozen=True)
class Attached:
    """An update that is not merged into a model's weights.

    Attributes:
        adapter: the method of the update.
        recipe: the `FinetuneConfig` that it was attached with.
    """

    adapter: Adapter
    recipe: Any

    def refusal(self, wanted: str) -> str:
        """The error message for something that cannot be done with this model."""
        return (
            f"{wanted} needs a model with the update in its own weights, which method "
            f"{self.recipe.method!r} cannot give: {self.adapter.why_not_merged}"
        )
