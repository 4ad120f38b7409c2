"""Edges of a diagram: width, colour, where they leave and enter their boxes, and the legend."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch, Polygon
from matplotlib.path import Path as Curve

from ocr_interp.graphs.graph import CircuitGraph
from ocr_interp.viz.diagram.dot import MISSING_BELOW, missing_blocks
from ocr_interp.viz.diagram.layout import FONT_SIZE, Layout, LegendEntry, PlacedNode, text_width
from ocr_interp.viz.style import current_style

_WIDEST, _THINNEST, _MISSING_WIDTH = 9.0, 0.6, 1.8
_DASHES = (0, (3.5, 2.0))
_FADED = 0.15
_PORT_GAP = 2.0
_SAMPLE = 22.0
_UNITS = ("head", "mlp")
_BOW, _BOWS, _POINTS, _ROOM = 14.0, 6, 40, 8.0
"""Least bow, how many multiples of it are tried, points of a curve that are held against boxes, and its least
distance from headings and legend."""


@dataclass(frozen=True)
class _Look:
    """How an edge is drawn; `width` in points."""

    width: float
    color: str
    missing: bool
    faded: bool = False
    scale: float = 1.0


def legend_entries(graph: CircuitGraph) -> list[LegendEntry]:
    """Legend entries for the colours and dashes that occur in a graph."""
    if not graph.effects:
        return []  # sizes, for or against nothing
    style = current_style()
    told = [edge.contribution for edge in graph.edges if edge.kind == "told"]
    found = [LegendEntry("for the answer", style.positive)] if any(c >= 0 for c in told) else []
    if any(c < 0 for c in told):
        found.append(LegendEntry("against it", style.negative))
    gone = missing_blocks(graph)
    untold = [edge for edge in graph.edges if edge.kind == "untold"]
    if any(edge.source not in gone and edge.target not in gone for edge in untold):
        found.append(LegendEntry("never trained", style.held_out))
    if gone:
        text = f"never trained and missing (under {100 * MISSING_BELOW:g}% of the largest OV part)"
        found.append(LegendEntry(text, style.held_out, dashed=True))
    return found


def largest_edge(graphs: Sequence[CircuitGraph]) -> float:
    """Size of the largest contribution in graphs that are drawn together: the edge of full width."""
    return max((abs(edge.contribution) for graph in graphs for edge in graph.edges), default=0.0) or 1.0


def draw_edges(
    axes: Axes,
    graph: CircuitGraph,
    layout: Layout,
    largest: float,
    marked: Collection[tuple[str, str]] | None = None,
) -> None:
    """Draws all edges as curves with arrowheads; at each box they are in the order of their other ends.

    Args:
        axes: axes in points.
        graph: the graph.
        layout: of the graph.
        largest: contribution of full width (`largest_edge`).
        marked: (source, target) of edges that keep their colour while all others fade; None fades none.
    """
    looks, ends = _looks(graph, largest, layout.lines, marked), edge_ends(graph, layout, largest)
    # Untold edges are drawn on top; among the others, thin edges above thick ones.
    order = sorted(range(len(looks)), key=lambda k: (graph.edges[k].kind == "untold", -looks[k].width, k))
    bows = edge_bows(graph, layout, ends)
    for rank, k in enumerate(order):
        _draw_edge(axes, *ends[k], looks[k], zorder=1 + 1e-3 * rank, bow=bows[k])


def edge_bows(
    graph: CircuitGraph, layout: Layout, ends: Sequence[tuple[tuple[float, float], tuple[float, float]]]
) -> list[float]:
    """How far up (or down) the middle of every edge is bent so that it passes no box of a third node, in
    points; 0 where it passes none anyway, or where nothing helps.

    Boxes hide what is behind them: an edge from MLP 0 to MLP 2 would look like one to MLP 1.
    """
    if not any(node.kind in _UNITS for node in layout.nodes):
        return [0.0] * len(ends)
    found = []
    low = max([2 * layout.note_y, *(y + _ROOM for y, _ in layout.legend)])
    high = layout.heading_y - _ROOM
    for edge, (start, end) in zip(graph.edges, ends, strict=True):
        middle = (start[1] + end[1]) / 2
        others = [
            (
                node.x - node.width / 2,
                node.x + node.width / 2,
                node.y - node.height / 2,
                node.y + node.height / 2,
            )
            for node in layout.nodes
            if node.name not in (edge.source, edge.target) and start[0] < node.x < end[0]
        ]
        # Longer edges bow further, so that those over one box and over three do not lie on each other.
        least = _BOW + 0.02 * (end[0] - start[0])
        bent = [sign * least * k for k in range(1, _BOWS + 1) for sign in (1, -1)]
        tried = [0.0, *(bow for bow in bent if low <= middle + bow <= high)]
        hits = [_hits(start, end, bow, others) for bow in tried]
        best = min(range(len(tried)), key=lambda k: (hits[k], k))
        found.append(tried[best] if hits[best] < hits[0] else 0.0)
    return found


def _box(node: PlacedNode) -> tuple[float, float, float, float]:
    half_x, half_y = node.width / 2, node.height / 2
    return node.x - half_x, node.x + half_x, node.y - half_y, node.y + half_y


def _hits(
    start: tuple[float, float],
    end: tuple[float, float],
    bow: float,
    boxes: Sequence[tuple[float, float, float, float]],
) -> int:
    """How many boxes a curve passes."""
    if not boxes:
        return 0
    points = [_point(start, end, bow, k / _POINTS) for k in range(1, _POINTS)]
    return sum(
        any(left <= x <= right and low - 1 <= y <= high + 1 for x, y in points)
        for left, right, low, high in boxes
    )


def _halves(
    start: tuple[float, float], end: tuple[float, float], bow: float
) -> list[tuple[tuple[float, float], ...]]:
    """A curve as one cubic, or, if it is bent, as two that meet in its middle; level at all ends."""
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + bow)
    pieces = [(start, end)] if not bow else [(start, middle), (middle, end)]
    found = []
    for a, b in pieces:
        reach = 0.5 * (b[0] - a[0])
        found.append((a, (a[0] + reach, a[1]), (b[0] - reach, b[1]), b))
    return found


def _point(
    start: tuple[float, float], end: tuple[float, float], bow: float, share: float
) -> tuple[float, float]:
    halves = _halves(start, end, bow)
    k = min(int(share * len(halves)), len(halves) - 1)
    t = share * len(halves) - k
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    x, y = (sum(w * p[axis] for w, p in zip(weights, halves[k], strict=True)) for axis in (0, 1))
    return x, y


def edge_ends(
    graph: CircuitGraph, layout: Layout, largest: float | None = None
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """(x, y) where every edge leaves its source and where it enters its target, in points."""
    looks = _looks(graph, largest_edge([graph]) if largest is None else largest, layout.lines)
    leaves = _ports(graph, layout, looks, outgoing=True)
    enters = _ports(graph, layout, looks, outgoing=False)
    found = []
    for k, edge in enumerate(graph.edges):
        source, target = layout.of(edge.source), layout.of(edge.target)
        start = (source.x + source.width / 2, leaves[k])
        found.append((start, (target.x - target.width / 2, enters[k])))
    return found


def _looks(
    graph: CircuitGraph,
    largest: float,
    scale: float = 1.0,
    marked: Collection[tuple[str, str]] | None = None,
) -> list[_Look]:
    gone, style = missing_blocks(graph), current_style()
    looks = []
    for edge in graph.edges:
        missing = edge.source in gone or edge.target in gone
        for_it = style.positive if edge.contribution >= 0 else style.negative
        color = style.held_out if edge.kind == "untold" else for_it
        width = scale * max(_THINNEST, _WIDEST * abs(edge.contribution) / largest)
        faded = marked is not None and (edge.source, edge.target) not in marked
        looks.append(_Look(_MISSING_WIDTH if missing else width, color, missing, faded, scale))
    return looks


def _ports(graph: CircuitGraph, layout: Layout, looks: list[_Look], outgoing: bool) -> Mapping[int, float]:
    """Height at which every edge touches its source (or target)."""
    of_node: dict[str, list[int]] = {}
    for k, edge in enumerate(graph.edges):
        of_node.setdefault(edge.source if outgoing else edge.target, []).append(k)
    found: dict[int, float] = {}
    for name, members in of_node.items():

        def other_end(k: int) -> float:
            edge = graph.edges[k]
            return -layout.of(edge.target if outgoing else edge.source).y

        box = layout.of(name)
        members = sorted(members, key=lambda k: (other_end(k), k))
        gap = _PORT_GAP * layout.lines
        whole = sum(looks[k].width for k in members) + gap * (len(members) - 1)
        scale = min(1.0, (box.height - min(8.0, 0.3 * box.height)) / whole)
        y = box.y + scale * whole / 2
        for k in members:
            found[k] = y - scale * looks[k].width / 2
            y -= scale * (looks[k].width + gap)
    return found


def _draw_edge(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    look: _Look,
    zorder: float,
    bow: float = 0.0,
) -> None:
    head = min(4.0 * look.scale + 0.45 * look.width, 8.0)
    tip, base = end[0], end[0] - head
    halves = _halves(start, (base, end[1]), bow)
    points = [start, *(point for half in halves for point in half[1:])]
    alpha = 1.0 if look.missing else _FADED if look.faded else 0.75
    axes.add_patch(
        PathPatch(
            Curve(points, [Curve.MOVETO, *[Curve.CURVE4] * (len(points) - 1)]),
            fill=False,
            ec=look.color,
            lw=look.width,
            ls=_DASHES if look.missing else "-",
            alpha=alpha,
            capstyle="butt",
            zorder=zorder,
        )
    )
    half = 0.5 * look.width + 1.4 * look.scale
    corners = [(base, end[1] + half), (base, end[1] - half), (tip, end[1])]
    axes.add_patch(Polygon(corners, closed=True, fc=look.color, ec="none", alpha=alpha, zorder=zorder))


def draw_legend(axes: Axes, layout: Layout, text_style: Mapping[str, Any]) -> None:
    """Draws the legend's rows, each centred: a piece of line and its meaning."""
    for y, row in layout.legend:
        lengths = [_SAMPLE + 5 + text_width(entry.text, FONT_SIZE - 1) + 16 for entry in row]
        x = (layout.width - sum(lengths) + 16) / 2
        for entry, length in zip(row, lengths, strict=True):
            sample = Line2D(
                [x, x + _SAMPLE],
                [y, y],
                color=entry.color,
                lw=_MISSING_WIDTH if entry.dashed else 4.0,
                ls=_DASHES if entry.dashed else "-",
                alpha=1.0 if entry.dashed else 0.75,
                solid_capstyle="butt",
                dash_capstyle="butt",
            )
            axes.add_line(sample)
            style = {**text_style, "ha": "left"}
            axes.text(x + _SAMPLE + 5, y, entry.text, **style, fontsize=FONT_SIZE - 1, color="0.2")
            x += length
