"""Graphs of whole models made readable: inputs of heads folded in, small heads of a layer as one node."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from ocr_interp.checks import check_count
from ocr_interp.graphs.graph import CircuitGraph, Edge, Effect, Node

MOST_NODES, MOST_EDGES = 60, 80
"""Nodes above which the smaller ones of a column are shown as one, and edges above which small ones are left
out."""

UNITS = ("head", "mlp")


def simplify(
    graph: CircuitGraph,
    most_nodes: int = MOST_NODES,
    most_edges: int = MOST_EDGES,
    *,
    beside: CircuitGraph | None = None,
) -> CircuitGraph:
    """A graph of a whole model that can be read: few nodes, and of the edges the largest.

    What queries, keys and values of a head read is summed into one edge to the head. Above `most_nodes` heads
    and MLPs the smallest of a column, by the sum of |edge| at them, become one node of that column; edges
    between the same two nodes then are summed, with their signs. What the edges left out carried into an
    answer goes to `Effect.hidden`. A graph within both bounds stays as it is, but for the inputs of heads.

    Args:
        graph: of kind "head" and "mlp", such as `circuit_as_graph` or `composition_graph` makes.
        most_nodes: heads and MLPs that are shown, groups included.
        most_edges: edges that are shown: the largest into and out of every node, then those with the largest
            |contribution|.
        beside: a graph of the same nodes, whose edges count too, so that both are simplified alike.
    """
    beside_it = [] if beside is None else [beside]
    return simplify_alike([graph, *beside_it], most_nodes, most_edges)[0]


def simplify_alike(
    graphs: Sequence[CircuitGraph], most_nodes: int = MOST_NODES, most_edges: int = MOST_EDGES
) -> list[CircuitGraph]:
    """Graphs of the same nodes, each as `simplify` makes it, with the same groups and the same edges.

    Args:
        graphs: of the same nodes; an edge's size is the largest of all, a node's the sum.
        most_nodes, most_edges: as for `simplify`.
    """
    check_count("most_nodes", most_nodes, 2)
    check_count("most_edges", most_edges, 1)
    folded = [fold_reads(each) for each in graphs]
    groups = _groups(folded, most_nodes)
    found = [_merged(each, groups) for each in folded]
    kept = _largest(found, most_edges)
    return [_only(each, kept) for each in found]


def fold_reads(graph: CircuitGraph) -> CircuitGraph:
    """The graph without nodes of kind "reads": their edges lead to the head, in equal parts to several.

    What a head reads that writes nowhere in the graph stays as it is.
    """
    kinds = {node.name: node.kind for node in graph.nodes}
    heads: dict[str, list[str]] = {}
    for edge in graph.edges:
        if kinds[edge.source] == "reads":
            heads.setdefault(edge.source, []).append(edge.target)
    reads = set(heads)
    if not reads:
        return graph
    summed: dict[tuple[str, str, str], float] = {}
    for edge in graph.edges:
        if edge.source in reads:
            continue
        targets = heads.get(edge.target, []) if edge.target in reads else [edge.target]
        for target in targets:
            key = edge.source, target, edge.kind
            summed[key] = summed.get(key, 0.0) + edge.contribution / len(targets)
    edges = tuple(Edge(source, target, value, kind) for (source, target, kind), value in summed.items())
    return replace(graph, nodes=tuple(n for n in graph.nodes if n.name not in reads), edges=edges)


def _groups(graphs: list[CircuitGraph], most: int) -> dict[str, Node]:
    """Name of a node that is merged -> the node that stands for it."""
    sizes: dict[str, float] = {}
    for graph in graphs:
        for edge in graph.edges:
            for end in (edge.source, edge.target):
                sizes[end] = sizes.get(end, 0.0) + abs(edge.contribution)
    nodes = {node.name: node for graph in graphs for node in graph.nodes if node.kind in UNITS}
    if len(nodes) <= most:
        return {}
    order = sorted(nodes.values(), key=lambda node: -sizes.get(node.name, 0.0))
    rest: dict[tuple[int, str], list[Node]] = {}
    for single in range(most - 1, -1, -1):
        rest = {}
        for node in order[single:]:
            rest.setdefault((node.place, node.kind), []).append(node)
        # A group of one is that node itself.
        if single + len(rest) <= most or single == 0:
            break
    found = {}
    for (place, kind), members in rest.items():
        if len(members) < 2:
            continue
        labels = tuple(sorted(node.label for node in members))
        word = "heads" if kind == "head" else "MLPs"
        group = Node(
            f"{len(members)} {word} of column {place}", kind, f"{len(members)} {word}", labels, place
        )
        found |= {node.name: group for node in members}
    return found


def _merged(graph: CircuitGraph, groups: dict[str, Node]) -> CircuitGraph:
    if not groups:
        return graph
    summed: dict[tuple[str, str, str], float] = {}
    for edge in graph.edges:
        source, target = (groups[end].name if end in groups else end for end in (edge.source, edge.target))
        key = source, target, edge.kind
        summed[key] = summed.get(key, 0.0) + edge.contribution
    nodes = {groups.get(node.name, node).name: groups.get(node.name, node) for node in graph.nodes}
    said = "; +n: n smaller heads (MLPs) of a layer, with the sum of their edges"
    return replace(
        graph,
        nodes=tuple(nodes.values()),
        edges=tuple(Edge(source, target, value, kind) for (source, target, kind), value in summed.items()),
        statement=graph.statement + said,
    )


def _largest(graphs: list[CircuitGraph], most: int) -> set[tuple[str, str]]:
    """Ends of the edges that are shown.

    First the largest into every node, then the largest out of every node, so that none stands unfed or
    unread, then the largest of all graphs.
    """
    sizes: dict[tuple[str, str], float] = {}
    for graph in graphs:
        for edge in graph.edges:
            key = edge.source, edge.target
            sizes[key] = max(sizes.get(key, 0.0), abs(edge.contribution))
    order = sorted(sizes, key=lambda key: -sizes[key])
    first: dict[int, dict[str, tuple[str, str]]] = {1: {}, 0: {}}
    for ends in order:
        for side, found in first.items():
            found.setdefault(ends[side], ends)
    wanted = [sorted(found.values(), key=lambda key: -sizes[key]) for found in first.values()]
    return set(list(dict.fromkeys([*wanted[0], *wanted[1], *order]))[:most])


def _only(graph: CircuitGraph, kept: Collection[tuple[str, str]]) -> CircuitGraph:
    """The graph with some of its edges, and the nodes that these connect."""
    edges = tuple(edge for edge in graph.edges if (edge.source, edge.target) in kept)
    effects = []
    for effect in graph.effects:
        left = sum(edge.contribution for edge in edges if edge.target == effect.node)
        effects.append(Effect(effect.node, effect.total, effect.total - left))
    connected = {end for edge in edges for end in (edge.source, edge.target)}
    connected |= {effect.node for effect in effects}
    left_out = len(graph.edges) - len(edges)
    said = (
        f"; {left_out:,} small ones of {len(graph.edges):,} edges between nodes are left out"
        if left_out
        else ""
    )
    return replace(
        graph,
        nodes=tuple(node for node in graph.nodes if node.name in connected),
        edges=edges,
        effects=tuple(effects),
        statement=graph.statement + said,
    )
