"""What a place of an intervention brings, and what an edit may ask of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ocr_interp.ablation.binding import Bound
from ocr_interp.ablation.controls import Draw
from ocr_interp.hooked.passes import TokenReader
from ocr_interp.hooked.protocol import HookedModel

Replacement = Callable[[Tensor, Tensor], Tensor]
"""(value, mask) -> what takes the place of value, of the same shape.

At a site, value is the whole activation [batch, pos, ...] (a pattern is [batch, head, query, key]) and mask
says which entries will be replaced; it broadcasts against value. On a path, value is what the path carries,
[batch, query, d_head], and mask [batch, query, 1] says which queries attend to a token of the path. Only
entries in the mask are replaced; what is computed for all others is not looked at."""


class Place(ABC):
    """A site or a path of one model, as an edit finds it when `ablated` is entered.

    Attributes:
        model: the model.
        name: the place in messages, a hook or "the path".
        by_query: whether values of different positions cannot stand for each other, as on a path: what it
            carries to a query depends on where the query stands.
    """

    model: HookedModel
    name: str
    by_query: bool

    @abstractmethod
    def read(self, tokens: Int[Tensor, "batch pos"], what: str) -> tuple[Tensor, Tensor]:
        """Runs other prompts through the model as it is now: (value, mask) there, value at least float32.

        Heads are not in the mask, so that it counts the same for each.

        Args:
            tokens: token ids of the prompts.
            what: what the prompts are, for messages, e.g. "reference".

        Raises:
            InterventionNeverFiredError: prompts without any token of a path.
        """

    @abstractmethod
    def sharing(self, mask: Bool[Tensor, "batch ..."]) -> Int[Tensor, " row"]:
        """Indices of the sequences of a batch that can stand for each other.

        Of a site all of them; of a path those that hold it.
        """


class Where(ABC):
    """A place to intervene: `Site` or `Path`.

    Attributes:
        prefix: what stands before the name of an edit in descriptions.
    """

    prefix: ClassVar[str] = ""

    @property
    def is_pattern(self) -> bool:
        """Whether values are attention patterns or scores [batch, head, query, key]."""
        return False

    @abstractmethod
    def describe(self) -> str:
        """One phrase, the same for the same place."""

    @abstractmethod
    def bind(
        self,
        model: HookedModel,
        reader: TokenReader,
        labels: Sequence[str] | None,
        prepare: Callable[[Place], Replacement],
        described: str,
    ) -> Bound:
        """Checks the place against a model and gives its hooks; attaches nothing.

        Args:
            model: the model.
            reader: knows the token ids of the batch.
            labels: a label for every token id, for tokens given by label.
            prepare: from the place on the model to the function that replaces values there.
            described: the whole intervention in words.
        """

    @abstractmethod
    def random(self, draw: Draw) -> Where | None:
        """As large a place at random; None if there is nothing to draw."""

    @abstractmethod
    def touched(
        self, model: HookedModel, tokens: Int[Tensor, "batch pos"], labels: Sequence[str] | None
    ) -> Float[Tensor, " batch"]:
        """How many positions of each prompt are acted on, of paths as keys.

        Heads are not counted, nor is it asked whether the logits depend on a position.
        """
