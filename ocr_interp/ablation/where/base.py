"""The interface of a place of an intervention, and of a place on a model as an edit sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ocr_interp.ablation.binding import Bound
from ocr_interp.ablation.controls import Draw
from ocr_interp.errors import InterventionNeverFiredError
from ocr_interp.hooked.padding import Padding, check_unpadded
from ocr_interp.hooked.passes import TokenReader
from ocr_interp.hooked.protocol import HookedModel
from ocr_interp.hooked.tokens.prompts import encode_prompts, prompts_given

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
        labels: a label for every token id, for prompts in words; None takes the model's own.
    """

    labels: Sequence[str] | None = None

    model: HookedModel
    name: str
    by_query: bool

    def read(self, tokens: Any, what: str, attention_mask: Any = None) -> tuple[Tensor, Tensor]:
        """Runs other prompts through the model as it is now: (value, mask) there, value at least float32.

        Heads are not in the mask, so that it counts the same for each. Padded prompts are run without their
        padding, by length; position p of what is given is the p-th of each prompt, and shorter ones are
        filled up with zeros that are not in the mask.

        Args:
            tokens: token ids of the prompts [batch, pos], or of one [pos]; or prompts in words
                (`hooked.tokens.prompts.prompts_given`).
            what: what the prompts are, for messages, e.g. "reference".
            attention_mask: of padded prompts, 1 at tokens and 0 at padding.

        Raises:
            InterventionNeverFiredError: prompts without any token of a path.
            ModelError: padded prompts without a mask, or a mask that is not theirs.
        """
        ids = encode_prompts(self.model, prompts_given(tokens, what), self.labels, what)
        if attention_mask is None:
            check_unpadded(self.model, ids, what)
            return self.read_prompts(ids, what)
        padding = Padding.of(attention_mask, ids)
        found: list[Tensor] = []
        for part in reversed(padding.parts):
            read = self.read_prompts(ids[part.of(ids)], what)
            found = found or [each.new_zeros(len(ids), *each.shape[1:]) for each in read]  # of the longest
            for filled, each in zip(found, read, strict=True):
                filled[(part.rows.to(each.device), *(slice(size) for size in each.shape[1:]))] = each
        return found[0], found[1]

    @abstractmethod
    def read_prompts(self, tokens: Int[Tensor, "batch pos"], what: str) -> tuple[Tensor, Tensor]:
        """The same of prompts without padding."""

    @abstractmethod
    def sharing(self, mask: Bool[Tensor, "batch ..."]) -> Int[Tensor, " row"]:
        """Indices of the sequences of a batch that can exchange their values.

        At a site all sequences; on a path those with a token of the path.
        """


class Where(ABC):
    """A place to intervene: `Site`, `Path` or `Edges`.

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


def check_came_by(names: Sequence[str], cache: Any, what: str) -> None:
    """Requires that a forward pass on other prompts came by the hooks that are read there.

    Raises:
        InterventionNeverFiredError: names those that it did not come by.
    """
    silent = [name for name in names if name not in cache]
    if silent:
        raise InterventionNeverFiredError(
            f"a forward pass on the {what} must come by {', '.join(silent)}, got nothing there: this model "
            "does not call it (its attention is native, or an option of its configuration is off, as "
            "use_attn_result for hook_result); choose another hook, such as hook_z"
        )
