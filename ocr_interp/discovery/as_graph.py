"""A found circuit as a CircuitGraph: layers from left to right, heads with their inputs, MLPs, the logits."""

from __future__ import annotations

import numpy as np

from ocr_interp.checks import check_flag
from ocr_interp.discovery.circuit import Circuit
from ocr_interp.graphs.graph import CircuitGraph, Edge, Effect, Node
from ocr_interp.stream.nodes import INPUT, LOGITS, StreamNodes


def circuit_as_graph(
    circuit: Circuit, *, inputs: bool = True, title: str | None = None, total: float | None = None
) -> CircuitGraph:
    """The edges of a circuit with their scores, as the one format of all diagrams.

    Contributions are scores: by how much the measure falls when the edge alone is ablated. They are effects
    and not parts of a sum; what the edges into the logits leave of `total` is its `hidden` part.

    Args:
        circuit: edges and scores.
        inputs: whether queries, keys and values of a head are nodes of their own, so that no edge is lost;
            otherwise their edges are summed into one to the head.
        title: None says how many edges there are.
        total: the effect of the whole model, in the measure's unit, such as full − empty of EdgeScores; None
            is the sum of the circuit's edges into the logits.
    """
    check_flag("inputs", inputs)
    nodes = circuit.nodes
    summed: dict[tuple[str, str], float] = {}
    into: dict[str, list[tuple[str, float]]] = {}
    for writer, reader in np.argwhere(circuit.mask).tolist():
        source, target, score = nodes.writers[writer], nodes.readers[reader], circuit.scores[writer, reader]
        ends = source, target if inputs else _head_of(nodes, target)
        summed[ends] = summed.get(ends, 0.0) + float(score)
        if inputs and "<" in target:
            into.setdefault(target, []).append((source, float(score)))
    for target, parts in into.items():
        for head in _heads_reading(nodes, target, circuit):
            summed[target, head] = sum(score for _, score in parts)
    edges = tuple(Edge(source, target, value) for (source, target), value in summed.items())
    named = dict.fromkeys([INPUT, *(end for edge in edges for end in (edge.source, edge.target)), LOGITS])
    order = sorted(named, key=lambda name: (_column(nodes, name), list(named).index(name)))
    shown = sum(edge.contribution for edge in edges if edge.target == LOGITS)
    total = shown if total is None else float(total)
    return CircuitGraph(
        title=title or f"{len(circuit)} of {nodes.n_edges} edges of {circuit.model or 'a model'}",
        nodes=tuple(Node(n, _kind(n), _label(n), (), _column(nodes, n)) for n in order),
        edges=edges,
        effects=(Effect(LOGITS, total, total - shown),),
        statement=f"score of an edge: fall of the measure without it ({circuit.method})",
        source=f"{circuit.model or 'a model'}, weights {circuit.fingerprint or 'unknown'}",
        fingerprint=circuit.fingerprint,
    )


def _kind(name: str) -> str:
    if name in (INPUT, LOGITS):
        return {INPUT: "input", LOGITS: "answer"}[name]
    return "reads" if "<" in name else "mlp" if name.startswith("m") else "head"


def _label(name: str) -> str:
    if name.startswith("m"):
        return f"MLP {name[1:]}"
    if not name.startswith("a"):
        return name
    layer, _, rest = name[1:].partition(".")
    entry, _, part = rest.partition("<")
    words = {"q": " query", "k": " key", "v": " value"}
    return f"L{layer}{entry.upper().replace('KV', ' group ')}{words.get(part[:1], '')}"


def _column(nodes: StreamNodes, name: str) -> int:
    """Input, then inputs, heads and MLPs of each layer (parallel MLPs beside the heads), then the logits."""
    if name == INPUT:
        return 0
    if name == LOGITS:
        return 1 + 3 * nodes.n_layers
    layer = int(name[1:].partition(".")[0])
    return 1 + 3 * layer + {"reads": 0, "head": 1, "mlp": 1 if nodes.parallel else 2}[_kind(name)]


def _head_of(nodes: StreamNodes, reader: str) -> str:
    """The head of an input; where it is shared, the group as a node of its own."""
    name = reader.partition("<")[0]
    return reader if ".kv" in name else name


def _heads_reading(nodes: StreamNodes, reader: str, circuit: Circuit) -> list[str]:
    """The heads of the circuit that an input belongs to."""
    index = nodes.reader_index[reader]
    return [writer for writer in circuit.writers if writer != reader and index in nodes.nodes_reading(writer)]
