"""Characters that pictures and texts can hold: control characters of tokens are written out."""

from __future__ import annotations

import re
from dataclasses import replace

from ocr_interp.graphs.graph import CircuitGraph

# What XML 1.0 forbids, and DEL with the second block of controls, which no font has either.
_HIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def visible(text: str) -> str:
    r"""The text with each control character written out, as in Python: a bell is the four letters \x07."""
    return _HIDDEN.sub(lambda found: ascii(found.group())[1:-1], text)


def visible_graph(graph: CircuitGraph) -> CircuitGraph:
    """The graph with visible title and labels; names of nodes stay."""
    nodes = tuple(replace(node, label=visible(node.label)) for node in graph.nodes)
    return replace(graph, title=visible(graph.title), nodes=nodes)
