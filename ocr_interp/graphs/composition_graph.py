"""The graph of composition: which head or MLP reads what which earlier one writes, through which input."""

from __future__ import annotations

import numpy as np

from ocr_interp.checks import check_count
from ocr_interp.circuits.weights.composition import Composition
from ocr_interp.circuits.weights.units import Unit
from ocr_interp.errors import ModelError
from ocr_interp.graphs.graph import CircuitGraph, Edge, Node

_INPUTS = {"Q": "queries", "K": "keys", "V": "values"}


def composition_graph(found: Composition, strongest: int = 20, title: str | None = None) -> CircuitGraph:
    """The pairs that stand out most from random matrices of the same spectra, as a graph.

    An edge from a writer to what a head reads (its queries, keys or values), or to an MLP, is their
    composition score. Scores are sizes between 0 and 1 and no logits: there is no answer, and nothing sums.
    From what a head reads to the head leads an edge with the largest of these scores.

    Args:
        found: the scores.
        strongest: number of pairs that are shown, those with the largest deviation.
        title: None names the model.

    Raises:
        ModelError: no pair at all, as in a model of one layer without MLPs.
    """
    check_count("strongest", strongest, 1)
    table = found.table().head(strongest)
    if not len(table):
        raise ModelError("a graph of composition needs a unit that reads another, got a model without any")
    units = {unit.name: unit for unit in (*found.writers, *found.readers)}
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    into: dict[tuple[str, str], float] = {}  # what is read, and by which head -> largest score
    for row in table.itertuples(index=False):
        writer, reader = units[str(row.writer)], units[str(row.reader)]
        for unit in (writer, reader):
            nodes[unit.name] = _node(unit)
        target, by, score = reader.name, str(row.by), float(np.float64(row.score))
        if by in _INPUTS:
            target = f"{reader.name}<{by.lower()}>"
            nodes[target] = Node(target, "reads", f"{_INPUTS[by]} of\n{reader.name}", (), 2 * reader.time)
            into[target, reader.name] = max(into.get((target, reader.name), 0.0), score)
        edges.append(Edge(writer.name, target, score))
    edges += [Edge(source, target, largest) for (source, target), largest in into.items()]
    order = sorted(nodes.values(), key=lambda node: (node.place, node.name))
    return CircuitGraph(
        title=title or f"Composition in {found.model}",
        nodes=tuple(order),
        edges=tuple(edges),
        effects=(),
        statement=(
            f"composition scores of the {len(table)} pairs furthest from random matrices of the same spectra "
            f"(these have {found.chance:.3g}); sizes, no logits"
        ),
        source=f"{found.model}, weights {found.fingerprint}",
        fingerprint=found.fingerprint,
    )


def _node(unit: Unit) -> Node:
    kind = "mlp" if unit.head is None else "head"
    return Node(unit.name, kind, unit.name, (), 2 * unit.time + 1)
