"""Writes a diagram as a picture, as Graphviz text or as data."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from ocr_interp.comparison.graphs import GraphChange, compare_graphs
from ocr_interp.errors import ConfigError
from ocr_interp.graphs.graph import CircuitGraph
from ocr_interp.graphs.simplify import MOST_EDGES
from ocr_interp.graphs.simplify import MOST_NODES as MOST_UNITS
from ocr_interp.storage.atomic import write_atomic
from ocr_interp.viz.diagram.dot import change_to_dot, to_dot
from ocr_interp.viz.diagram.drawing import FIXED, Drawn, as_list, check_graphs, draw_circuit, graphs_shown

FORMATS = ("png", "svg", "pdf", "dot", "json")


def save_diagram(
    graphs: Drawn, path: Path | str, *, most_nodes: int = MOST_UNITS, most_edges: int = MOST_EDGES
) -> Path:
    """Writes a diagram; the suffix is the format: .png, .svg, .pdf, .dot (Graphviz text, of one graph or of
    a change), or .json (one graph as data, with all that it has; `CircuitGraph.from_json` reads it).

    The bounds are those of `draw_circuit`.

    Returns: the path.

    Raises:
        ConfigError: another suffix, something that is no graph, or several graphs as DOT or JSON.
        RunError: the file cannot be written; an earlier file is left unchanged.
    """
    target = Path(path)
    kind = target.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise ConfigError(f"a diagram must end in one of {', '.join(FORMATS)}, got {target.name!r}")
    check_graphs(graphs)
    target.parent.mkdir(parents=True, exist_ok=True)
    if kind == "json":
        several = [graphs.before, graphs.after] if isinstance(graphs, GraphChange) else as_list(graphs)
        write_atomic(target, _only(several, kind).to_json().encode())
        return target
    if kind == "dot" and isinstance(graphs, GraphChange):
        pair = graphs_shown(graphs, most_nodes, most_edges)
        write_atomic(target, change_to_dot(compare_graphs(pair[0], pair[1], graphs.share)).encode())
        return target
    if kind == "dot":
        write_atomic(target, to_dot(_only(graphs_shown(graphs, most_nodes, most_edges), kind)).encode())
        return target
    # Dates and program versions would make every file different.
    metadata = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }[kind]
    with mpl.rc_context(FIXED):  # pyright: ignore[reportArgumentType]
        picture = io.BytesIO()
        figure = draw_circuit(graphs, most_nodes=most_nodes, most_edges=most_edges)
        figure.savefig(picture, format=kind, metadata=metadata)
    write_atomic(target, picture.getvalue())
    return target


def _only(graphs: Sequence[CircuitGraph], kind: str) -> CircuitGraph:
    if len(graphs) != 1:
        raise ConfigError(f"a .{kind} file holds one graph, got {len(graphs)}: write a file for each")
    return graphs[0]
