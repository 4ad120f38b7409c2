"""Names of the nodes and edges of the residual stream: "a0.h1->a1.h3<q>", as in EAP-IG.

Names of tables and pictures, "L0H1" and "MLP 0", mean the same. Writers are "input" (what enters the first
block: embeddings and positions), heads "a0.h1" and MLPs "m0". Readers are the inputs of the queries, keys and
values of heads, "a1.h3<q>", MLPs "m0" and "logits". Where heads share keys and values, these are read by
groups: "a1.kv0<k>", "a1.kv0<v>". Biases of attention outputs are no writers: they are the same for every
prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool

from ocr_interp.errors import ModelError, unknown_name

INPUT, LOGITS = "input", "logits"
ARROW = "->"
PARTS = ("q", "k", "v")
_HEAD = re.compile(r"a(\d+)\.(h|kv)(\d+)(?:<([qkv])>)?")
_TABLE_HEAD, _TABLE_MLP = re.compile(r"L(\d+)H(\d+)(<[qkv]>)?"), re.compile(r"(?:MLP |MLP|M)(\d+)")


def node_name(name: str) -> str:
    """The name of a node here, of one as tables and pictures write it: "L0H1<k>" and "MLP 0"."""
    head, mlp = _TABLE_HEAD.fullmatch(name), _TABLE_MLP.fullmatch(name)
    if head is not None:
        return f"a{head[1]}.h{head[2]}{head[3] or ''}"
    return name if mlp is None else f"m{mlp[1]}"


@dataclass(frozen=True)
class Reader:
    """One reader: its layer, what it is ("q", "k", "v", "mlp" or "logits"), and which head or group."""

    layer: int
    kind: str
    entry: int = 0


@dataclass(frozen=True)
class StreamNodes:
    """The writers, readers and edges of a model's residual stream.

    Attributes:
        n_layers, n_heads: of the model.
        n_kv_heads: key-value heads of a layer; as many as heads unless they are grouped.
        mlps: whether each layer has an MLP.
        parallel: whether MLPs read what the heads of their layer read, and not what these write.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    mlps: tuple[bool, ...]
    parallel: bool = False

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """Names of the writers, in the order in which they write."""
        found = [INPUT]
        for layer in range(self.n_layers):
            found += [f"a{layer}.h{head}" for head in range(self.n_heads)]
            found += [f"m{layer}"] if self.mlps[layer] else []
        return tuple(found)

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """Names of the readers, in the order in which they read."""
        return tuple(self._readers)

    @cached_property
    def _readers(self) -> dict[str, Reader]:
        found = {}
        for layer in range(self.n_layers):
            for part, count in zip(PARTS, (self.n_heads, self.n_kv_heads, self.n_kv_heads), strict=True):
                shared = part != "q" and self.n_kv_heads < self.n_heads
                for entry in range(count):
                    name = f"a{layer}.{'kv' if shared else 'h'}{entry}<{part}>"
                    found[name] = Reader(layer, part, entry)
            if self.mlps[layer]:
                found[f"m{layer}"] = Reader(layer, "mlp")
        found[LOGITS] = Reader(self.n_layers, "logits")
        return found

    def reader(self, name: str) -> Reader:
        """What a reader is."""
        return self._readers[name]

    @cached_property
    def reader_index(self) -> dict[str, int]:
        """Name of a reader -> its index."""
        return {name: k for k, name in enumerate(self.readers)}

    @cached_property
    def writer_index(self) -> dict[str, int]:
        """Name of a writer -> its index."""
        return {name: k for k, name in enumerate(self.writers)}

    def written_before(self, layer: int, mlp: bool = False) -> int:
        """How many writers come before the heads (or the MLP) of a layer read."""
        count = 1 + layer * self.n_heads + sum(self.mlps[:layer])
        return count + (self.n_heads if mlp and not self.parallel else 0)

    def heads_of(self, layer: int) -> slice:
        """Where the heads of a layer stand among the writers."""
        first = self.written_before(layer)
        return slice(first, first + self.n_heads)

    def mlp_of(self, layer: int) -> int:
        """Where the MLP of a layer stands among the writers."""
        return self.heads_of(layer).stop

    def readers_of(self, layer: int, kind: str) -> slice:
        """Where the readers of one kind ("q", "k", "v", "mlp") of a layer stand."""
        return self._places[layer, kind]

    @cached_property
    def _places(self) -> dict[tuple[int, str], slice]:
        found: dict[tuple[int, str], slice] = {}
        for k, reader in enumerate(self._readers.values()):
            key = reader.layer, reader.kind
            found[key] = slice(found[key].start if key in found else k, k + 1)
        return found

    @cached_property
    def allowed(self) -> Bool[np.ndarray, "writer reader"]:
        """Which pairs are edges: the writer writes before the reader reads."""
        table = np.zeros((len(self.writers), len(self.readers)), dtype=bool)
        for column, reader in enumerate(self._readers.values()):
            table[: self.written_before(reader.layer, reader.kind == "mlp"), column] = True
        return table

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return int(self.allowed.sum())

    @cached_property
    def edges(self) -> tuple[str, ...]:
        """Names of all edges, by reader."""
        return self.names(self.allowed)

    def names(self, mask: Bool[np.ndarray, "writer reader"]) -> tuple[str, ...]:
        """Names of the edges that are marked, by reader."""
        places = np.argwhere(np.asarray(mask).T)
        return tuple(f"{self.writers[w]}{ARROW}{self.readers[r]}" for r, w in places)

    def mask(self, edges: Iterable[str]) -> Bool[np.ndarray, "writer reader"]:
        """The edges with some names. A head as a reader, "a0.h1->a1.h3", is its queries, keys and values.

        Raises:
            UnknownNameError: a node that does not exist, with the close matches.
            ModelError: no edge, an edge from a node to an earlier one, or a head whose keys are shared.
        """
        if isinstance(edges, str):
            edges = (edges,)
        table = np.zeros_like(self.allowed)
        count = 0
        for edge in edges:
            for writer, reader in self._ends(edge):
                table[writer, reader] = True
                count += 1
        if not count:
            raise ModelError('edges must name at least one edge such as "a0.h1->a1.h3<q>", got none')
        return table

    def _ends(self, edge: str) -> list[tuple[int, int]]:
        if not isinstance(edge, str) or edge.count(ARROW) != 1:
            raise ModelError(f'an edge must be written "a0.h1->a1.h3<q>", "m0->logits" or so, got {edge!r}')
        source, target = (node_name(end.strip()) for end in edge.split(ARROW))
        if source not in self.writer_index:
            raise unknown_name("writer", source, self.writers)
        found = []
        for name in self.inputs_of(target):
            ends = self.writer_index[source], self.reader_index[name]
            if not self.allowed[ends]:
                raise ModelError(
                    f"an edge must lead to what reads after it was written, got {edge!r}: "
                    f"{source} writes after {target} has read"
                )
            found.append(ends)
        return found

    def inputs_of(self, node: str) -> Sequence[str]:
        """The readers that a name means: of a head its queries, keys and values.

        Raises:
            UnknownNameError: there is none of this name.
            ModelError: a head that shares its keys and values with others.
        """
        if node in self.reader_index:
            return (node,)
        match = _HEAD.fullmatch(node)
        if match is not None and match[2] == "h" and match[4] in PARTS[1:]:
            whole = f"a{match[1]}.h{match[3]}"
            if whole in self.writer_index:  # a head whose keys and values are read by its group
                raise ModelError(self._shared(match))
        if match is None or match[4] or (match[2] == "h" and node not in self.writer_index):
            raise unknown_name("reader", node, self.readers)
        names = [f"{node}<{part}>" for part in (PARTS if match[2] == "h" else PARTS[1:])]
        if any(name not in self.reader_index for name in names):
            if match[2] == "kv":
                raise unknown_name("reader", node, self.readers)
            raise ModelError(self._shared(match))
        return names

    def _shared(self, head: re.Match[str]) -> str:
        group, name = int(head[3]) // (self.n_heads // self.n_kv_heads), f"a{head[1]}.h{head[3]}"
        return (
            f"{name} shares its keys and values with other heads: name {name}<q>, a{head[1]}.kv{group}<k> or "
            f"a{head[1]}.kv{group}<v>"
        )

    def nodes_reading(self, writer: str) -> tuple[int, ...]:
        """Indices of the readers through which a writer's own output depends on the stream."""
        match = _HEAD.fullmatch(writer)
        if match is None:
            return () if writer == INPUT else (self.reader_index[writer],)
        layer, head = int(match[1]), int(match[3])
        group = head // (self.n_heads // self.n_kv_heads)
        shared = "kv" if self.n_kv_heads < self.n_heads else "h"
        entries = (f"h{head}<q>", f"{shared}{group}<k>", f"{shared}{group}<v>")
        return tuple(self.reader_index[f"a{layer}.{entry}"] for entry in entries)

    @cached_property
    def kinds(self) -> dict[str, Bool[np.ndarray, "writer reader"]]:
        """Kind of edge, such as "head -> q" (what writes and what reads) -> the edges of this kind."""
        sources = np.array(["head" if "." in w else "input" if w == INPUT else "mlp" for w in self.writers])
        targets = np.array([reader.kind for reader in self._readers.values()])
        found = {}
        for source in ("input", "head", "mlp"):
            for target in (*PARTS, "mlp", "logits"):
                marked = np.outer(sources == source, targets == target) & self.allowed
                if marked.any():
                    found[f"{source} {ARROW} {target}"] = marked
        return found
