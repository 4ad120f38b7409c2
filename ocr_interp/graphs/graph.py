"""CircuitGraph: what adds how much to which answer, as nodes and edges whose contributions sum to the logits.

Edges go from left to right through columns: tokens, what the query attends to, OV blocks, answers. What
flows into a node flows out of it, and what flows into an answer is its logit (difference).
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from ocr_interp.checks import check_count, check_number
from ocr_interp.errors import AttributionError, ConfigError, shown, unknown_name
from ocr_interp.linalg.sums import TOLERANCE
from ocr_interp.registry import Registry
from ocr_interp.storage.reading import parse_json

SCHEMA = "ocr-interp/circuit-graph"
SCHEMA_VERSION = 2
"""Version 2 has columns of nodes; graphs without them are written as version 1."""

COLUMNS = ("token", "attention", "ov_block", "answer")
"""Kinds of nodes, from left to right; "source" nodes (biases, direct path) stand with
the OV blocks, since they also write to answers."""

LAYERED = ("input", "reads", "head", "mlp")
"""Kinds of nodes of a whole model, which stand in a column of their own number: what enters the first block,
what a head reads (its queries, keys or values), heads and MLPs."""

NODE_KINDS = (*COLUMNS, "source", *LAYERED)
READABLE, ROUNDED = 0.01, 0.005
"""Share of the effect, and share of the largest edge, below which `readable` leaves edges out."""

_DRAWING: Registry[Any] = Registry("drawing of a graph", "ocr_interp.viz.diagram", "AS_SVG")
"""Diagrams stand below graphs and are found by name, when a notebook asks for a picture."""

_COLUMN = {**{kind: place for place, kind in enumerate(COLUMNS)}, "source": COLUMNS.index("ov_block")}

LONGEST_TEXT = 2_000
"""Most letters of a title, name, label or member; the statement and the source may have ten times as many."""

LARGEST_COLUMN = 100_000

LARGEST = 1e100
"""Largest contribution, in logits: sums of contributions stay finite."""

EDGE_KINDS = ("told", "untold")
"""Whether training ever asked for what an edge does; "untold" is out-of-context reasoning itself."""


@dataclass(frozen=True)
class Node:
    """A node of the graph.

    Attributes:
        name: unique in the graph.
        kind: an entry of NODE_KINDS.
        label: readable; may have several lines.
        members: labels of the tokens it stands for.
        column: its column from the left, for the kinds of LAYERED and answers beside them; None is the
        kind's.
    """

    name: str
    kind: str
    label: str
    members: tuple[str, ...] = ()
    column: int | None = None

    @property
    def place(self) -> int:
        """Its column from the left."""
        return _COLUMN.get(self.kind, 0) if self.column is None else self.column


@dataclass(frozen=True)
class Edge:
    """A signed contribution from one node to the next.

    Attributes:
        source, target: names of nodes.
        contribution: in logits, signed.
        kind: an entry of EDGE_KINDS.
    """

    source: str
    target: str
    contribution: float
    kind: str = "told"


@dataclass(frozen=True)
class Effect:
    """What an answer node stands for.

    Attributes:
        node: the answer node's name.
        total: its logit (difference), in logits.
        hidden: part of it that pruned edges carried; edges into the node sum to total − hidden.
    """

    node: str
    total: float
    hidden: float = 0.0


@dataclass(frozen=True)
class CircuitGraph:
    """A circuit as a layered graph; made by `ocr_interp.graphs.building`.

    Attributes:
        title: what it shows, a few words.
        nodes, edges: as they are drawn, from top to bottom.
        effects: one for every answer node.
        statement: what is exact and what is held fixed or averaged.
        source: the model, its step, seed and weights, in words.
        fingerprint: of the weights, as in Provenance.
        pruned_below: share of the effect below which edges were dropped; 0 if none were.

    Raises:
        ConfigError: names twice, edges between nodes that do not exist or to an earlier column, unknown
            kinds, texts that are none or too long, numbers that are not finite.
        AttributionError: edges that do not sum to an effect, or what flows in and out of a node differs.
    """

    title: str
    nodes: tuple[Node, ...] = field(repr=False)
    edges: tuple[Edge, ...] = field(repr=False)
    effects: tuple[Effect, ...] = field(repr=False)
    statement: str
    source: str
    fingerprint: str
    pruned_below: float = 0.0

    def __post_init__(self) -> None:
        self._check_types()
        names = {node.name: node for node in self.nodes}
        if len(names) < len(self.nodes):
            raise ConfigError("nodes must have different names, got some twice")
        for node in self.nodes:
            if node.kind not in NODE_KINDS:
                raise unknown_name("kind of node", node.kind, NODE_KINDS)
        for edge in self.edges:
            for end in (edge.source, edge.target):
                if end not in names:
                    raise unknown_name("node of an edge", end, names)
            if edge.kind not in EDGE_KINDS:
                raise unknown_name("kind of edge", edge.kind, EDGE_KINDS)
            if names[edge.source].place >= names[edge.target].place:
                kinds = [names[end].kind for end in (edge.source, edge.target)]
                raise ConfigError(
                    f"an edge must lead to a later column ({', '.join(COLUMNS)}), got one from "
                    f"{shown(edge.source)} ({kinds[0]}) to {shown(edge.target)} ({kinds[1]})"
                )
        answers = [node.name for node in self.nodes if node.kind == "answer"]
        if sorted(answers) != sorted(effect.node for effect in self.effects):
            raise ConfigError(f"every answer node must have one effect, got nodes {shown(answers)}")
        self._check_sums()

    def _check_types(self) -> None:
        for name, most in (("title", 1), ("statement", 10), ("source", 10), ("fingerprint", 1)):
            _require_text(name, getattr(self, name), most * LONGEST_TEXT)
        for node in self.nodes:
            for name in ("name", "kind", "label"):
                _require_text(f"{name} of a node", getattr(node, name))
            if not isinstance(node.members, tuple):
                raise ConfigError(f"members of a node must be a tuple of texts, got {shown(node.members)}")
            for member in node.members:
                _require_text("a member of a node", member)
            if node.column is not None or node.kind in LAYERED:
                check_count(f"column of {shown(node.name)}", node.column, 0, LARGEST_COLUMN)
        for edge in self.edges:
            for name in ("source", "target", "kind"):
                _require_text(f"{name} of an edge", getattr(edge, name))
            _require_size("contribution of an edge", edge.contribution)
        for effect in self.effects:
            _require_text("node of an effect", effect.node)
            for name in ("total", "hidden"):
                _require_size(f"{name} of an effect", getattr(effect, name))
        check_number("pruned_below", self.pruned_below, at_least=0.0)
        if self.pruned_below > 1:
            raise ConfigError(f"pruned_below must be <= 1, got {self.pruned_below}")

    def _check_sums(self) -> None:
        into: dict[str, list[float]] = {}
        out: dict[str, list[float]] = {}
        for edge in self.edges:
            into.setdefault(edge.target, []).append(edge.contribution)
            out.setdefault(edge.source, []).append(edge.contribution)
        for effect in self.effects:
            parts = into.get(effect.node, [])
            what = f"edges into {shown(effect.node)}"
            _require_equal(sum(parts), effect.total - effect.hidden, parts, what)
        if self.pruned_below:
            return
        for node in self.nodes:
            if node.kind in ("attention", "ov_block"):
                come, go = into.get(node.name, []), out.get(node.name, [])
                _require_equal(sum(come), sum(go), come + go, f"what flows through {shown(node.name)}")

    @property
    def total(self) -> float:
        """Sum of all effects; of a graph with one answer its logit difference."""
        return sum(effect.total for effect in self.effects)

    @property
    def size_of_effect(self) -> float:
        """Sum of |contribution| over the edges into answers, the total that shares refer to."""
        answers = {effect.node for effect in self.effects}
        return sum(abs(edge.contribution) for edge in self.edges if edge.target in answers)

    def node(self, name: str) -> Node:
        """A node by name; an unknown one raises with the close matches."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise unknown_name("node", name, [node.name for node in self.nodes])

    def through(self, name: str) -> float:
        """What a node carries, in logits: of an answer its total, of attention the sum of its incoming edges
        (never pruned), else the sum of its outgoing edges."""
        kind = self.node(name).kind
        if kind == "answer":
            return next(effect.total for effect in self.effects if effect.node == name)
        if kind == "attention":
            return sum(edge.contribution for edge in self.edges if edge.target == name)
        return sum(edge.contribution for edge in self.edges if edge.source == name)

    def edge(self, source: str, target: str) -> Edge:
        """The edge between two nodes; one that does not exist raises with the edges of its source."""
        for name in (source, target):
            self.node(name)
        for edge in self.edges:
            if (edge.source, edge.target) == (source, target):
                return edge
        raise unknown_name(
            f"edge from {source!r} to", target, [edge.target for edge in self.edges if edge.source == source]
        )

    def prune(self, share: float) -> CircuitGraph:
        """The graph without edges below a share of the effect, and without the nodes that this disconnects.

        Untold edges always stay, however small, since the graph is to show whether they carry anything. A
        token's edge to its attention stays while any of what it writes does, since contributions to several
        blocks may cancel in it. What the dropped edges carried into answers goes to `Effect.hidden`.

        Args:
            share: of `size_of_effect`, 0 to 1.

        Raises:
            ConfigError: a share below 0 or above 1.
        """
        check_number("share", share, at_least=0.0)
        if share > 1:
            raise ConfigError(f"share must be <= 1, got {share}")
        return self._without(share, [])

    def _without(self, share: float, zeros: list[Edge]) -> CircuitGraph:
        """The graph without edges below a share and without some untold edges."""
        least = share * self.size_of_effect
        attention = {node.name for node in self.nodes if node.kind == "attention"}
        kept = tuple(
            e
            for e in self.edges
            if (e.kind == "untold" and e not in zeros)
            or e.target in attention
            or (e.kind != "untold" and abs(e.contribution) >= least)
        )
        # A node that lost all its edges on one side is no longer connected: drop its other edges too.
        while True:
            sources, targets = {e.source for e in kept}, {e.target for e in kept}
            alive = {n.name for n in self.nodes if self._stands(n, sources, targets)}
            still = tuple(e for e in kept if e.source in alive and e.target in alive)
            if len(still) == len(kept):
                break
            kept = still
        effects = []
        for effect in self.effects:
            left = sum(e.contribution for e in kept if e.target == effect.node)
            effects.append(Effect(effect.node, effect.total, effect.total - left))
        connected = {e.source for e in kept} | {e.target for e in kept} | {e.node for e in effects}
        nodes = tuple(node for node in self.nodes if node.name in connected)
        return dataclasses.replace(
            self, nodes=nodes, edges=kept, effects=tuple(effects), pruned_below=max(share, self.pruned_below)
        )

    def readable(self) -> CircuitGraph:
        """The graph without edges below 1% of the effect, and without those that would be shown as zero.

        Numbers are shown with about three digits of the largest edge. Of the untold edges into an answer,
        those that would be shown as zero are left out only if another one stays.
        """
        zero = ROUNDED * max((abs(edge.contribution) for edge in self.edges), default=0.0)
        share = min(max(READABLE, zero / self.size_of_effect), 1.0) if self.size_of_effect else 0.0
        answers = {effect.node for effect in self.effects}
        untold = [edge for edge in self.edges if edge.kind == "untold" and edge.target in answers]
        large = {edge.target for edge in untold if abs(edge.contribution) >= zero}
        return self._without(share, [e for e in untold if abs(e.contribution) < zero and e.target in large])

    @staticmethod
    def _stands(node: Node, sources: set[str], targets: set[str]) -> bool:
        if node.kind == "answer":
            return True
        if node.kind in ("token", "source"):
            return node.name in sources
        return node.name in sources and node.name in targets

    def _repr_svg_(self) -> str | None:
        """The diagram of `readable()`, for notebooks; None for a graph without edges."""
        return _DRAWING["drawing"](self) if self.edges else None

    # --- on disk --------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The graph as JSON with a schema version; floats keep all their digits."""
        content = {"schema": SCHEMA, "version": 1, **dataclasses.asdict(self)}
        for node in content["nodes"]:
            if node["column"] is None:
                del node["column"]
            else:
                content["version"] = SCHEMA_VERSION
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> CircuitGraph:
        """The graph from the result of `to_json`.

        Raises:
            ConfigError: not JSON, another schema, a newer version, missing or unknown fields.
            AttributionError: contributions that were edited and no longer sum.
        """
        try:
            content: Any = parse_json(text)
        except ValueError as error:
            raise ConfigError(f"a circuit graph must be JSON, got text that is not: {error}") from None
        found = content.get("schema") if isinstance(content, dict) else None
        if found != SCHEMA:
            raise ConfigError(f"a circuit graph must have schema {SCHEMA!r}, got {shown(found)}")
        version = content.get("version")
        if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
            raise ConfigError(
                f"this version reads circuit graphs up to version {SCHEMA_VERSION}, got {shown(version)}: "
                "update ocr-interp"
            )
        values = {name: value for name, value in content.items() if name not in ("schema", "version")}
        try:
            for name, made in (("nodes", _node), ("edges", Edge), ("effects", Effect)):
                if not isinstance(values[name], list):
                    raise TypeError(f"{name} must be a list, got {shown(values[name])}")
                values[name] = tuple(made(**item) for item in values[name])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ConfigError(f"a circuit graph of version {version} is damaged: {error}") from None


def _node(*, members: Any, **values: Any) -> Node:
    """A node from JSON, where tuples are lists."""
    if not isinstance(members, list):
        raise TypeError(f"members must be a list, got {shown(members)}")
    return Node(**values, members=tuple(members))


def _require_text(what: str, value: Any, most: int = LONGEST_TEXT) -> None:
    if not isinstance(value, str):
        raise ConfigError(f"{what} must be a text, got {shown(value)}")
    if len(value) > most:
        raise ConfigError(f"{what} must have at most {most:,} letters, got {len(value):,}")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise ConfigError(f"{what} must be Unicode, got a surrogate without its partner in {shown(value)}")


def _require_size(what: str, value: Any) -> None:
    check_number(what, value)
    if abs(value) > LARGEST:
        raise ConfigError(f"{what} must be at most {LARGEST:g} in size, got {value:g}")


def _require_equal(got: float, wanted: float, parts: list[float], what: str) -> None:
    allowed = TOLERANCE * max(1.0, sum(abs(part) for part in parts))
    if not abs(got - wanted) <= allowed:
        raise AttributionError(
            f"{what} must sum to {wanted:.12g}, got {got:.12g} (allowed difference {allowed:.1g})"
        )
