"""Which tokens a circuit reads and writes: ids, labels and named groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ocr_interp.errors import ModelError, unknown_name
from ocr_interp.hooked.protocol import (
    NAMES,
    AdaptedModel,
    HookedModel,
    Names,
    check_one_meaning,
    check_tokens,
    names_of,
    tokenizer_of,
)
from ocr_interp.task import FactRecallTask

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
        ModelError: a table with several columns, or a mapping without input_ids.
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
    if isinstance(given, list | tuple) and given and all(isinstance(each, Mapping) for each in given):
        return [row for each in given for row in prompt_rows(each, what)]
    return given


def are_texts(model: HookedModel, prompts: Sequence[Any], labels: Sequence[str]) -> bool:
    """Whether strings are a text each, since some are more than one token, and not one prompt's tokens."""
    tokenizer = tokenizer_of(model)
    if tokenizer is None or not prompts or not all(isinstance(each, str) for each in prompts):
        return False
    known = set(labels)
    return any(
        each not in known and len(tokenizer.encode(each, add_special_tokens=False)) > 1 for each in prompts
    )


def _is_row(value: Any) -> bool:
    return isinstance(value, list | tuple | range) or getattr(value, "ndim", 0) > 0


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


def plain_tokens(given: Any, what: str) -> tuple[Any, ...]:
    """Ids and labels of a list, an array or a tensor as Python's own numbers and strings.

    Raises:
        ModelError: one string: a sequence of tokens was meant.
    """
    if isinstance(given, str):
        raise ModelError(f"{what} must be a sequence of tokens, got the string {given!r}: pass [{given!r}]")
    return tuple(given.tolist() if isinstance(given, Tensor | np.ndarray) else map(_plain, given))


def _plain(token: Any) -> Any:
    return token.item() if isinstance(token, Tensor | np.generic) and token.ndim == 0 else token


@dataclass(frozen=True)
class TokenSet:
    """Tokens on one side of a circuit, in order.

    Attributes:
        ids: token ids.
        labels: their labels.
        group_names: names of the groups, in order.
        group: index into `group_names` of every token.
        read: makes ids of strings as the model's tokenizer does (see `encode_single_tokens`); None without.
    """

    ids: tuple[int, ...] = field(repr=False)
    labels: tuple[str, ...] = field(repr=False)
    group_names: tuple[str, ...]
    group: tuple[int, ...] = field(repr=False)
    read: Callable[[Any], Any] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    def positions(self, labels: TokenList) -> Int[np.ndarray, " token"]:
        """Where labels, strings of one token each or ids stand in this set.

        Raises:
            UnknownNameError: one that is not there, with the close matches.
            ModelError: a label of several tokens of the set, a string that is a label and, as a text, another
                token, or a string instead of a sequence.
        """
        if isinstance(labels, str):
            raise ModelError(f"tokens must be a sequence, got the string {labels!r}: pass [{labels!r}]")
        asked = plain_tokens(labels, "tokens")
        where: dict[str | int, int] = {}
        for k, (token, label) in enumerate(zip(self.ids, self.labels, strict=True)):
            where.setdefault(label, k)
            where.setdefault(token, k)
        is_double = len(set(self.labels)) < len(self.labels)
        tokens = asked if self.read is None else self.read(asked)
        for label, token in zip(asked, tokens, strict=True):
            if token not in where:
                raise unknown_name("token of the circuit", label, self.labels)
            if is_double and isinstance(token, str):
                alike = zip(self.ids, self.labels, strict=True)
                check_one_meaning(token, [index for index, name in alike if name == token])
        return np.array([where[token] for token in tokens], dtype=np.int64)

    def of_group(self, name: str) -> Int[np.ndarray, " token"]:
        """Positions of a group's tokens; an unknown name raises with the close matches."""
        if name not in self.group_names:
            raise unknown_name("group of tokens", name, self.group_names)
        return np.flatnonzero(np.array(self.group) == self.group_names.index(name))

    def select(self, keep: Sequence[int] | Int[np.ndarray, " kept"]) -> TokenSet:
        """The tokens at some positions, in that order; all group names stay."""
        return replace(
            self,
            ids=tuple(self.ids[k] for k in keep),
            labels=tuple(self.labels[k] for k in keep),
            group=tuple(self.group[k] for k in keep),
        )


def name_tokens(
    model: HookedModel | AdaptedModel,
    labels: Sequence[str] | None = None,
    output_labels: Sequence[str] | None = None,
    *,
    tokenizer: Any = None,
) -> None:
    """Attaches labels to a model once: circuits, attributions, graphs and ablations of it know them then.

    Labels given to one of those calls go before the attached ones, and these before a tokenizer's tokens.
    What was attached before is replaced; without arguments it is taken away. The model is left as it is.

    Args:
        model: a HookedTransformer, a TransformerBridge or a PeftModel; a copy of it has no labels attached.
        labels: a label for every token id.
        output_labels: a label for every logit, where the outputs are another vocabulary.
        tokenizer: makes ids of texts, where the model has none (a PeftModel) or another one is meant.

    Raises:
        ModelError: labels of another length than the vocabulary.
    """
    if isinstance(model, HookedModel):
        labels_of(model, labels)
        if output_labels is not None:
            output_labels_of(model, labels, output_labels)
    given = (None if each is None else tuple(each) for each in (labels, output_labels))
    NAMES[model] = Names(*given, tokenizer=tokenizer)


def one_prompt(prompt: Any) -> Any:
    """A prompt, also of a batch of one, [1, pos] as run_with_cache takes it; a text stays a text.

    Raises:
        ModelError: a batch of several prompts, or a table with more axes.
    """
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


def token_set_of(model: HookedModel, tokens: Tokens, labels: Sequence[str], what: str) -> TokenSet:
    """A token set of a model, in which strings mean what the model's tokenizer makes of them.

    Raises:
        ModelError, UnknownNameError: see `token_set` and `encode_single_tokens`.
    """
    read = partial(_encoded, tokenizer_of(model), labels=labels)
    return replace(token_set(read(tokens), labels, what), read=read)


def token_ids(
    model: HookedModel, tokens: Any, labels: Sequence[str], what: str, *, repeats: bool = False
) -> tuple[int, ...]:
    """Token ids of ids, labels and strings of one token each: the one rule for all who take tokens.

    Raises:
        ModelError, UnknownNameError: see `check_tokens` and `encode_single_tokens`.
    """
    return check_tokens(encode_single_tokens(model, tokens, labels), labels, what, repeats=repeats)


def token_set(tokens: Tokens, labels: Sequence[str], what: str) -> TokenSet:
    """A token set from ids or labels, or from named groups of them.

    Raises:
        ModelError: no token, or one twice, in one group or in two: its weight would count double.
        UnknownNameError: a token that does not exist.
    """
    if isinstance(tokens, str):
        raise ModelError(f"{what} must be a sequence of tokens, got the string {tokens!r}: pass [{tokens!r}]")
    groups = tokens if isinstance(tokens, Mapping) else {what: tokens}
    ids: list[int] = []
    group: list[int] = []
    owner: dict[int, str] = {}
    for index, (name, members) in enumerate(groups.items()):
        for token in check_tokens(members, labels, f"{what} group {name!r}" if len(groups) > 1 else what):
            if token in owner:
                raise ModelError(
                    f"groups of {what} must not overlap, got {labels[token]!r} in {owner[token]!r} and in "
                    f"{name!r}: its energy would count double; leave it out of one"
                )
            owner[token] = name
            ids.append(token)
            group.append(index)
    return TokenSet(tuple(ids), tuple(labels[i] for i in ids), tuple(groups), tuple(group))


def labels_of(model: HookedModel, labels: Sequence[str] | None) -> Sequence[str]:
    """A label for every token id that goes in: those given or attached, or the tokenizer's, or "token 17".

    Raises:
        ModelError: labels of another length than the vocabulary.
    """
    labels = names_of(model).labels if labels is None else labels
    return _labels(model, labels, int(model.W_E.shape[0]), "token", "labels")


def output_labels_of(
    model: HookedModel, labels: Sequence[str] | None, output_labels: Sequence[str] | None = None
) -> Sequence[str]:
    """A label for every logit: those given or attached, or where there are none the labels of the inputs.

    A model whose outputs are another vocabulary (d_vocab_out is not d_vocab) has the tokenizer's labels, or
    "output 17".

    Raises:
        ModelError: labels of another length than the vocabulary.
    """
    count = int(model.W_U.shape[1])
    output_labels = names_of(model).output_labels if output_labels is None else output_labels
    if output_labels is None and count == int(model.W_E.shape[0]):
        return labels_of(model, labels)
    return _labels(model, output_labels, count, "output", "output_labels")


def _labels(
    model: HookedModel, labels: Sequence[str] | None, count: int, word: str, what: str
) -> Sequence[str]:
    if labels is not None:
        if len(labels) != count:
            raise ModelError(f"{what} must have one entry a token ({count}), got {len(labels)}")
        return labels
    tokenizer: Any = tokenizer_of(model)
    if tokenizer is None:
        return [f"{word} {index}" for index in range(count)]
    names = tokenizer.convert_ids_to_tokens(list(range(min(count, len(tokenizer)))))
    names += [None] * (count - len(names))
    return [f"{word} {index}" if name is None else name for index, name in enumerate(names)]


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


def encode_single_tokens(model: HookedModel, tokens: Tokens, labels: Sequence[str]) -> Any:
    """Strings that are no label, as ids: what the tokenizer makes of them, if it is one token.

    " Paris" is a string for a user and "ĠParis" for the tokenizer; both are accepted. A beginning-of-text
    token is never added.

    Raises:
        ModelError: a string of several tokens, or one that is a label of the tokenizer and, as a text,
            another token (SentencePiece: "Paris" is a label, and as a text "▁Paris").
    """
    return _encoded(tokenizer_of(model), tokens, labels)


def _encoded(tokenizer: Any, tokens: Any, labels: Sequence[str]) -> Any:
    if isinstance(tokens, Mapping):
        return {name: _encoded(tokenizer, members, labels) for name, members in tokens.items()}
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


INPUT_KINDS = ("training subjects", "held-out subjects", "r1", "r2", "noise", "EOS")
"""Kinds of input tokens of a fact-recall task, in the order of tables; see `input_kind_names`."""

OUTPUT_KINDS = ("facts", "implications", "rest")
"""Kinds of output tokens; "rest" are the input tokens of a whole vocabulary."""


def input_kind_names(task: FactRecallTask) -> tuple[str, ...]:
    """INPUT_KINDS, with r3 and on after r2 if a fact has several implications."""
    relations = [task.labels[token] for token in task.relation_tokens]
    return (*INPUT_KINDS[:2], *relations, *INPUT_KINDS[-2:])


def input_kinds(task: FactRecallTask) -> Int[np.ndarray, " input"]:
    """Index into `input_kind_names` of every input token of a task."""
    status = np.where(task.subject_trained, 0, 1)
    relations = 2 + np.arange(task.n_relations)
    noise = 2 + task.n_relations
    return np.concatenate([status, relations, np.full(task.n_noise, noise), [noise + 1]])


def task_inputs(task: FactRecallTask) -> TokenSet:
    """All input tokens of a task: subjects, relations, noise, EOS."""
    kinds = input_kinds(task)
    return TokenSet(
        tuple(range(task.n_inputs)),
        task.labels[: task.n_inputs],
        input_kind_names(task),
        tuple(int(k) for k in kinds),
    )


def task_outputs(task: FactRecallTask, outputs: str) -> TokenSet:
    """The answers of a task, facts first, or its whole vocabulary in the order of token ids."""
    if outputs not in ("answers", "vocabulary"):
        raise unknown_name("outputs", outputs, ("answers", "vocabulary"))
    first = task.n_inputs if outputs == "answers" else 0
    ids = tuple(range(first, task.d_vocab))
    kind = [2 if i < task.n_inputs else int(i >= task.n_inputs + task.n_facts) for i in ids]
    return TokenSet(ids, task.labels[first:], OUTPUT_KINDS, tuple(kind))
