"""Layout of whole models: layers from left to right, heads above and MLPs below, as wide as a text column."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from ocr_interp.graphs.graph import CircuitGraph, Node
from ocr_interp.graphs.simplify import UNITS
from ocr_interp.viz.diagram.layout import (
    TITLE_SIZE,
    WIDTH,
    Layout,
    LegendEntry,
    PlacedNode,
    legend_rows,
    note_of,
    text_width,
    wrapped,
)

MOST_COLUMNS = 8
"""Graphs of whole models with more columns are laid out by layers."""

FONT, LINES = 6.0, 0.42
_BOX, _GAP, _PAD = 11.0, 5.0, 3.0
_MARGIN, _BAND, _HEAD, _ROW = 10.0, 150.0, 34.0, 13.0
_MLP_SHARE = 0.5
"""Of the width of a column of heads, what a column of MLPs takes: these stand in a band of their own."""
_SWEEPS, _APART = 12, 3.0
_SHIFT = 0.22
_HEAD_LABEL = re.compile(r"L(\d+)(?:H(\d+)| .*)?$")


def is_whole(graph: CircuitGraph) -> bool:
    """Whether a graph is of a whole model: heads and MLPs."""
    return any(node.kind in UNITS for node in graph.nodes)


def is_layered(graph: CircuitGraph) -> bool:
    """Whether a graph is of a whole model with many columns."""
    return is_whole(graph) and len({node.place for node in graph.nodes}) > MOST_COLUMNS


def lay_out_layers(
    graph: CircuitGraph,
    legend: Sequence[LegendEntry] = (),
    one_scale: bool = False,
    beside: Sequence[CircuitGraph] = (),
) -> Layout:
    """Places every node of a whole model; deterministic.

    Heads stand in the column of their layer, in the order that crosses few edges, MLPs in a row below. Boxes
    hold the number of the head; the layer stands above its column. Wider than WIDTH only where boxes would
    overlap.

    Args:
        graph: the graph.
        legend: entries of the legend below the diagram.
        one_scale: whether line widths are on one scale with those of other graphs.
        beside: graphs of the same nodes that are to be laid out alike.
    """
    columns = [[n for n in graph.nodes if n.place == k] for k in sorted({n.place for n in graph.nodes})]
    labels = {n.name: _label(n) for n in graph.nodes}
    widths = {n.name: text_width(labels[n.name], FONT) + 2 * _PAD for n in graph.nodes}
    upper = [[n for n in column if n.kind != "mlp"] for column in columns]
    most = max(len(column) for column in upper)
    band = max(_BAND, most * (_BOX + _GAP))
    x, width = _across(columns, widths)
    heights = _down([graph, *beside], upper, band)
    note = wrapped(f"H: heads, M: MLPs. {note_of(graph, one_scale)}", width - 2 * _MARGIN, FONT)
    rows = legend_rows(legend, width - 2 * _MARGIN)
    note_height = (note.count("\n") + 1) * 1.4 * FONT + 10
    foot = note_height + _ROW * len(rows)
    has_mlps = any(n.kind == "mlp" for n in graph.nodes)
    below = _BOX + 22.0 if has_mlps else 0.0
    placed, headings = [], []
    top = foot + below + band + 6
    for column, middle in zip(columns, x, strict=True):
        for node in column:
            y = foot + 12 if node.kind == "mlp" else foot + below + heights[node.name]
            placed.append(
                PlacedNode(node.name, node.kind, labels[node.name], middle, y, widths[node.name], _BOX)
            )
        heading = _heading(column)
        if heading:
            headings.append((middle, heading))
    order = {node.name: k for k, node in enumerate(graph.nodes)}
    return Layout(
        nodes=tuple(sorted(placed, key=lambda node: order[node.name])),
        values={node.name: "" for node in graph.nodes},
        width=width,
        height=top + _HEAD + 4,
        headings=tuple(headings),
        title_y=top + _HEAD - TITLE_SIZE + 2,
        heading_y=top + 6,
        note_y=note_height / 2,
        note=note,
        legend=tuple((foot - (k + 0.5) * _ROW, row) for k, row in enumerate(rows)),
        font_size=FONT,
        lines=LINES,
    )


def _across(columns: list[list[Node]], widths: Mapping[str, float]) -> tuple[list[float], float]:
    """The middle of every column, and the width of all; no boxes of a band overlap."""
    shares = [_MLP_SHARE if all(n.kind == "mlp" for n in column) else 1.0 for column in columns]
    ends = [max(widths[n.name] for n in column) / 2 for column in (columns[0], columns[-1])]
    room = WIDTH - 2 * _MARGIN - sum(ends)
    steps = [(a + b) / 2 for a, b in pairwise(shares)]
    unit = room / (sum(steps) or 1.0)
    found: list[float] = []
    taken: dict[bool, float] = {}  # whether it is the band of MLPs -> where its last box ends
    for column, step in zip(columns, [0.0, *steps], strict=True):
        x = found[-1] + step * unit if found else _MARGIN + ends[0]
        halves = {n.kind == "mlp": 0.0 for n in column}
        for node in column:
            band = node.kind == "mlp"
            halves[band] = max(halves[band], widths[node.name] / 2)
        for band, half in halves.items():
            x = max(x, taken.get(band, 0.0) + half + (_APART if band in taken else 0.0))
        taken |= {band: x + half for band, half in halves.items()}
        found.append(x)
    return found, max(WIDTH, found[-1] + ends[-1] + _MARGIN)


def _down(graphs: Sequence[CircuitGraph], columns: list[list[Node]], band: float) -> dict[str, float]:
    """Heights of all nodes but MLPs: evenly spread, ordered by where their neighbours stand."""
    near: dict[str, list[tuple[str, float]]] = {}
    edges = [edge for graph in graphs for edge in graph.edges]
    for edge in sorted(edges, key=lambda edge: (edge.source, edge.target, edge.contribution)):
        near.setdefault(edge.source, []).append((edge.target, abs(edge.contribution)))
        near.setdefault(edge.target, []).append((edge.source, abs(edge.contribution)))
    ordered = [list(column) for column in columns]
    heights = _spread(ordered, band)
    for sweep in range(_SWEEPS):
        for column in ordered if sweep % 2 == 0 else ordered[::-1]:
            wanted = {node.name: _pull(node.name, near, heights) for node in column}
            column.sort(key=lambda node: -wanted[node.name])
            heights |= _spread([column], band)
    return heights


def _spread(columns: list[list[Node]], band: float) -> dict[str, float]:
    """Evenly, every other column a little higher, so that long edges do not hide behind boxes in a row."""
    found = {}
    for column in columns:
        units = all(node.kind in UNITS for node in column)
        for k, node in enumerate(column):
            shift = (_SHIFT if node.place % 2 else -_SHIFT) if units else 0.0
            found[node.name] = band * (1 - (k + 0.5 + shift) / len(column))
    return found


def _pull(name: str, near: Mapping[str, list[tuple[str, float]]], heights: Mapping[str, float]) -> float:
    """Mean height of the neighbours, weighted by edges; its own without any. MLPs pull down."""
    parts = [(heights.get(other, 0.0), weight) for other, weight in near.get(name, []) if weight]
    whole = sum(weight for _, weight in parts)
    return sum(y * weight for y, weight in parts) / whole if whole else heights[name]


def _label(node: Node) -> str:
    """The number of a head, since its layer stands above; of a group how many it is."""
    if node.members:
        return f"+{len(node.members)}"
    if node.kind == "mlp":
        return node.label.replace("MLP ", "M")
    found = _HEAD_LABEL.match(node.label) if node.kind == "head" else None
    return f"H{found[2]}" if found and found[2] is not None else node.label


def _heading(column: Sequence[Node]) -> str:
    """The layer of a column of heads."""
    for node in column:
        if node.kind == "head":
            found = _HEAD_LABEL.match(node.members[0] if node.members else node.label)
            return f"L{found[1]}" if found else ""
    return ""
