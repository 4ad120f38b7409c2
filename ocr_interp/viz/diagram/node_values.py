"""The numbers that stand in the nodes of a diagram."""

from __future__ import annotations

import math

from ocr_interp.graphs.graph import CircuitGraph
from ocr_interp.viz.diagram.dot import missing_blocks, untold_nodes
from ocr_interp.viz.diagram.edges import largest_edge


def node_values(graph: CircuitGraph) -> dict[str, str]:
    """The number shown in every node; negligible untold parts are labelled as missing."""
    largest, missing, without_answer = largest_edge([graph]), missing_blocks(graph), unanswered(graph)
    # Values just below a power of ten are treated as it, so that equal graphs show equal decimals.
    decimals = max(1, 2 - math.floor(math.log10(1.001 * largest)))
    # Numbers of any size stay a few letters long.
    form = f"+.{decimals}f" if decimals <= 12 and largest < 1e9 else "+.3e"
    shown = {}
    for node in graph.nodes:
        number = f"{graph.through(node.name):{form}}"
        if not graph.effects:  # scores, which do not sum
            shown[node.name] = number.lstrip("+") if node.kind == "reads" else ""
            continue
        if float(number) == 0:
            number = _cancelled(graph, node.name, form) or number.lstrip("+-")
        if node.name in without_answer and float(graph.through(node.name)):
            # What told parts add to a whole set of answers would pass for an answer that the model gives.
            number = f"missing; told {number}"
            shown[node.name] = number.replace("-", "−")
            continue
        shown[node.name] = number.replace("-", "−") + (" missing" if node.name in missing else "")
    return shown


def unanswered(graph: CircuitGraph) -> set[str]:
    """Answers that were never trained and get nothing from the untold parts of the OV circuit."""
    missing, untold = missing_blocks(graph), untold_nodes(graph)
    found = set()
    for node in graph.nodes:
        if node.kind == "answer" and node.name in untold:
            sources = {e.source for e in graph.edges if e.target == node.name and e.kind == "untold"}
            if sources <= missing:
                found.add(node.name)
    return found


def _cancelled(graph: CircuitGraph, name: str, form: str) -> str | None:
    """The positive and the negative part of what a node passes on, if they cancel; None if both are zero."""
    passed = [edge for edge in graph.edges if edge.source == name]
    if graph.node(name).kind == "token" and len(passed) == 1:  # what its attention passes on
        passed = [edge for edge in graph.edges if edge.source == passed[0].target]
    parts = [edge.contribution for edge in passed]
    positive, negative = sum(c for c in parts if c > 0), sum(c for c in parts if c < 0)
    shown = f"{positive:{form}}"
    return f"{shown} {negative:{form}}" if float(shown) else None
