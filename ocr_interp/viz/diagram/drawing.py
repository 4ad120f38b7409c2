"""Diagrams of circuit graphs as PNG, SVG, PDF and DOT; files are equal to the byte in every process."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch
from matplotlib.text import Text

from ocr_interp.checks import check_number
from ocr_interp.comparison.graphs import GraphChange, compare_graphs
from ocr_interp.errors import ConfigError
from ocr_interp.graphs.graph import CircuitGraph
from ocr_interp.graphs.simplify import MOST_EDGES, simplify, simplify_alike
from ocr_interp.graphs.simplify import MOST_NODES as MOST_UNITS
from ocr_interp.storage.plain import printable
from ocr_interp.viz.diagram.dot import drawable, missing_blocks, untold_nodes
from ocr_interp.viz.diagram.edges import draw_edges, draw_legend, largest_edge, legend_entries
from ocr_interp.viz.diagram.layers import is_layered, is_whole, lay_out_layers
from ocr_interp.viz.diagram.layout import (
    FONT_SIZE,
    TITLE_SIZE,
    WIDTH,
    Layout,
    PlacedNode,
    lay_out,
    text_width,
)
from ocr_interp.viz.diagram.node_values import node_values, unanswered
from ocr_interp.viz.style import current_style

MOST_NODES = 300
"""Largest graph that is drawn: nobody can read more, and a picture of 600 nodes takes 15 seconds."""

FIXED = {"svg.hashsalt": "ocr-interp", "svg.fonttype": "path", "pdf.fonttype": 42, "savefig.dpi": 160}
_FACE = {"token": "#f3f3f3", "attention": "#ffffff", "ov_block": "#eaf1f7", "answer": "#f6efe2"}
_LARGEST, _LARGEST_AREA = 25_000.0, 2.0e7
"""Points of a side, and of the whole: a PNG of it has 2**16 pixels a side and 400 MB at most."""
# Labels are tokens, in which a dollar sign does not start a formula.
_CENTRED: dict[str, Any] = {"ha": "center", "va": "center", "parse_math": False}


Drawn = CircuitGraph | GraphChange | Sequence[CircuitGraph]


def draw_circuit(graphs: Drawn, *, most_nodes: int = MOST_UNITS, most_edges: int = MOST_EDGES) -> Figure:
    """Draws one graph, or several, each with its title, at most 6.6 inches wide where labels leave room.

    Several stand side by side where that is no wider, else below each other. Of a whole model with many
    layers, heads stand in the column of their layer, MLPs below, simplified (see `simplify`) to `most_nodes`
    heads and MLPs and `most_edges` edges. Of a `GraphChange` both graphs are drawn on one scale, before
    first; edges that did not change fade.

    The line width is |contribution| relative to the largest edge of all graphs, the colour its sign; untold
    edges are red, and dashed if they are missing. The number in a node is the contribution through it, in
    logits; of a node whose contributions cancel, the sums of the positive and of the negative ones; of an
    untold answer whose untold part is missing, what the told parts add to its whole set. Graphs of
    equal titles get the first digits of their weights' fingerprints. Leave small edges out to make a graph
    readable: draw_circuit(graph.readable()), or graph.prune(0.05). Control characters of labels are written
    out, and long texts cut.

    Raises:
        ConfigError: no graph, a graph without edges, or one with more nodes, edges or text than a picture
            can hold.
    """
    check_graphs(graphs)
    marked = graphs.marked if isinstance(graphs, GraphChange) else None
    shown = graphs_shown(graphs, most_nodes, most_edges)
    if marked is not None and isinstance(graphs, GraphChange) and shown[0].edges != graphs.before.edges:
        marked = compare_graphs(shown[0], shown[1], graphs.share).marked
    if not shown or not all(graph.edges for graph in shown):
        raise ConfigError("draw_circuit needs at least one graph, each with edges")
    shown = _told_apart([drawable(graph, MOST_NODES) for graph in shown])
    largest = largest_edge(shown)
    with mpl.rc_context(FIXED):  # pyright: ignore[reportArgumentType]
        several = len(shown) > 1
        beside = shown if marked is not None else []
        layouts = [_laid_out(graph, several, beside) for graph in shown]
        widths, heights = [each.width for each in layouts], [each.height for each in layouts]
        below = sum(widths) > WIDTH  # side by side they are too wide for a page
        width, height = (max(widths), sum(heights)) if below else (sum(widths), max(heights))
        if max(width, height) > _LARGEST or width * height > _LARGEST_AREA:
            raise ConfigError(
                f"a diagram of {width:,.0f} x {height:,.0f} points is too large to draw (at most "
                f"{_LARGEST:,.0f} each way and {_LARGEST_AREA:,.0f} square points): leave small edges out "
                "with graph.prune(0.01), or group tokens"
            )
        # One unit of the axes is one point, so that text fits into boxes measured in points.
        figure = Figure(figsize=(width / 72, height / 72))
        FigureCanvasAgg(figure)
        left, top = 0.0, height
        for graph, layout in zip(shown, layouts, strict=True):
            bottom = top - layout.height
            box = (left / width, bottom / height, layout.width / width, layout.height / height)
            axes = figure.add_axes(box)
            axes.set(xlim=(0, layout.width), ylim=(0, layout.height))
            axes.axis("off")
            _draw(axes, graph, layout, largest, marked=marked)
            left, top = (left, bottom) if below else (left + layout.width, top)
    return figure


def graphs_shown(graphs: Drawn, most_nodes: int, most_edges: int) -> list[CircuitGraph]:
    """The graphs as they are drawn; those of whole models simplified, of a change both alike."""
    if isinstance(graphs, GraphChange):
        pair = graphs.before, graphs.after
        if not any(is_layered(graph) for graph in pair):
            return _without_small(pair) if is_whole(pair[0]) else list(pair)
        return simplify_alike(pair, most_nodes, most_edges)
    shown = as_list(graphs)
    return [simplify(graph, most_nodes, most_edges) if is_layered(graph) else graph for graph in shown]


def _without_small(pair: tuple[CircuitGraph, CircuitGraph]) -> list[CircuitGraph]:
    """Two graphs of the same edges without those that are below SMALL of the largest in both."""
    largest = max((abs(edge.contribution) for graph in pair for edge in graph.edges), default=0.0)
    kept = [
        max(abs(edge.contribution) for edge in edges) >= SMALL * largest
        for edges in zip(pair[0].edges, pair[1].edges, strict=True)
    ]
    said = f"; edges below {SMALL:.0%} of the largest are left out" if not all(kept) else ""
    found = []
    for graph in pair:
        edges = tuple(edge for edge, is_kept in zip(graph.edges, kept, strict=True) if is_kept)
        ends = {end for edge in edges for end in (edge.source, edge.target)}
        ends |= {effect.node for effect in graph.effects}
        left = {n: sum(e.contribution for e in edges if e.target == n) for n in ends}
        found.append(
            replace(
                graph,
                nodes=tuple(node for node in graph.nodes if node.name in ends),
                edges=edges,
                effects=tuple(replace(e, hidden=e.total - left[e.node]) for e in graph.effects),
                statement=graph.statement + said,
            )
        )
    return found


SMALL = 0.01
"""Share of the largest edge below which a comparison of whole models leaves an edge out."""


def _laid_out(graph: CircuitGraph, several: bool, beside: Sequence[CircuitGraph] = ()) -> Layout:
    if is_layered(graph):
        others = [other for other in beside if other is not graph]
        return lay_out_layers(graph, legend_entries(graph), several, others)
    return lay_out(graph, node_values(graph), legend_entries(graph), several)


def plot_circuit(ax: Axes, graph: CircuitGraph, *, largest: float | None = None, note: bool = True) -> Axes:
    """Draws one graph on given axes, as large as they are; text and lines shrink or grow with it.

    Args:
        ax: axes to draw on; give a mechanism about 7 x 4 inches, or its text gets small.
        graph: the graph; `graph.readable()` leaves small edges out.
        largest: contribution, in logits, of an edge of full width; give graphs that are compared the same.
            None takes the graph's largest edge.
        note: whether the graph's statement and source stand below it.

    Returns: the axes.

    Raises:
        ConfigError: a graph without edges, one with more nodes or edges than a picture can hold, or a largest
            contribution that is not above 0.

    >>> from matplotlib.figure import Figure
    >>> from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, train
    >>> from ocr_interp.graphs import mechanism_graph
    >>> recipe = TrainConfig(steps=20, batch_size=12, device="cpu")
    >>> run = train(FactRecallTask(3, 1, 2), ModelConfig(d_head=8), recipe, progress=False)
    >>> ax = plot_circuit(Figure().subplots(), mechanism_graph(run).readable())
    >>> ax.texts[0].get_text().splitlines()[0]
    'training subjects (3)'
    """
    if not graph.edges:
        raise ConfigError("plot_circuit needs a graph with edges, got none")
    if largest is not None:
        check_number("largest", largest, above=0.0)
    shown = drawable(graphs_shown(graph, MOST_UNITS, MOST_EDGES)[0], MOST_NODES)
    layout = _laid_out(shown, several=False)
    before = set(ax.get_children())
    _draw(ax, shown, layout, largest_edge([shown]) if largest is None else largest, note)
    bottom = 0.0 if note else 2 * layout.note_y
    ax.set(xlim=(0, layout.width), ylim=(bottom, layout.height), aspect="equal")
    ax.axis("off")
    figure = ax.get_figure()
    assert figure is not None
    box = ax.get_window_extent()
    points = 72 / figure.dpi
    scale = min(box.width * points / layout.width, box.height * points / (layout.height - bottom))
    for artist in set(ax.get_children()) - before:
        if isinstance(artist, Text):
            artist.set_fontsize(float(artist.get_fontsize()) * scale)
        elif isinstance(artist, Patch | Line2D):
            artist.set_linewidth(artist.get_linewidth() * scale)
    return ax


def as_list(graphs: CircuitGraph | Sequence[CircuitGraph]) -> list[CircuitGraph]:
    return [graphs] if isinstance(graphs, CircuitGraph) else list(graphs)


def check_graphs(graphs: Any) -> None:
    """Requires what can be drawn, with the call that makes a graph of something else.

    Raises:
        ConfigError: something else.
    """
    several = graphs if isinstance(graphs, list | tuple) else [graphs]
    other = [each for each in several if not isinstance(each, CircuitGraph | GraphChange)]
    if other:
        raise ConfigError(
            f"a diagram is of a CircuitGraph, of several, or of a GraphChange, got "
            f"{type(other[0]).__name__}: make a graph first, with mechanism_graph(run), prompt_graph, "
            "head_graph, attribution_graph or composition_graph of ocr_interp.graphs, or "
            "discovery.circuit_as_graph; ocr_interp.viz has plots of circuits and spectra"
        )


def svg_of(graph: CircuitGraph) -> str:
    """The diagram of a graph's readable part as SVG, which notebooks show.

    Raises:
        ConfigError: more nodes, edges or text than a picture can hold.
    """
    picture = io.BytesIO()
    with mpl.rc_context(FIXED):  # pyright: ignore[reportArgumentType]
        metadata = {"Date": None, "Creator": None}
        draw_circuit(graph.readable()).savefig(picture, format="svg", metadata=metadata)
    return printable(picture.getvalue().decode())


AS_SVG = svg_of
"""What `CircuitGraph` asks for by this name when a notebook shows it."""


def _told_apart(graphs: list[CircuitGraph]) -> list[CircuitGraph]:
    """The graphs; equal titles are told apart by the fingerprints of the weights."""
    titles = [graph.title for graph in graphs]
    return [
        replace(graph, title=f"{graph.title} ({graph.fingerprint[:8]})")
        if titles.count(graph.title) > 1 and graph.fingerprint
        else graph
        for graph in graphs
    ]


def _draw(
    axes: Axes,
    graph: CircuitGraph,
    layout: Layout,
    largest: float,
    note: bool = True,
    marked: Collection[tuple[str, str]] | None = None,
) -> None:
    draw_edges(axes, graph, layout, largest, marked)
    untold, gone = untold_nodes(graph), missing_blocks(graph) | unanswered(graph)
    for placed in layout.nodes:
        _draw_node(axes, placed, layout, placed.name in untold, placed.name in gone)
    room = layout.width - 16
    needed = 1.12 * text_width(graph.title, TITLE_SIZE)  # 1.12: bold
    size = TITLE_SIZE * min(1.0, room / needed) if needed else TITLE_SIZE
    axes.text(layout.width / 2, layout.title_y, graph.title, **_CENTRED, fontsize=size, fontweight="bold")
    for x, text in layout.headings:
        axes.text(
            x, layout.heading_y, text, **_CENTRED, fontsize=min(FONT_SIZE - 1, layout.font_size), color="0.4"
        )
    draw_legend(axes, layout, _CENTRED)
    if not note:
        return
    axes.text(
        layout.width / 2,
        layout.note_y,
        layout.note,
        **_CENTRED,
        fontsize=FONT_SIZE - 2,
        color="0.35",
        linespacing=1.35,
    )


def _draw_node(axes: Axes, placed: PlacedNode, layout: Layout, untold: bool, missing: bool) -> None:
    value = layout.values[placed.name]
    held_out = current_style().held_out
    color = held_out if untold else "0.45"
    box = FancyBboxPatch(
        (placed.x - placed.width / 2, placed.y - placed.height / 2),
        placed.width,
        placed.height,
        boxstyle=f"round,pad=0,rounding_size={min(4.0, 0.3 * placed.height)}",
        fc="white" if missing else _FACE.get(placed.kind, "#f3f3f3"),
        ec=color,
        lw=(1.6 if untold else 0.8) * (1.0 if layout.lines == 1.0 else 0.6),
        ls=(0, (3.5, 2.0)) if missing else "-",
        zorder=3,
    )
    axes.add_patch(box)
    text = f"{placed.label}\n{value}".strip()
    axes.text(
        placed.x,
        placed.y,
        text,
        **_CENTRED,
        fontsize=layout.font_size,
        linespacing=1.2,
        color=held_out if untold else "0.1",
        zorder=4,
    )
