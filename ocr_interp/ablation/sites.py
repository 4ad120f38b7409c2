"""Where an intervention acts: a hook, and which heads, positions and tokens of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ocr_interp.circuits.protocol import (
    LAYER_HOOKS,
    HookedModel,
    check_head,
    check_hook,
    check_tokens,
)
from ocr_interp.circuits.token_sets import INPUT_KINDS, OUTPUT_KINDS, labels_of, task_inputs, task_outputs
from ocr_interp.errors import ModelError, unknown_name
from ocr_interp.task import FactRecallTask

_BY_HEAD = ("hook_z", "hook_v", "hook_k", "hook_q", "hook_result")
_PATTERNS = ("hook_pattern", "hook_attn_scores")


@dataclass(frozen=True)
class Site:
    """A hook, restricted to some heads, positions and tokens; what is None is not restricted.

    Attributes:
        hook: full hook name, e.g. "blocks.0.attn.hook_z"; `Site.at` fills in the layer.
        heads: indices along the head axis of the activation; with grouped key-value heads those of
            hook_v are key-value heads.
        positions: positions of the sequence, negative ones from its end (-1 is the query, EOS).
        tokens: ids or labels of input tokens: positions that hold one of them. The ids of a batch are
            read where they enter the embedding, or given to `ablated`.

    At hook_pattern and hook_attn_scores, positions and tokens are those of the keys.
    """

    hook: str
    heads: tuple[int, ...] | None = None
    positions: tuple[int, ...] | None = None
    tokens: tuple[int | str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("heads", "positions", "tokens"):
            values = getattr(self, name)
            if values is None:
                continue
            if not values or len(set(values)) < len(values):
                raise ModelError(f"{name} must name at least one and each once, got {values!r}; None is all")
        if self.heads is not None and self.hook.rpartition(".")[2] not in (*_BY_HEAD, *_PATTERNS):
            raise ModelError(
                f"heads must be None at {self.hook}, got {self.heads}: it has no head axis; use hook_z, "
                "hook_v, hook_pattern or hook_attn_scores"
            )

    @classmethod
    def at(
        cls,
        kind: str,
        layer: int = 0,
        *,
        heads: Iterable[int] | None = None,
        positions: Iterable[int] | None = None,
        tokens: Iterable[int | str] | None = None,
    ) -> Site:
        """A site by kind of hook (a key of `protocol.LAYER_HOOKS`) and layer: Site.at("z", heads=[2])."""
        if kind not in LAYER_HOOKS:
            raise unknown_name("kind of hook", kind, LAYER_HOOKS)
        return cls(
            LAYER_HOOKS[kind].format(layer=layer),
            None if heads is None else tuple(heads),
            None if positions is None else tuple(positions),
            None if tokens is None else tuple(tokens),
        )

    @property
    def is_pattern(self) -> bool:
        """Whether the activation is [batch, head, query_pos, key_pos]."""
        return self.hook.rpartition(".")[2] in _PATTERNS

    def check(self, model: HookedModel, labels: Sequence[str] | None) -> frozenset[int] | None:
        """Requires that hook, heads and tokens exist; gives the token ids.

        Raises:
            UnknownNameError: an unknown hook or token label, with the close matches.
            ModelError: a head or token id that does not exist.
        """
        check_hook(model, self.hook)
        for head in self.heads or ():  # how many key-value heads hook_v has is seen in the forward pass
            check_head(model, head)
        if self.tokens is None:
            return None
        return frozenset(check_tokens(self.tokens, labels_of(model, labels)))

    def mask(
        self, value: Tensor, ids: Int[Tensor, "batch pos"] | None, wanted: frozenset[int] | None
    ) -> Bool[Tensor, "..."]:
        """Which entries are chosen; broadcasts against the activation."""
        position_axis = 3 if self.is_pattern else 1
        length = value.shape[position_axis]
        chosen = torch.ones(value.shape[0], length, dtype=torch.bool, device=value.device)
        if self.positions is not None:
            chosen &= _named(self.positions, length, "position").to(value.device)
        if wanted is not None and ids is not None:
            if ids.shape != chosen.shape:
                raise ModelError(
                    f"token ids must be {tuple(chosen.shape)} as the activation at {self.hook}, got "
                    f"{tuple(ids.shape)}: pass tokens= of this batch to `ablated`"
                )
            chosen &= torch.isin(ids.to(value.device), torch.tensor(sorted(wanted), device=value.device))
        shape = [value.shape[0]] + [1] * (value.ndim - 1)
        shape[position_axis] = length
        found = chosen.reshape(shape)
        if self.heads is not None:
            head_axis = 1 if self.is_pattern else 2
            heads = _named(self.heads, value.shape[head_axis], "head").to(value.device)
            found = found & heads.reshape([-1 if k == head_axis else 1 for k in range(value.ndim)])
        return found

    def describe(self) -> str:
        """One phrase, the same for the same site."""
        parts = [self.hook]
        for name in ("heads", "positions", "tokens"):
            values = getattr(self, name)
            if values is not None:
                parts.append(f"{name} {','.join(map(str, values))}")
        return " ".join(parts)


def _named(indices: tuple[int, ...], length: int, what: str) -> Bool[Tensor, " index"]:
    found = torch.zeros(length, dtype=torch.bool)
    for index in indices:
        if not -length <= index < length:
            raise ModelError(f"{what} must be in {-length}..{length - 1} for this batch, got {index}")
        found[index] = True
    return found


def tokens_of_kind(task: FactRecallTask, kind: str) -> tuple[int, ...]:
    """Token ids of a kind: one of INPUT_KINDS, "subjects", "relations", "facts" or "implications".

    Raises:
        UnknownNameError: another word, with the close matches.
        ModelError: a kind of which the task has no token.
    """
    inputs, outputs = task_inputs(task), task_outputs(task, "answers")
    merged = {"subjects": INPUT_KINDS[:2], "relations": INPUT_KINDS[2:4]}
    allowed = (*INPUT_KINDS, *merged, *OUTPUT_KINDS[:2])
    if kind not in allowed:
        raise unknown_name("kind of token", kind, allowed)
    side = outputs if kind in OUTPUT_KINDS else inputs
    names = merged.get(kind, (kind,))
    found = tuple(int(side.ids[k]) for name in names for k in side.of_group(name))
    if not found:
        raise ModelError(f"the task must have tokens of kind {kind!r}, got none: choose another kind")
    return found


class TokenReader:
    """The token ids of the batch that the model is being run on."""

    def __init__(self, given: Int[Tensor, "batch pos"] | None) -> None:
        self.given = given
        self.seen: Tensor | None = None

    def ids(self) -> Int[Tensor, "batch pos"]:
        """The ids given, or those that entered the embedding in this forward pass.

        Raises:
            ModelError: neither is there.
        """
        found = self.given if self.given is not None else self.seen
        if found is None:
            raise ModelError(
                "an intervention on tokens needs the token ids of the batch, got a model run on embeddings "
                "or from an inner layer: pass tokens= to `ablated`"
            )
        return found


@contextmanager
def reading_tokens(model: HookedModel, given: Int[Tensor, "batch pos"] | None) -> Iterator[TokenReader]:
    """Reads the ids that enter the embedding of the model while the block runs."""
    reader = TokenReader(given)
    embed: Any = getattr(model, "embed", None)
    if given is not None or not isinstance(embed, torch.nn.Module):
        yield reader
        return

    def remember(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and not value.is_floating_point() and value.ndim == 2:
                reader.seen = value.detach()
                return

    def forget(module: Any, args: tuple[Any, ...]) -> None:
        reader.seen = None

    handles = [embed.register_forward_pre_hook(remember, with_kwargs=True)]
    if isinstance(model, torch.nn.Module):
        handles.append(model.register_forward_pre_hook(forget))
    try:
        yield reader
    finally:
        for handle in handles:
            handle.remove()
