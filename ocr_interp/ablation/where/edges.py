"""Edges: what some writers of the residual stream carry directly to some readers, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ocr_interp.ablation.binding import Bound, reference_run
from ocr_interp.ablation.controls import Draw
from ocr_interp.ablation.where.base import Place, Replacement, Where
from ocr_interp.errors import ModelError
from ocr_interp.hooked.passes import TokenReader
from ocr_interp.hooked.protocol import HookedModel
from ocr_interp.storage.digests import digest_of
from ocr_interp.stream.checks import stream_of
from ocr_interp.stream.editing import EdgeEdit
from ocr_interp.stream.nodes import StreamNodes
from ocr_interp.stream.reading import read_writers
from ocr_interp.stream.stream import Stream

_NAMED = 12


@dataclass(frozen=True)
class Edges(Where):
    """Direct edges between nodes of a model, such as "a0.h1->a1.h3<k>": path patching, many edges at once.

    Writers are "input" (what enters the first block), heads "a0.h1" and MLPs "m0"; readers are the queries,
    keys and values of heads "a1.h3<q>", "a1.h3<k>", "a1.h3<v>" ("a1.h3" is all three), MLPs "m1" and
    "logits". Where heads share keys and values, readers are the groups, "a1.kv0<k>" and "a1.kv0<v>".

    An edit replaces what the writer carries to this reader alone: the reader's input gains what is to be
    there minus what the writer writes in the same forward pass. The norm before the reader is computed of
    the changed input, and so is everything downstream; all other readers see the writer as it is. Values
    are [batch, pos, d_model]; biases of attention outputs belong to no writer.

    Its random control has as many random edges of each kind (what writes, what reads).

    Attributes:
        edges: names of edges; one text is one edge. Kept as a tuple.
        outside: all edges of the model but these, as when a circuit is evaluated.
        positions: positions at which readers are edited, negative ones from the end; None is all.

    Raises:
        UnknownNameError: when applied, a node that does not exist; the message lists close matches.
        ModelError: when applied, an edge to an earlier node, or a model whose stream is not the sum of what
            heads and MLPs write (see `stream.checks`).
    """

    edges: Any
    outside: bool = field(default=False, kw_only=True)
    positions: tuple[int, ...] | None = field(default=None, kw_only=True)

    prefix: ClassVar[str] = "Edges"

    def __post_init__(self) -> None:
        edges: Iterable[str] = (self.edges,) if isinstance(self.edges, str) else self.edges
        object.__setattr__(self, "edges", tuple(edges))
        if self.positions is not None:
            object.__setattr__(self, "positions", tuple(int(p) for p in self.positions))

    def describe(self) -> str:
        """One phrase that identifies the edges."""
        many = len(self.edges) > _NAMED
        text = (
            f"{len(self.edges)} edges {digest_of(' '.join(self.edges), 8)}" if many else ",".join(self.edges)
        )
        parts = [f"all but {text}" if self.outside else text]
        if self.positions is not None:
            parts.append(f"positions {','.join(map(str, self.positions))}")
        return " ".join(parts)

    def bind(
        self,
        model: HookedModel,
        reader: TokenReader,
        labels: Sequence[str] | None,
        prepare: Callable[[Place], Replacement],
        described: str,
    ) -> Bound:
        """Checks the edges against the model and returns its hooks."""
        stream = stream_of(model)
        mask = self.mask(stream.nodes)
        read = _ReadOnce(stream)
        replacements = {
            int(k): prepare(_Writer(stream, int(k), read, labels)) for k in np.flatnonzero(mask.any(1))
        }
        bound = Bound(described)

        def instead(which: slice, written: Tensor) -> Tensor:
            found = written.clone()
            for column, k in enumerate(range(which.start, which.stop)):
                if k in replacements:
                    found[:, :, column] = one(replacements[k], written[:, :, column])
            return found

        def one(replacement: Replacement, value: Tensor) -> Tensor:
            def edited(value: Tensor) -> Tensor:
                at = self._at(value[:, :, 0])[:, :, None]
                bound.note(at)
                return torch.where(at, replacement(value, at).to(value), value)

            return edited(value) if reader.padding is None else reader.padding.apart(edited, value)

        edit = EdgeEdit(stream, mask, instead)
        bound.hooks, bound.modules = tuple(edit.hooks), tuple(edit.modules)
        return bound

    def mask(self, nodes: StreamNodes) -> Bool[np.ndarray, "writer reader"]:
        """The edges of a model that are edited."""
        if self.outside and not self.edges:
            return nodes.allowed
        named = nodes.mask(self.edges)
        found = nodes.allowed & ~named if self.outside else named
        if not found.any():
            raise ModelError("edges must leave at least one edge to edit, got all of them with outside=True")
        return found

    def _at(self, like: Tensor) -> Bool[Tensor, "batch pos"]:
        every = torch.ones_like(like, dtype=torch.bool)
        if self.positions is None:
            return every
        length = like.shape[1]
        outside = [p for p in self.positions if not -length <= p < length]
        if outside:
            raise ModelError(f"position must be in {-length}..{length - 1} for this batch, got {outside[0]}")
        chosen = torch.zeros_like(every)
        chosen[:, list(self.positions)] = True
        return chosen

    def random(self, draw: Draw) -> Edges | None:
        """As many random edges of each kind; None if there is nothing else to draw."""
        nodes = stream_of(draw.model).nodes
        mask = self.mask(nodes)
        drawn = random_edges(nodes, mask, draw.rng)
        if bool((mask == nodes.allowed).all()):
            return None
        return replace(self, edges=nodes.names(drawn), outside=False)

    def touched(
        self, model: HookedModel, tokens: Int[Tensor, "batch pos"], labels: Sequence[str] | None
    ) -> Float[Tensor, " batch"]:
        """How many positions of each prompt are edited; edges are not counted."""
        return self._at(tokens).sum(1).float()


def random_edges(
    nodes: StreamNodes, mask: Bool[np.ndarray, "writer reader"], rng: np.random.Generator
) -> Bool[np.ndarray, "writer reader"]:
    """As many random edges of each kind as are marked, uniform over all such sets."""
    found = np.zeros_like(mask)
    for of_kind in nodes.kinds.values():
        places = np.argwhere(of_kind)
        count = int((mask & of_kind).sum())
        for writer, reader in rng.permutation(places)[:count]:
            found[writer, reader] = True
    return found


class _ReadOnce:
    """Runs a reference once for all writers."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._known: list[tuple[Tensor, Tensor]] = []

    def of(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos writer d_model"]:
        for known, values in self._known:
            if known.shape == tokens.shape and torch.equal(known, tokens):
                return values
        with reference_run():
            values, _ = read_writers(self.stream, tokens)
        self._known.append((tokens, values))
        return values


class _Writer(Place):
    """One writer of a model's stream."""

    by_query = False

    def __init__(self, stream: Stream, index: int, read: _ReadOnce, labels: Sequence[str] | None) -> None:
        self.model, self.name, self.labels = (
            stream.model,
            f"what {stream.nodes.writers[index]} writes",
            labels,
        )
        self._index, self._read = index, read

    def read_prompts(self, tokens: Int[Tensor, "batch pos"], what: str) -> tuple[Tensor, Tensor]:
        value = self._read.of(tokens)[:, :, self._index]
        return value, torch.ones(*value.shape[:2], 1, dtype=torch.bool, device=value.device)

    def sharing(self, mask: Bool[Tensor, "batch ..."]) -> Int[Tensor, " row"]:
        return torch.arange(len(mask), device=mask.device)
