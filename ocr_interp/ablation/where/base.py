"""The interface of a place of an intervention, and of a place on a model as an edit sees it."""

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
"""(value, mask) -> the replacement of value, with the same shape.

At a site, value is the whole activation [batch, pos, ...] (a pattern is [batch, head, query, key]), and mask
marks the entries to replace; it broadcasts against value. On a path, value is the path's contribution to z,
[batch, query, d_head], and mask [batch, query, 1] marks the queries that attend to a token of the path. Only
entries in the mask are replaced; the function's values at all others are ignored."""


class Place(ABC):
    """A site or a path of one model, passed to an edit when `ablated` is entered.

    Attributes:
        model: the model.
        name: the name of the place in messages, a hook or "the path".
        by_query: whether values of different positions cannot replace each other, as on a path, whose
            contribution depends on the position of the query.
    """

    model: HookedModel
    name: str
    by_query: bool

    @abstractmethod
    def read(self, tokens: Int[Tensor, "batch pos"], what: str) -> tuple[Tensor, Tensor]:
        """Runs other prompts through the model in its present state: (value, mask), value at least float32.

        The mask has no heads: it is the same for all of them.

        Args:
            tokens: token ids of the prompts.
            what: name of the prompts in messages, e.g. "reference".

        Raises:
            InterventionNeverFiredError: the prompts have no token of the path.
        """

    @abstractmethod
    def sharing(self, mask: Bool[Tensor, "batch ..."]) -> Int[Tensor, " row"]:
        """Indices of the sequences of a batch that can exchange their values.

        At a site all sequences; on a path those with a token of the path.
        """


class Where(ABC):
    """A place to intervene: `Site` or `Path`.

    Attributes:
        prefix: prefix of the names of edits in descriptions.
    """

    prefix: ClassVar[str] = ""

    @property
    def is_pattern(self) -> bool:
        """Whether values are attention patterns or scores [batch, head, query, key]."""
        return False

    @abstractmethod
    def describe(self) -> str:
        """One phrase that identifies the place."""

    @abstractmethod
    def bind(
        self,
        model: HookedModel,
        reader: TokenReader,
        labels: Sequence[str] | None,
        prepare: Callable[[Place], Replacement],
        described: str,
    ) -> Bound:
        """Checks the place against a model and returns its hooks; attaches nothing.

        Args:
            model: the model.
            reader: gives the token ids of the batch.
            labels: a label for every token id, for tokens given by label.
            prepare: function from the place on the model to the function that replaces values there.
            described: the whole intervention in words.
        """

    @abstractmethod
    def random(self, draw: Draw) -> Where | None:
        """A random place of the same size; None if there is nothing to draw."""

    @abstractmethod
    def touched(
        self, model: HookedModel, tokens: Int[Tensor, "batch pos"], labels: Sequence[str] | None
    ) -> Float[Tensor, " batch"]:
        """How many positions of each prompt are edited; for paths, key positions.

        Heads are not counted. Positions are counted whether or not the logits depend on them.
        """
