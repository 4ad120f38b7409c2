"""Prompts as a user gives them, texts, tokens or what a tokenizer returned, and their token ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.protocol import HookedModel
from ocr_interp.hooked.tokens.ids import (
    TokenList,
    check_sequence,
    check_tokens,
    id_tensor,
    plain_tokens,
    token_ids,
)
from ocr_interp.hooked.tokens.labels import labels_of, tokenizer_of


def with_mask(given: Any, mask: Any, what: str) -> tuple[Any, Any]:
    """Prompts and their attention mask apart, of what a tokenizer returned; others as they are.

    Args:
        given: prompts in any form, also a tokenizer's result with input_ids and attention_mask.
        mask: an attention mask given by itself, which goes before the tokenizer's.
        what: what the prompts are, for messages.

    Raises:
        ModelError: a mapping without input_ids.
    """
    if not isinstance(given, Mapping):
        return given, mask
    if "input_ids" not in given:
        raise ModelError(
            f"{what} must be ids, texts or what a tokenizer returns, got a mapping with "
            f"{', '.join(map(repr, list(given)[:5])) or 'nothing'}: pass its prompts"
        )
    ids = given["input_ids"]
    single = not any(_is_row(each) for each in ids)
    mask = given.get("attention_mask") if mask is None else mask
    return ([ids], None if mask is None else [mask]) if single else (ids, mask)


def prompt_rows(given: Any, what: str) -> Any:
    """Prompts in the forms that other code takes: of a tokenizer's result (of all, or one for each prompt)
    the rows of ids without padding, of a column of a table or a generator a list; others as they are.

    Raises:
        ModelError: one token by itself, a table with several columns, or a mapping without input_ids.
    """
    if isinstance(given, Mapping):
        ids, mask = with_mask(given, None, what)
        rows = [[int(token) for token in row] for row in ids]
        if mask is None:
            return rows
        pairs = zip(rows, mask, strict=True)
        return [[t for t, keep in zip(row, kept, strict=True) if int(keep)] for row, kept in pairs]
    if hasattr(given, "iloc") and hasattr(given, "columns"):
        names = [str(name) for name in given.columns]
        raise ModelError(
            f"{what} must be one column of a table, got a table with {', '.join(map(repr, names[:6]))}: pass "
            f"table[{names[0] if names else 'column'!r}]"
        )
    column = getattr(given, "to_list", None)  # of a table, with a prompt in each row
    if callable(column):
        given = list(column())  # pyright: ignore[reportArgumentType]
    elif isinstance(given, Iterator):
        given = list(given)
    if not isinstance(given, str):
        check_sequence(given, what)
    if isinstance(given, list | tuple) and given and all(isinstance(each, Mapping) for each in given):
        return [row for each in given for row in prompt_rows(each, what)]
    return given


def prompts_given(given: Any, what: str) -> Any:
    """Prompts as ids [prompt, position], or as tuples of labels and strings, which need a model to be read.

    Args:
        given: ids of one prompt or of several; a list of labels or single-token strings, which is one prompt,
            or a list of such lists; one text for the tokenizer, or a list of texts, at least one of which is
            more than one token; a column of a table (pandas), with ids or a text in each row; what a
            tokenizer returned, whose padding is left out.
        what: what the prompts are, for messages.

    Returns: a tensor, or one tuple (or text) per prompt.

    Raises:
        ModelError: ids as in `id_tensor`.
    """
    if isinstance(given, str):
        return (given,)
    if isinstance(given, np.ndarray) and given.dtype == object:
        given = given.tolist()
    is_column = callable(getattr(given, "to_list", None))
    given = prompt_rows(given, what)
    if is_column and given and all(isinstance(each, str) for each in given):
        return tuple(given)
    if not isinstance(given, Tensor | np.ndarray) and not len(given):
        raise ModelError(f"{what} must hold at least one prompt of at least one token, got none")
    if isinstance(given, list | tuple):
        rows = [each for each in given if isinstance(each, list | tuple)]
        if any(isinstance(each, str) for row in (rows or [given]) for each in row):
            if len(rows) not in (0, len(given)):
                raise ModelError(f"{what} must be one prompt, or a list of prompts, got {given!r:.80}")
            return tuple(plain_tokens(row, what) for row in rows or [given])
    ids = id_tensor(given, what)
    if not ids.numel():
        raise ModelError(f"{what} must hold at least one prompt of at least one token, got none")
    return ids[None] if ids.ndim == 1 else ids


def _is_row(value: Any) -> bool:
    return isinstance(value, list | tuple | range) or getattr(value, "ndim", 0) > 0


def one_prompt(prompt: Any) -> Any:
    """A prompt, also of a batch of one, [1, pos] as run_with_cache takes it; a text stays a text.

    Raises:
        ModelError: a batch of several prompts, a table with more axes, or one token by itself.
    """
    if not isinstance(prompt, str):
        check_sequence(prompt, "prompt")
    if isinstance(prompt, Tensor | np.ndarray):
        several = prompt.ndim != 1
        got = f"shape {list(prompt.shape)}"
    else:
        rows = list | tuple | np.ndarray
        several = not isinstance(prompt, str) and any(
            isinstance(each, rows) or (isinstance(each, Tensor) and each.ndim > 0) for each in prompt
        )
        got = f"{len(prompt)} rows"
    if not several:
        return prompt
    if getattr(prompt, "ndim", 2) != 2 or len(prompt) != 1:
        raise ModelError(
            f"prompt must be one prompt [pos], or a batch of one [1, pos], got {got}: pass one prompt at a "
            "time, such as prompts[0]"
        )
    return prompt[0]


def encode_prompts(
    model: HookedModel, given: Any, labels: Sequence[str] | None, what: str
) -> Int[Tensor, "prompt pos"]:
    """The ids of the result of `prompts_given`.

    Raises:
        UnknownNameError: an unknown token, with the close matches.
        ModelError: prompts of different lengths, or a text without a tokenizer.
    """
    if isinstance(given, Tensor):
        return given
    names = labels_of(model, labels)
    rows = [encode_prompt(model, prompt, names) for prompt in _texts(model, given, names)]
    lengths = [len(row) for row in rows]
    if len(set(lengths)) > 1:
        raise ModelError(
            f"{what} in words must be prompts of one length, got lengths {lengths}: pass ids and their "
            "attention_mask"
        )
    return torch.tensor(rows)


def _texts(model: HookedModel, given: Sequence[Any], labels: Sequence[str]) -> Sequence[Any]:
    """The prompts; of one that is a list of strings, some of several tokens, its strings as texts."""
    if len(given) != 1 or isinstance(given[0], str):
        return given
    return given[0] if are_texts(model, given[0], labels) else given


def are_texts(model: HookedModel, prompts: Sequence[Any], labels: Sequence[str]) -> bool:
    """Whether strings are a text each, since some are more than one token, and not one prompt's tokens."""
    tokenizer = tokenizer_of(model)
    if tokenizer is None or not prompts or not all(isinstance(each, str) for each in prompts):
        return False
    known = set(labels)
    return any(
        each not in known and len(tokenizer.encode(each, add_special_tokens=False)) > 1 for each in prompts
    )


def encode_prompt(model: HookedModel, prompt: TokenList | str, labels: Sequence[str]) -> tuple[int, ...]:
    """Token ids of a prompt: of a text what the tokenizer makes of it, of a sequence one for each entry.

    Raises:
        ModelError: a text that the tokenizer has no token for, or without a tokenizer; see
            `encode_single_tokens`.
        UnknownNameError: an unknown token, with the close matches.
    """
    if not isinstance(prompt, str):
        return token_ids(model, prompt, labels, "prompt", repeats=True)
    tokenizer: Any = tokenizer_of(model)
    if tokenizer is None:
        raise ModelError(
            f"prompt must be a sequence of tokens where a model has no tokenizer, got the string {prompt!r}: "
            f"pass [{prompt!r}] if it is one token"
        )
    ids = [int(token) for token in tokenizer.encode(prompt, add_special_tokens=False)]
    unknown = getattr(tokenizer, "unk_token_id", None)
    if not ids or (unknown is not None and unknown in ids):
        raise ModelError(
            f"prompt must be a text of the model's tokenizer, got {prompt!r}, which gives "
            f"{tokenizer.convert_ids_to_tokens(ids)}: pass token ids"
        )
    alike = [index for index, label in enumerate(labels) if label == prompt]
    if alike and ids != alike[:1]:
        raise ModelError(
            f"prompt must have one meaning, got {prompt!r}: as a text it is the ids {ids}, as a label "
            f"{alike[:5]}: pass token ids"
        )
    return check_tokens(ids, labels, "prompt", repeats=True)
