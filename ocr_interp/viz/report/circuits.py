"""Circuit graphs as data that a page draws: places from the layout of diagrams, contributions by variant."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ocr_interp.errors import ConfigError
from ocr_interp.graphs.ablated_mechanism import ablated_mechanism, removable
from ocr_interp.graphs.graph import CircuitGraph, Edge, Effect, Node
from ocr_interp.graphs.simplify import simplify_alike
from ocr_interp.storage.plain import plain
from ocr_interp.training.run import Snapshot
from ocr_interp.viz.diagram.dot import drawable
from ocr_interp.viz.diagram.drawing import MOST_NODES
from ocr_interp.viz.diagram.layers import is_layered, lay_out_layers
from ocr_interp.viz.diagram.layout import lay_out, wrapped_label
from ocr_interp.viz.report.panels import DIGITS, Panel, label

HEAD, EDGE = 26.0, 10.0
"""Room above the columns for their headings, and around them, in points."""

PAGE, LEAST, LARGEST = 880.0, 1.35, 2.0
"""Of whole models: the width they are scaled to, with the least and the largest scale that labels allow."""

LAYERED_EDGES = 300
"""Most edges of whole models in a page."""

ROUNDING = 1e-10
"""Share of the largest number of a diagram below which a contribution counts as 0."""

MOST_TOGGLES = 6
"""Parts that can be switched off together: each doubles the number of graphs in the page."""

_HOW = (
    "Line width: size of a contribution in logits; blue for the answer, orange against it, red where "
    "training never asked, dashed where that is below a tenth of the largest. Point at a part, or move to it "
    "with Tab, to read its number."
)


def circuit_panel(
    title: str, graphs: Mapping[str, CircuitGraph], text: str = "", *, by_step: bool = False
) -> Panel:
    """Graphs of the same nodes as one diagram with a threshold, and with before, after and change.

    Args:
        title: of the panel.
        graphs: name -> graph, the one before first.
        text: said before the explanation of lines.
        by_step: whether the slider of the section chooses the graph.

    Raises:
        ConfigError: no graph, a graph that is too large to draw, or a node that is of two kinds.
    """
    data = graph_data(graphs)
    data["by_step"] = by_step
    statement = list(graphs.values())[-1].statement
    return Panel("circuit", title, f"{text} {_HOW} Numbers: {label(statement)}.".strip(), data)


def ablation_panel(run: Snapshot, *, max_subjects: int = 6, expert: int | None = None) -> Panel:
    """The mechanism at the end of training with switches for its parts; all combinations are computed."""
    parts = removable(run)[:MOST_TOGGLES] if len(removable(run)) <= MOST_TOGGLES else _chosen(run)
    graphs: dict[str, CircuitGraph] = {}
    for mask in range(2 ** len(parts)):
        removed = [part for k, part in enumerate(parts) if mask >> k & 1]
        graphs[str(mask)] = ablated_mechanism(run, removed, max_subjects=max_subjects, expert=expert)
    data = graph_data(graphs)
    data["toggles"] = [label(part) for part in parts]
    data["variant_names"] = []  # a mask of toggles says which it is
    text = (
        "Switch a part off and see what the answers lose. Before: the whole model; after: without the parts. "
        f"All {len(graphs)} graphs are computed from weights at step {run.step:,}. {_HOW}"
    )
    return Panel("circuit", "Ablations", text, data)


def _chosen(run: Snapshot) -> tuple[str, ...]:
    """The most telling MOST_TOGGLES parts: the path that was never told last, EOS left out first."""
    parts = removable(run)
    keep = [part for part in parts if not part.endswith("EOS")]
    return (*keep[: MOST_TOGGLES - 1], parts[-1])


def graph_data(graphs: Mapping[str, CircuitGraph]) -> dict[str, Any]:
    """Places of nodes, and the contributions of every graph along the edges of all of them.

    Raises:
        ConfigError: no graph, a graph that is too large to draw, or a node that is of two kinds.
    """
    if not graphs:
        raise ConfigError("a diagram needs at least one graph, got none")
    layered = any(is_layered(graph) for graph in graphs.values())
    if layered:
        graphs = _simplified(graphs)
    shown = {name: drawable(graph, MOST_NODES) for name, graph in graphs.items()}
    union = union_of(list(shown.values()))
    largest = max((abs(e.contribution) for graph in shown.values() for e in graph.edges), default=0.0)
    zero = ROUNDING * max(largest, max(graph.size_of_effect for graph in shown.values()))
    if layered:
        layout = lay_out_layers(union, beside=list(shown.values()))
    else:
        roomy = dataclasses.replace(
            union, title="", statement="", source="", nodes=_roomiest(union, shown.values())
        )
        layout = lay_out(roomy, dict.fromkeys((node.name for node in union.nodes), f"+{largest:.4g}"))
    left = min(node.x - node.width / 2 for node in layout.nodes)
    right = max(node.x + node.width / 2 for node in layout.nodes)
    top = max(node.y + node.height / 2 for node in layout.nodes)
    low = min(node.y - node.height / 2 for node in layout.nodes)
    scale = max(LEAST, min(LARGEST, PAGE / (right - left))) if layered else 1.0
    nodes = [
        {
            "name": label(node.label.replace("\n", " ")),
            "kind": node.kind,
            "members": [label(member) for member in node.members[:40]],
            "x": round(scale * (placed.x - left) + EDGE, 1),
            "y": round(scale * (top - placed.y) + HEAD, 1),
            "w": round(scale * placed.width, 1),
            "h": round(scale * placed.height, 1),
            # In a whole model the layer stands above the column, and numbers are read by pointing.
            **({"short": label(placed.label)} if layered else {}),
        }
        for node, placed in zip(union.nodes, layout.nodes, strict=True)
    ]
    place = {node.name: k for k, node in enumerate(union.nodes)}
    edges = [
        {"source": place[e.source], "target": place[e.target], "untold": e.kind == "untold"}
        for e in union.edges
    ]
    return {
        "nodes": nodes,
        "edges": edges,
        "headings": [{"x": round(scale * (x - left) + EDGE, 1), "text": text} for x, text in layout.headings],
        "width": round(scale * (right - left) + 2 * EDGE, 1),
        "height": round(scale * (top - low) + HEAD + EDGE, 1),
        "largest": largest,
        "variant_names": [label(name) for name in graphs],
        "variants": [_variant(graph, union, zero) for graph in shown.values()],
        "source": label(union.source),
    }


def _simplified(graphs: Mapping[str, CircuitGraph]) -> dict[str, CircuitGraph]:
    """Graphs of whole models as diagrams show them, with edges enough for the threshold to choose from."""
    union = union_of(list(graphs.values()))
    full = []
    for graph in graphs.values():
        found = {(edge.source, edge.target): edge for edge in graph.edges}
        none = [dataclasses.replace(edge, contribution=0.0) for edge in union.edges]
        edges = tuple(found.get((edge.source, edge.target), edge) for edge in none)
        full.append(dataclasses.replace(graph, nodes=union.nodes, edges=edges))
    return dict(zip(graphs, simplify_alike(full, most_edges=LAYERED_EDGES), strict=True))


def _roomiest(union: CircuitGraph, graphs: Iterable[CircuitGraph]) -> tuple[Node, ...]:
    """The nodes with the longest label that each has in any graph, so that every label fits its box."""
    longest = {node.name: node for node in union.nodes}
    for graph in graphs:
        for node in graph.nodes:
            if len(node.label) > len(longest[node.name].label):
                longest[node.name] = node
    return tuple(longest[node.name] for node in union.nodes)


def _variant(graph: CircuitGraph, union: CircuitGraph, zero: float) -> dict[str, Any]:
    """Contributions, labels and effects of one graph in the order of the union; rounding errors are 0."""
    found = {(edge.source, edge.target): edge.contribution for edge in graph.edges}
    there = {node.name: node for node in graph.nodes}
    edges = [found.get((e.source, e.target), 0.0) for e in union.edges]
    through = [graph.through(n.name) if n.name in there else 0.0 for n in union.nodes]
    return {
        "edges": plain([value if abs(value) > zero else 0.0 for value in edges], DIGITS),
        "through": plain([value if abs(value) > zero else 0.0 for value in through], DIGITS),
        "labels": [wrapped_label(label(there.get(node.name, node).label)) for node in union.nodes],
        "effect": plain(graph.size_of_effect, DIGITS),
    }


def union_of(graphs: Sequence[CircuitGraph]) -> CircuitGraph:
    """The last graph with the nodes and edges of all, those that it lacks with a contribution of 0.

    Raises:
        ConfigError: a node that is of one kind here and of another there.
    """
    base = graphs[-1]
    nodes: dict[str, Node] = {node.name: node for node in base.nodes}
    edges: dict[tuple[str, str], Edge] = {(edge.source, edge.target): edge for edge in base.edges}
    effects = {effect.node: effect for effect in base.effects}
    for graph in graphs:
        for node in graph.nodes:
            known = nodes.setdefault(node.name, node)
            if known.kind != node.kind:
                raise ConfigError(
                    f"graphs that are drawn over each other must agree on their nodes, got {node.name!r} as "
                    f"{known.kind} and as {node.kind}: report them one by one"
                )
            if node.kind == "answer":
                effects.setdefault(node.name, Effect(node.name, 0.0))
        for edge in graph.edges:
            none = dataclasses.replace(edge, contribution=0.0)
            edges.setdefault((edge.source, edge.target), none)
    return dataclasses.replace(
        base, nodes=tuple(nodes.values()), edges=tuple(edges.values()), effects=tuple(effects.values())
    )


def agree(first: CircuitGraph, second: CircuitGraph) -> bool:
    """Whether two graphs can be drawn over each other: most nodes are the same, none is of two kinds."""
    kinds, others = ({node.name: node.kind for node in graph.nodes} for graph in (first, second))
    shared = kinds.keys() & others.keys()
    same = all(kinds[name] == others[name] for name in shared)
    return same and 2 * len(shared) >= max(len(kinds), len(others))


def grouped(graphs: Mapping[str, CircuitGraph]) -> list[dict[str, CircuitGraph]]:
    """Graphs in groups that can be drawn over each other, in their order."""
    groups: list[dict[str, CircuitGraph]] = []
    for name, graph in graphs.items():
        home = next((g for g in groups if all(agree(other, graph) for other in g.values())), None)
        if home is None:
            groups.append({name: graph})
        else:
            home[name] = graph
    return groups
