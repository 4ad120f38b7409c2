"""What a way to fine-tune brings, as one object. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ocr_interp.checks import Option, typed_options

if TYPE_CHECKING:
    from torch import Tensor

    from ocr_interp.llm.encoding import TokenBatch

Recipe = Any
"""The `FinetuneConfig` of a run. It knows the methods by name, so that its type cannot stand below it."""


class Adapter(ABC):
    """One way to fine-tune a language model.

    A new one is a module in this folder with a constant ADAPTER, or an object that is registered from
    outside: `ocr_interp.llm.methods.register("bitfit", BitFit())`. It has no state of its own: what
    changes in training lives in the model. Only `attach` must be written; the other methods have defaults
    that fit a method that trains weights which the model has already.

    Attributes:
        label: its name in tables and figures.
        packages: packages that it needs beside transformers and accelerate.
        options: the options that `FinetuneConfig.method_options` may set, with their defaults; a default's
            type is the option's type.
        why_not_merged: why the update cannot be put into the model's own weights, e.g. "a bottleneck is not
            linear"; None if it can.
        start_tolerance: largest change of a logit that attaching may make, over the largest logit; 0 if the
            attached model equals the model to the bit.
    """

    label: str
    packages: tuple[str, ...] = ()
    options: Mapping[str, Option] = MappingProxyType({})
    why_not_merged: str | None = None
    start_tolerance: float = 0.0

    @abstractmethod
    def attach(self, model: Any, recipe: Recipe) -> Any:
        """Puts the update into a model, at its start; exactly what is trained then asks for gradients.

        Draw from torch's own generator of the CPU: the caller has seeded it with train_seed. It is also
        called on a model on the device "meta", which has shapes and no values, to count what is trained.

        Args:
            model: a transformers model, which may be changed in place.
            recipe: the recipe; `settings(recipe)` are the options.

        Returns: the model, or what wraps it.

        Raises:
            ModelError: a model that has no place for this update.
        """

    def merged(self, model: Any) -> Any:
        """The plain model with the update in its own weights; not called if `why_not_merged`."""
        return model

    def check(self, settings: Mapping[str, Option]) -> None:  # noqa: B027  # a default that allows all
        """Raises ConfigError for options (all of them, defaults included) whose values are not allowed."""

    def before_forward(  # noqa: B027  # a default that does nothing
        self, model: Any, recipe: Recipe, batch: TokenBatch, step: int | None
    ) -> None:
        """Told of every forward pass before it comes.

        Args:
            model: what `attach` returned.
            recipe: the recipe.
            batch: the tokens; `batch.examples` says what is asked of whom, e.g. the relation of every row.
            step: number of the update that the pass belongs to, from 0; None while the model is measured.
        """

    def extra_loss(self, model: Any, recipe: Recipe) -> Tensor | None:
        """A term that is added to the loss of every step, after its forward pass; None for none.

        The history's train_loss is without it.
        """
        return None

    def columns(self, recipe: Recipe) -> dict[str, str]:
        """Columns that the history gets beside the usual ones: name -> what it is, with its unit."""
        return {}

    def statistics(self, model: Any, recipe: Recipe) -> dict[str, float]:
        """Values of `columns` at a logged step, asked for before the model is measured."""
        return {}

    def state(self, model: Any) -> dict[str, Tensor]:
        """Tensors beside the trained parameters that a resumed run needs, by name, e.g. running counts.

        They are saved with a checkpoint and copied back in place.
        """
        return {}

    def activations_per_token(self, model: Any, recipe: Recipe) -> int:
        """Numbers that the update keeps for the backward pass at every token; for the memory estimate."""
        return 0

    def settings(self, recipe: Recipe) -> dict[str, Option]:
        """All options of a recipe, defaults included."""
        return {**self.options, **dict(recipe.method_options)}

    def checked_options(self, method: str, given: Mapping[str, Any]) -> tuple[tuple[str, Option], ...]:
        """Options in their own types, sorted, without those that equal their default.

        Raises:
            UnknownNameError: an option that the method does not have.
            ConfigError: a value of another type, or one that is not allowed.
        """
        checked = typed_options(f"method {method!r}", given, self.options)
        self.check({**self.options, **dict(checked)})
        return checked


@dataclass(frozen=True)
class Attached:
    """An update that stands beside a model's weights.

    Attributes:
        adapter: whose update it is.
        recipe: the `FinetuneConfig` that it was attached by.
    """

    adapter: Adapter
    recipe: Any

    def refusal(self, wanted: str) -> str:
        """An error message: what was wanted cannot be had of this model."""
        return (
            f"{wanted} needs a model with the update in its own weights, which method "
            f"{self.recipe.method!r} cannot give: {self.adapter.why_not_merged}"
        )
