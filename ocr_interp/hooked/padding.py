"""Padding: which positions of a batch belong to its prompts, and prompts that hold padding unsaid.

Positions are counted within a prompt: 0 is its first token and -1 its last, wherever they stand in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.protocol import HookedModel
from ocr_interp.hooked.tokens.ids import id_tensor
from ocr_interp.hooked.tokens.labels import tokenizer_of


@dataclass(frozen=True, eq=False)
class SameLength:
    """Prompts of one length in a padded batch.

    Attributes:
        rows: which prompts of the batch.
        columns: where their tokens stand.
    """

    rows: Int[Tensor, " prompt"]
    columns: Int[Tensor, "prompt pos"]

    def of(self, tensor: Tensor, is_pattern: bool = False) -> tuple[Tensor, ...]:
        """Indices that take these prompts without padding out of [batch, pos, ...], or out of a pattern
        [batch, head, query, key]."""
        rows, columns = (each.to(tensor.device) for each in (self.rows, self.columns))
        if not is_pattern:
            return rows[:, None], columns
        heads = torch.arange(tensor.shape[1], device=tensor.device)[None, :, None, None]
        return rows[:, None, None, None], heads, columns[:, None, :, None], columns[:, None, None, :]


@dataclass(frozen=True, eq=False)
class Padding:
    """Where the prompts of a padded batch stand.

    Attributes:
        mask: True at tokens of prompts, False at padding; on the CPU.
        start: index of each prompt's first token.
        stop: index behind each prompt's last token.
        parts: the prompts by length, shortest first.
    """

    mask: Bool[Tensor, "batch pos"] = field(repr=False)
    start: Int[Tensor, " batch"] = field(repr=False)
    stop: Int[Tensor, " batch"] = field(repr=False)
    parts: tuple[SameLength, ...] = field(repr=False)

    @classmethod
    def of(cls, mask: Any, tokens: Int[Tensor, "batch pos"] | tuple[Any, ...] | None = None) -> Padding:
        """The padding that an attention mask says (1 at tokens, 0 at padding).

        Raises:
            ModelError: a mask of another shape than the tokens, of other values, or with a prompt that has
                no token or a gap.
        """
        if isinstance(tokens, tuple):
            raise ModelError("attention_mask goes with token ids, got prompts in words: pass their ids")
        known = mask if isinstance(mask, Tensor) else torch.as_tensor(mask)
        known = known.detach().cpu()
        if known.ndim != 2 or (tokens is not None and known.shape != tokens.shape):
            wanted = "[batch, pos]" if tokens is None else f"{tuple(tokens.shape)} as the tokens"
            raise ModelError(f"attention_mask must be {wanted}, got {tuple(known.shape)}")
        if not bool(((known == 0) | (known == 1)).all()):
            raise ModelError(f"attention_mask must be 1 at tokens and 0 at padding, got {known.unique()[:5]}")
        known = known.bool()
        length = known.sum(1)
        start = known.int().argmax(1)
        stop = known.shape[1] - known.flip(1).int().argmax(1)
        bad = ((length == 0) | (stop - start != length)).nonzero().flatten().tolist()
        if bad:
            raise ModelError(
                f"attention_mask must hold the tokens of a prompt in one piece, at least one, got none or a "
                f"gap in rows {bad[:5]}: pad on the left or on the right"
            )
        parts = []
        for size in length.unique().tolist():
            rows = (length == size).nonzero().flatten()
            parts.append(SameLength(rows, start[rows, None] + torch.arange(size)))
        return cls(known, start, stop, tuple(parts))

    def apart(
        self, function: Callable[..., Tensor], *tensors: Tensor | None, patterns: Sequence[int] = ()
    ) -> Tensor:
        """function(*tensors) of the prompts of each length, without their padding.

        Args:
            function: called once for each length; None is passed on as it is.
            tensors: [batch, pos, ...] each; the result has the shape of the first, and its padding.
            patterns: which of them are [batch, head, query, key].

        Raises:
            ModelError: tensors of another batch.
        """
        first = tensors[0]
        assert first is not None
        got = (first.shape[0], first.shape[3 if 0 in patterns else 1])
        if got != tuple(self.mask.shape):
            raise ModelError(
                f"attention_mask {tuple(self.mask.shape)} must be that of the batch, got a forward pass on "
                f"{got}: enter `ablated` with the mask of each batch; generation is not masked"
            )
        found = first.clone()
        for part in self.parts:
            taken = [
                None if each is None else each[part.of(each, k in patterns)] for k, each in enumerate(tensors)
            ]
            found[part.of(first, 0 in patterns)] = function(*taken)
        return found


def pad_token(model: HookedModel) -> tuple[int, bool] | None:
    """The id of the tokenizer's padding, and whether it also begins or ends a text; None without one."""
    tokenizer = tokenizer_of(model)
    pad = getattr(tokenizer, "pad_token_id", None)
    if not isinstance(pad, int):
        return None
    return pad, pad in (getattr(tokenizer, "bos_token_id", None), getattr(tokenizer, "eos_token_id", None))


def begins_with_padding(tokens: Int[Tensor, "batch pos"], pad: int, is_text: bool) -> Bool[Tensor, ""]:
    """Whether a prompt begins with padding; stays on the device.

    A token that also begins or ends texts may stand there once, in all prompts alike.
    """
    found = tokens[:, 0] == pad
    if not is_text or tokens.shape[1] < 2:
        return found.any() if not is_text else found.any() & ~found.all()
    return (found.any() & ~found.all()) | (found & (tokens[:, 1] == pad)).any()


def check_unpadded(
    model: HookedModel,
    tokens: Any,
    what: str,
    query: Int[Tensor, " batch"] | None = None,
    hint: str = "pass attention_mask=, 1 at tokens and 0 at padding (all 1 if that token is meant)",
) -> None:
    """Requires prompts without padding at or before the query; called where no mask was given.

    Raises:
        ModelError: prompts that hold the padding of the model's tokenizer, with what to pass.
    """
    known = pad_token(model)
    if known is None:
        return
    ids = id_tensor(tokens, what).cpu()
    last = torch.full((len(ids),), -1) if query is None else query.cpu()
    last = last % ids.shape[1]
    if known[1]:
        backwards = ids.gather(1, (last[:, None] - torch.arange(2)).clamp(min=0))  # the query and before it
        found = begins_with_padding(ids, *known) | begins_with_padding(backwards, *known)
        found = found & (ids.shape[1] > 1)
    else:
        found = ((ids == known[0]) & (torch.arange(ids.shape[1]) <= last[:, None])).any()
    if bool(found):
        raise ModelError(
            f"{what} must hold no padding up to the query, got the tokenizer's padding, id {known[0]}: {hint}"
        )
