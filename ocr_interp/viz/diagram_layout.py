"""Where nodes of a diagram stand: columns from left to right, boxes as large as their text, in points."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from ocr_interp.circuits.graph import CircuitGraph, Node
from ocr_interp.errors import unknown_name

FONT_SIZE = 8.0
_LINE = 1.2 * FONT_SIZE
_PAD_X, _PAD_Y = 7.0, 4.0
_GAP_Y, _GAP_X = 9.0, 62.0
_MARGIN, _HEAD = 16.0, 46.0
_HEADINGS = {
    "token": "tokens",
    "attention": "attention",
    "ov_block": "OV circuit",
    "answer": "answers",
}
_COLUMN = {"token": 0, "attention": 1, "ov_block": 2, "source": 2, "answer": 3}


@dataclass(frozen=True)
class PlacedNode:
    """A node with its box.

    Attributes:
        name, kind, label: of the node.
        x, y: centre of the box, in points from the lower left corner.
        width, height: of the box, in points.
    """

    name: str
    kind: str
    label: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """All boxes of a diagram.

    Attributes:
        nodes: placed nodes, in the order of the graph.
        values: what is written below each node's label.
        width, height: of the diagram, in points.
        headings: x and text above every column.
        title_y, heading_y, note_y: heights of the title, the headings and the note.
        note: the graph's statement and source, wrapped.
    """

    nodes: tuple[PlacedNode, ...]
    values: Mapping[str, str]
    width: float
    height: float
    headings: tuple[tuple[float, str], ...]
    title_y: float
    heading_y: float
    note_y: float
    note: str

    def of(self, name: str) -> PlacedNode:
        """A placed node by name."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise unknown_name("node of the diagram", name, [node.name for node in self.nodes])


@lru_cache(maxsize=4096)
def text_width(text: str, size: float) -> float:
    """Width of one line of text in points, from the outlines of the font that draws it."""
    if not text.strip():
        return 0.0
    # A dollar sign would start a formula; tokens of language models hold them.
    return float(
        TextPath((0, 0), text.replace("$", r"\$"), prop=FontProperties(size=size)).get_extents().width
    )


def lay_out(graph: CircuitGraph, values: Mapping[str, str]) -> Layout:
    """Places every node: columns by kind, equal gaps, each column centred; nothing depends on chance.

    Args:
        graph: any circuit graph; nodes keep their order from top to bottom.
        values: a second text for each node.
    """
    columns = [[n for n in graph.nodes if _COLUMN[n.kind] == k] for k in range(len(_HEADINGS))]
    columns = [column for column in columns if column]
    sizes = {n.name: _box(n, values[n.name]) for n in graph.nodes}
    widths = [max(sizes[n.name][0] for n in column) for column in columns]
    heights = [sum(sizes[n.name][1] + _GAP_Y for n in column) - _GAP_Y for column in columns]
    # Tall columns need more room for their curves to spread.
    gap_x = _GAP_X + 0.12 * max(heights)
    inner = sum(widths) + gap_x * (len(columns) - 1)
    heading = [_heading(column) for column in columns]
    needed = max(text_width(graph.title, FONT_SIZE + 3), inner)
    width = needed + 2 * _MARGIN
    note = _wrapped(_note(graph), width - 2 * _MARGIN)
    foot = (note.count("\n") + 1) * 1.4 * (FONT_SIZE - 2) + 14
    height = max(heights) + _HEAD + foot + _MARGIN
    placed: dict[str, PlacedNode] = {}
    headings = []
    x = _MARGIN + (needed - inner) / 2
    for column, column_width, column_height, text in zip(columns, widths, heights, heading, strict=True):
        y = foot + _MARGIN / 2 + (max(heights) + column_height) / 2
        for node in column:
            box_height = sizes[node.name][1]
            centre = (x + column_width / 2, y - box_height / 2)
            placed[node.name] = PlacedNode(
                node.name, node.kind, node.label, *centre, width=column_width, height=box_height
            )
            y -= box_height + _GAP_Y
        headings.append((x + column_width / 2, text))
        x += column_width + gap_x
    return Layout(
        nodes=tuple(placed[node.name] for node in graph.nodes),
        values=values,
        width=width,
        height=height,
        headings=tuple(headings),
        title_y=height - 14,
        heading_y=height - 32,
        note_y=foot / 2,
        note=note,
    )


def _note(graph: CircuitGraph) -> str:
    lines = [
        graph.statement,
        graph.source,
        "in logits; line width: size; blue: for the answer, orange: against",
    ]
    if any(edge.kind == "untold" for edge in graph.edges):
        lines[-1] += "; red: never trained, dashed where missing (under 10% of the largest OV part)"
    if graph.pruned_below:
        lines.append(f"edges below {100 * graph.pruned_below:g}% of the effect are left out")
    return "\n".join(lines)


def _heading(column: list[Node]) -> str:
    return _HEADINGS[next((node.kind for node in column if node.kind != "source"), "ov_block")]


def _box(node: Node, value: str) -> tuple[float, float]:
    """Width and height of a node's box, its heading's width included, so that headings never collide."""
    lines = [*node.label.split("\n"), value]
    heading = text_width(_HEADINGS.get(node.kind, ""), FONT_SIZE - 1)
    width = max(*(text_width(line, FONT_SIZE) for line in lines), heading)
    return width + 2 * _PAD_X, len(lines) * _LINE + 2 * _PAD_Y


def _wrapped(text: str, width: float) -> str:
    size = FONT_SIZE - 2
    per_line = max(20, int(width / (text_width("average text in lower case", size) / 26)))
    return "\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, per_line))
