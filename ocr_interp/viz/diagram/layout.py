"""Layout of a diagram in points: columns from left to right, boxes as large as their text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from ocr_interp.errors import unknown_name
from ocr_interp.graphs.graph import CircuitGraph, Node

WIDTH = 6.6 * 72
"""Of a diagram, in points: the text width of a page, at which it is read."""

FONT_SIZE = 8.0
TITLE_SIZE = FONT_SIZE + 2
_LINE = 1.2 * FONT_SIZE
_PAD_X, _PAD_Y = 7.0, 4.0
_GAP_Y, _GAP_X = 9.0, 48.0
_GAP_ALIGNED = 30.0
_LEAST_GAP, _LEAST_GAP_ALIGNED = 30.0, 16.0
"""Of columns that would be wider than WIDTH at wider gaps."""
_LONGEST_LINES = (32, 24, 20, 16, 12)
"""Largest numbers of characters per line of a label: the first with which a diagram is no wider than WIDTH,
else the first of all. Longer labels are wrapped, words cut at the first alone."""
_LEAST_TITLE = 0.7
"""Of its size, to which a title shrinks that is wider than WIDTH."""
_MARGIN, _HEAD, _LEGEND_ROW = 16.0, 46.0, 14.0
_LEAST_TALL = 120.0
"""Least height of the columns of heads and MLPs."""
_HEADINGS = {
    "token": "tokens",
    "attention": "attention",
    "ov_block": "OV circuit",
    "answer": "answers",
    "input": "input",
    "reads": "reads",
    "head": "heads",
    "mlp": "MLPs",
}


@dataclass(frozen=True)
class LegendEntry:
    """A piece of line and its meaning."""

    text: str
    color: str
    dashed: bool = False


@dataclass(frozen=True)
class PlacedNode:
    """A node with its box.

    Attributes:
        name, kind: of the node.
        label: of the node, long lines wrapped.
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
        values: texts below the nodes' labels.
        width, height: of the diagram, in points.
        headings: x and text above every column.
        title_y, heading_y, note_y: heights of the title, the headings and the note.
        note: the graph's statement and source, wrapped.
        legend: height and entries of every row.
        font_size: of labels, in points.
        lines: factor of the width of all lines.
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
    legend: tuple[tuple[float, tuple[LegendEntry, ...]], ...]
    font_size: float = FONT_SIZE
    lines: float = 1.0

    def of(self, name: str) -> PlacedNode:
        """A placed node by name."""
        if name not in self._by_name:
            raise unknown_name("node of the diagram", name, list(self._by_name))
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, PlacedNode]:
        return {node.name: node for node in self.nodes}


@lru_cache(maxsize=4096)
def text_width(text: str, size: float) -> float:
    """Width of one line of text in points, from the outlines of the font that draws it."""
    if not text.strip():
        return 0.0
    # A dollar sign would start a formula; tokens of language models may contain one.
    return float(
        TextPath((0, 0), text.replace("$", r"\$"), prop=FontProperties(size=size)).get_extents().width
    )


def lay_out(
    graph: CircuitGraph,
    values: Mapping[str, str],
    legend: Sequence[LegendEntry] = (),
    one_scale: bool = False,
) -> Layout:
    """Places every node: columns by kind, equal gaps, each column centred; deterministic.

    Wider than WIDTH only where that needs lines of labels that are too short, or gaps too narrow for edges.

    Args:
        graph: any circuit graph; nodes keep their order from top to bottom.
        values: a second text for each node.
        legend: entries of the legend below the diagram.
        one_scale: whether line widths are on one scale with those of other graphs beside it.
    """
    places = sorted({n.place for n in graph.nodes})
    columns = [[n for n in graph.nodes if n.place == place] for place in places]
    labels, sizes, widths, heights, gaps = _fitting_columns(graph, values, columns)
    inner = sum(widths) + sum(gaps)
    title = text_width(graph.title, TITLE_SIZE) * 1.12  # 1.12: bold
    width = max(inner, min(title, max(WIDTH - 2 * _MARGIN, _LEAST_TITLE * title))) + 2 * _MARGIN
    note = wrapped(note_of(graph, one_scale), width - 2 * _MARGIN)
    rows = legend_rows(legend, width - 2 * _MARGIN)
    note_height = (note.count("\n") + 1) * 1.4 * (FONT_SIZE - 2) + 14
    foot = note_height + _LEGEND_ROW * len(rows)
    # Edges over boxes in a row need room to bend around them.
    tallest = max(*heights, _LEAST_TALL if any(n.kind in ("head", "mlp") for n in graph.nodes) else 0.0)
    height = tallest + _HEAD + foot + _MARGIN
    placed: dict[str, PlacedNode] = {}
    headings = []
    x = (width - inner) / 2
    for column, column_width, column_height, gap in zip(columns, widths, heights, [*gaps, 0.0], strict=True):
        y = foot + _MARGIN / 2 + (tallest + column_height) / 2
        for node in column:
            box_height = sizes[node.name][1]
            placed[node.name] = PlacedNode(
                node.name,
                node.kind,
                labels[node.name],
                x + column_width / 2,
                y - box_height / 2,
                width=column_width,
                height=box_height,
            )
            y -= box_height + _GAP_Y
        headings.append((x + column_width / 2, _heading(column)))
        x += column_width + gap
    return Layout(
        nodes=tuple(placed[node.name] for node in graph.nodes),
        values=values,
        width=width,
        height=height,
        headings=tuple(headings),
        title_y=height - 14,
        heading_y=height - 32,
        note_y=note_height / 2,
        note=note,
        legend=tuple((foot - (k + 0.5) * _LEGEND_ROW, row) for k, row in enumerate(rows)),
    )


class _Columns(NamedTuple):
    """Labels and sizes of boxes by node, and widths, heights and gaps of columns, in points."""

    labels: dict[str, str]
    sizes: dict[str, tuple[float, float]]
    widths: list[float]
    heights: list[float]
    gaps: list[float]

    @property
    def width(self) -> float:
        """Of all columns with their gaps."""
        return sum(self.widths) + sum(self.gaps)


def _fitting_columns(graph: CircuitGraph, values: Mapping[str, str], columns: list[list[Node]]) -> _Columns:
    """The columns with the longest lines of labels with which they fit, else those with wide gaps."""
    room = WIDTH - 2 * _MARGIN
    tried = [_sized_columns(graph, values, columns, longest, room) for longest in _LONGEST_LINES]
    fitting = [each for each in tried if each.width <= room + 1e-6]
    return fitting[0] if fitting else _sized_columns(graph, values, columns, _LONGEST_LINES[0], None)


def _sized_columns(
    graph: CircuitGraph,
    values: Mapping[str, str],
    columns: list[list[Node]],
    longest: int,
    room: float | None,
) -> _Columns:
    """The columns with lines of at most so many characters; gaps shrink to what fits into the room."""
    labels = {n.name: wrapped_label(n.label, longest) for n in graph.nodes}
    sizes = {n.name: _box(n, labels[n.name], values[n.name]) for n in graph.nodes}
    aligned = _share_rows(graph, columns, sizes)
    widths = [max(sizes[n.name][0] for n in column) for column in columns]
    heights = [sum(sizes[n.name][1] + _GAP_Y for n in column) - _GAP_Y for column in columns]
    # Tall columns need wide gaps for their curves; if the columns share rows, small gaps are enough.
    gaps = [_GAP_X + min(0.12 * max(heights), 160.0)] * (len(columns) - 1)
    gaps = [_GAP_ALIGNED, *gaps[1:]] if aligned else gaps
    least = [_LEAST_GAP_ALIGNED if aligned and k == 0 else _LEAST_GAP for k in range(len(gaps))]
    over = sum(widths) + sum(gaps) - room if room is not None else 0.0
    spare = sum(gap - low for gap, low in zip(gaps, least, strict=True))
    if over > 0 and spare > 0:
        share = min(1.0, over / spare)
        gaps = [gap - share * (gap - low) for gap, low in zip(gaps, least, strict=True)]
    return _Columns(labels, sizes, widths, heights, gaps)


def _share_rows(
    graph: CircuitGraph, columns: list[list[Node]], sizes: dict[str, tuple[float, float]]
) -> bool:
    """Aligns every token with the node that attends to it, if they are one-to-one and in the same order."""
    if len(columns) < 2 or columns[1][0].kind != "attention":
        return False
    wanted = [(token.name, seen.name) for token, seen in zip(columns[0], columns[1], strict=False)]
    first = {node.name for node in columns[0]}
    edges = [(edge.source, edge.target) for edge in graph.edges if edge.source in first]
    if sorted(edges) != sorted(wanted) or len(columns[0]) != len(columns[1]):
        return False
    for token, seen in wanted:
        height = max(sizes[token][1], sizes[seen][1])
        sizes[token], sizes[seen] = (sizes[token][0], height), (sizes[seen][0], height)
    return True


def legend_rows(legend: Sequence[LegendEntry], width: float) -> list[tuple[LegendEntry, ...]]:
    """The entries in as few rows as possible."""
    rows: list[list[LegendEntry]] = []
    used = 0.0
    for entry in legend:
        length = text_width(entry.text, FONT_SIZE - 1) + 43
        if not rows or used + length > width:
            rows.append([])
            used = 0.0
        rows[-1].append(entry)
        used += length
    return [tuple(row) for row in rows]


def wrapped_label(label: str, longest: int = _LONGEST_LINES[0]) -> str:
    """A label in lines of so many characters; longer words are cut at the longest line of all alone."""
    cut = [part for line in label.split("\n") for part in textwrap.wrap(line, _LONGEST_LINES[0]) or [""]]
    lines = [textwrap.wrap(line, longest, break_long_words=False) or [""] for line in cut]
    return "\n".join(part for parts in lines for part in parts)


def note_of(graph: CircuitGraph, one_scale: bool) -> str:
    """What line widths mean, and the graph's statement and source."""
    scale = ", one scale for all" if one_scale else ""
    unit = "logits; line" if graph.effects else "line"
    lines = [f"{unit} width: size{scale}. {graph.statement}", graph.source]
    if graph.pruned_below:
        lines.append(f"edges below {100 * graph.pruned_below:g}% of the effect are left out")
    return "\n".join(lines)


def _heading(column: list[Node]) -> str:
    return _HEADINGS[next((node.kind for node in column if node.kind != "source"), "ov_block")]


def _box(node: Node, label: str, value: str) -> tuple[float, float]:
    """Width and height of a node's box; at least as wide as its heading, so that headings never overlap."""
    lines = [*label.split("\n"), value]
    heading = text_width(_HEADINGS.get(node.kind, ""), FONT_SIZE - 1)
    width = max(*(text_width(line, FONT_SIZE) for line in lines), heading)
    return width + 2 * _PAD_X, len(lines) * _LINE + 2 * _PAD_Y


def wrapped(text: str, width: float, size: float = FONT_SIZE - 2) -> str:
    """A text in lines of a width, in points."""
    per_line = max(20, int(width / (text_width("average text in lower case", size) / 26)))
    return "\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, per_line))
