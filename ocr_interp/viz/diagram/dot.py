"""Circuit graphs as DOT text, for Graphviz."""

from __future__ import annotations

from ocr_interp.graphs.graph import CircuitGraph
from ocr_interp.viz.characters import visible

_SHAPE = {"token": "box", "source": "box", "attention": "ellipse", "ov_block": "box3d", "answer": "box"}


MISSING_BELOW = 0.1
"""An untold part of the OV circuit below this share of the largest part counts as missing."""


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
    """The graph in the DOT language: columns as ranks, contributions in logits on the edges."""
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
        label = _quoted(f"{node.label}\n{graph.through(node.name):+.3g}")
        lines.append(f"  {number[node.name]} [label={label}, shape={_SHAPE[node.kind]}];")
    for kind in dict.fromkeys(node.kind for node in graph.nodes):
        same = "; ".join(number[node.name] for node in graph.nodes if node.kind == kind)
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


def _quoted(text: str) -> str:
    escaped = visible(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
