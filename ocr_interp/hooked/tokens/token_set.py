"""The tokens on one side of a circuit: ids in order, with their labels and named groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Int

from ocr_interp.errors import ModelError, unknown_name
from ocr_interp.hooked.protocol import HookedModel
from ocr_interp.hooked.tokens.ids import (
    TokenList,
    Tokens,
    check_one_meaning,
    check_tokens,
    encode_with_tokenizer,
    plain_tokens,
)
from ocr_interp.hooked.tokens.labels import tokenizer_of


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


def token_set_of(model: HookedModel, tokens: Tokens, labels: Sequence[str], what: str) -> TokenSet:
    """A token set of a model, in which strings mean what the model's tokenizer makes of them.

    Raises:
        ModelError, UnknownNameError: see `token_set` and `encode_single_tokens`.
    """
    read = partial(encode_with_tokenizer, tokenizer_of(model), labels=labels)
    return replace(token_set(read(tokens), labels, what), read=read)
