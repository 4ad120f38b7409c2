"""Token ids of what a user gives: ids in any form, labels, or strings of one token each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ocr_interp.errors import ModelError, shown, unknown_name
from ocr_interp.hooked.protocol import HookedModel
from ocr_interp.hooked.tokens.labels import tokenizer_of

Token = int | str | np.integer | Tensor
"""One token as a user gives it: an id (also of an array or a tensor), or a label."""

TokenList = Sequence[int | str | np.integer | Tensor] | np.ndarray | Tensor
"""Tokens as a user gives them: ids in a list, an array or a tensor, or labels."""

Tokens = TokenList | Mapping[str, TokenList]
"""The same, or named groups of them."""

Ids = Any
"""Ids of a field that takes lists, arrays and tensors, and holds a tensor of int64 (see `id_tensor`)."""


def id_tensor(given: Any, what: str) -> Int[Tensor, "..."]:
    """Whole numbers, such as token ids or positions, of lists, numpy arrays or tensors; tensors stay on
    their device.

    Raises:
        ModelError: other things than whole numbers, or rows of unequal length.
    """
    if not isinstance(given, Tensor):
        try:
            rows = [each.tolist() if isinstance(each, Tensor | np.ndarray) else each for each in given]
            given = torch.as_tensor(np.array(rows) if rows else np.zeros(0, np.int64))
        except (TypeError, ValueError):
            raise ModelError(
                f"{what} must be ids in a list, an array or a tensor, in rows of equal length, got "
                f"{given!r:.80}: pad shorter prompts and pass attention_mask"
            ) from None
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise ModelError(
            f"{what} must be token ids >= 0, at least one, got {given.dtype} {given.flatten()[:8].tolist()}"
        )
    return given.long()


def check_sequence(given: Any, what: str) -> None:
    """Requires several values, and not one by itself.

    Raises:
        ModelError: one string or number, or something that holds no values.
    """
    if isinstance(given, str):
        raise ModelError(f"{what} must be a sequence of tokens, got the string {given!r}: pass [{given!r}]")
    if getattr(given, "ndim", None) == 0 or not isinstance(given, Iterable):
        single = given.item() if hasattr(given, "item") else given
        hint = f": pass [{single!r}]" if isinstance(single, Integral) else ""
        raise ModelError(f"{what} must be a list, an array or a tensor, got {shown(single)}{hint}")


def plain_tokens(given: Any, what: str) -> tuple[Any, ...]:
    """Ids and labels of a list, an array or a tensor as Python's own numbers and strings.

    Raises:
        ModelError: one string or number: a sequence was meant.
    """
    check_sequence(given, what)
    return tuple(given.tolist() if isinstance(given, Tensor | np.ndarray) else map(_plain, given))


def _plain(token: Any) -> Any:
    return token.item() if isinstance(token, Tensor | np.generic) and token.ndim == 0 else token


def check_tokens(
    tokens: Any, labels: Sequence[str], what: str = "tokens", *, repeats: bool = False
) -> tuple[int, ...]:
    """Token ids of ids or labels.

    Args:
        tokens: ids, labels, or both; a range counts as ids.
        labels: label of every token id.
        what: the argument's name, for messages.
        repeats: whether a token may come twice, as in a prompt.

    Raises:
        UnknownNameError: a label or id that does not exist, with the close matches.
        ModelError: no token at all, or one twice; a string instead of a sequence; a label of several ids.
    """
    check_sequence(tokens, what)
    known: dict[str, int] = {}
    for index, label in enumerate(labels):
        known.setdefault(label, index)
    ids = tuple(_token_id(token, known, labels) for token in tokens)
    if not ids:
        raise ModelError(f"{what} must hold at least one token, got none")
    if not repeats and len(set(ids)) < len(ids):
        twice = sorted({i for i in ids if ids.count(i) > 1})
        shown = ", ".join(repr(labels[i]) for i in twice[:5])
        raise ModelError(
            f"{what} must name every token once, got {shown} more than once: it would count double"
        )
    return ids


def _token_id(token: object, known: Mapping[str, int], labels: Sequence[str]) -> int:
    if isinstance(token, Tensor) and token.ndim == 0:
        token = token.item()
    if isinstance(token, str):
        if token not in known:
            raise unknown_name("token", token, known)
        if len(known) < len(labels):
            check_one_meaning(token, [index for index, label in enumerate(labels) if label == token])
        return known[token]
    if isinstance(token, bool) or not isinstance(token, Integral) or not 0 <= int(token) < len(labels):
        raise ModelError(f"a token must be a label or an id in 0..{len(labels) - 1}, got {token!r}")
    return int(token)


def check_one_meaning(label: str, ids: Sequence[int]) -> None:
    """Requires that a label or string means one token.

    Raises:
        ModelError: names the ids that it may mean.
    """
    if len(ids) > 1:
        raise ModelError(
            f"a token must be named by a label that is its own, got {label!r}, which may mean the ids "
            f"{', '.join(map(str, ids[:5]))}: pass the id"
        )


def token_ids(
    model: HookedModel, tokens: Any, labels: Sequence[str], what: str, *, repeats: bool = False
) -> tuple[int, ...]:
    """Token ids of ids, labels and strings of one token each: the one rule for all who take tokens.

    Raises:
        ModelError, UnknownNameError: see `check_tokens` and `encode_single_tokens`.
    """
    check_sequence(tokens, what)
    return check_tokens(encode_single_tokens(model, tokens, labels), labels, what, repeats=repeats)


def encode_single_tokens(model: HookedModel, tokens: Tokens, labels: Sequence[str]) -> Any:
    """Strings that are no label, as ids: what the tokenizer makes of them, if it is one token.

    " Paris" is a string for a user and "ĠParis" for the tokenizer; both are accepted. A beginning-of-text
    token is never added.

    Raises:
        ModelError: a string of several tokens, or one that is a label of the tokenizer and, as a text,
            another token (SentencePiece: "Paris" is a label, and as a text "▁Paris").
    """
    return encode_with_tokenizer(tokenizer_of(model), tokens, labels)


def encode_with_tokenizer(tokenizer: Any, tokens: Any, labels: Sequence[str]) -> Any:
    """`encode_single_tokens` of a model with this tokenizer; also of named groups of tokens."""
    if isinstance(tokens, Mapping):
        return {name: encode_with_tokenizer(tokenizer, members, labels) for name, members in tokens.items()}
    if tokenizer is None or isinstance(tokens, str):
        return tokens
    known = set(labels)

    def encoded(token: Any) -> Any:
        if not isinstance(token, str):
            return token
        ids = tokenizer.encode(token, add_special_tokens=False)
        if token in known:
            own = tokenizer.convert_tokens_to_ids(token)
            unknown = getattr(tokenizer, "unk_token_id", None)
            is_own = isinstance(own, int) and own < len(labels) and labels[own] == token
            if is_own and len(ids) == 1 and ids[0] not in (own, unknown):
                check_one_meaning(token, [own, ids[0]])
            return token
        if len(ids) > 1:
            raise ModelError(
                f"a token must be one token of the model's tokenizer, got {token!r}, which is {len(ids)}: "
                f"{tokenizer.convert_ids_to_tokens(ids)}; pass the id of the one you mean"
            )
        unknown = getattr(tokenizer, "unk_token_id", None)
        return token if not ids or ids[0] == unknown else ids[0]

    return [encoded(token) for token in tokens]
