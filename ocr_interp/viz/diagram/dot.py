"""Circuit graphs as DOT text, for Graphviz."""

from __future__ import annotations

from dataclasses import replace

from ocr_interp.comparison.graphs import GraphChange
from ocr_interp.errors import ConfigError
from ocr_interp.graphs.graph import CircuitGraph
from ocr_interp.storage.plain import printable

_SHAPE = {"token": "box", "source": "box", "attention": "ellipse", "ov_block": "box3d", "answer": "box"} | {
    "input": "box",
    "reads": "plain",
    "head": "ellipse",
    "mlp": "box3d",
}


MISSING_BELOW = 0.1
"""An untold part of the OV circuit below this share of the largest part counts as missing."""


MOST_NODES, MOST_EDGES = 1_000, 5_000
"""Largest graph that is written as DOT."""

LONGEST_LABEL = 400
"""Most letters of a text in a diagram; the rest is left out."""


def drawable(graph: CircuitGraph, most_nodes: int = MOST_NODES) -> CircuitGraph:
    """The graph with texts that can be drawn: what is no character as escapes, long texts cut.

    Raises:
        ConfigError: more nodes or edges than a diagram may have.
    """
    for what, items, most in (("nodes", graph.nodes, most_nodes), ("edges", graph.edges, MOST_EDGES)):
        if len(items) > most:
            raise ConfigError(
                f"a diagram may have at most {most:,} {what}, got {len(items):,}: leave small edges out with "
                "graph.prune(0.01), or group tokens"
            )
    nodes = tuple(replace(node, label=_cut(node.label)) for node in graph.nodes)
    texts = {name: _cut(getattr(graph, name)) for name in ("title", "statement", "source")}
    return replace(graph, nodes=nodes, **texts)


def _cut(text: str) -> str:
    whole = printable(text)
    return whole if len(whole) <= LONGEST_LABEL else f"{whole[:LONGEST_LABEL]}…"


def untold_nodes(graph: CircuitGraph) -> set[str]:
    """OV blocks with only untold incoming edges, and answers with at least one."""
    into: dict[str, list[bool]] = {}
    for edge in graph.edges:
        into.setdefault(edge.target, []).append(edge.kind == "untold")
    rule = {"ov_block": all, "answer": any}
    return {n.name for n in graph.nodes if n.kind in rule and n.name in into and rule[n.kind](into[n.name])}


def missing_blocks(graph: CircuitGraph) -> set[str]:
    """Untold parts of the OV circuit whose contribution is negligible, alone and summed over their answer.

    They and their edges are drawn dashed.
    """
    blocks = [node.name for node in graph.nodes if node.kind == "ov_block"]
    untold = untold_nodes(graph)
    largest = max((abs(graph.through(name)) for name in blocks), default=0.0)
    into_answer: dict[str, float] = {}
    for edge in graph.edges:
        if edge.source in untold:
            into_answer[edge.target] = into_answer.get(edge.target, 0.0) + edge.contribution
    together = {
        name: max(abs(into_answer[edge.target]) for edge in graph.edges if edge.source == name)
        for name in blocks
        if name in untold
    }
    return {
        name
        for name, whole in together.items()
        if max(abs(graph.through(name)), whole) < MISSING_BELOW * largest
    }


def to_dot(graph: CircuitGraph) -> str:
    """The graph in the DOT language: columns as ranks, contributions in logits on the edges.

    Raises:
        ConfigError: more nodes or edges than a diagram may have.
    """
    graph = drawable(graph)
    largest = max((abs(edge.contribution) for edge in graph.edges), default=0.0) or 1.0
    missing = missing_blocks(graph)
    number = {node.name: f"n{k}" for k, node in enumerate(graph.nodes)}
    lines = [
        "digraph circuit {",
        f"  label={_quoted(graph.title)};",
        f"  comment={_quoted(f'{graph.statement}; {graph.source}')};",
        "  rankdir=LR;",
        '  node [fontname="sans-serif", fontsize=10, style="rounded"];',
        '  edge [fontname="sans-serif", fontsize=8];',
    ]
    for node in graph.nodes:
        value = f"\n{graph.through(node.name):+.3g}" if graph.effects else ""
        label = _quoted(f"{node.label}{value}")
        lines.append(f"  {number[node.name]} [label={label}, shape={_SHAPE[node.kind]}];")
    for rank in dict.fromkeys((node.kind, node.column) for node in graph.nodes):
        same = "; ".join(number[node.name] for node in graph.nodes if (node.kind, node.column) == rank)
        lines.append(f"  {{ rank=same; {same}; }}")
    for edge in graph.edges:
        width = max(0.4, 6 * abs(edge.contribution) / largest)
        color = "#cc3311" if edge.kind == "untold" else "#0173b2" if edge.contribution >= 0 else "#de8f05"
        style = "dashed" if edge.source in missing or edge.target in missing else "solid"
        label = _quoted(f"{edge.contribution:+.3g}")
        lines.append(
            f"  {number[edge.source]} -> {number[edge.target]} [label={label}, "
            f'penwidth={width:.2f}, color="{color}", style={style}];'
        )
    return "\n".join([*lines, "}"]) + "\n"


def change_to_dot(change: GraphChange) -> str:
    """Two graphs in one in the DOT language: every edge with its contribution before and after.

    Edges that changed keep their colour, of the sign after (of one that is gone, before), and are as wide as
    their change; all others are grey.

    Raises:
        ConfigError: more nodes or edges than a diagram may have.
    """
    before, after = drawable(change.before), drawable(change.after)
    pairs = list(zip(before.edges, after.edges, strict=True))
    largest = max((abs(new.contribution - old.contribution) for old, new in pairs), default=0.0) or 1.0
    number = {node.name: f"n{k}" for k, node in enumerate(after.nodes)}
    lines = [
        "digraph change {",
        f"  label={_quoted(f'{before.title} -> {after.title}')};",
        f"  comment={_quoted(f'{after.statement}; {before.source} -> {after.source}')};",
        "  rankdir=LR;",
        '  node [fontname="sans-serif", fontsize=10, style="rounded"];',
        '  edge [fontname="sans-serif", fontsize=8];',
    ]
    for node in after.nodes:
        lines.append(f"  {number[node.name]} [label={_quoted(node.label)}, shape={_SHAPE[node.kind]}];")
    for old, new in pairs:
        moved = abs(new.contribution - old.contribution)
        is_marked = (old.source, old.target) in change.marked
        told = new.contribution or old.contribution
        color = ("#0173b2" if told >= 0 else "#de8f05") if is_marked else "#cccccc"
        label = _quoted(f"{old.contribution:+.3g} -> {new.contribution:+.3g}")
        lines.append(
            f"  {number[old.source]} -> {number[old.target]} [label={label}, "
            f'penwidth={max(0.4, 6 * moved / largest):.2f}, color="{color}"];'
        )
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
