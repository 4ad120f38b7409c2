"""Diagrams of whole models: simplified alike, nothing lost in sums, 12 layers of 12 heads fit a page."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from ocr_interp.comparison import compare_graphs
from ocr_interp.discovery import Circuit, circuit_as_graph
from ocr_interp.errors import ConfigError
from ocr_interp.graphs import CircuitGraph, Edge, Effect, Node, simplify
from ocr_interp.stream.nodes import StreamNodes
from ocr_interp.viz import draw_circuit, save_diagram
from ocr_interp.viz.diagram.edges import edge_bows, edge_ends
from ocr_interp.viz.diagram.layers import WIDTH, is_layered, lay_out_layers
from ocr_interp.viz.diagram.layout import lay_out
from ocr_interp.viz.report.circuits import LAYERED_EDGES, graph_data

NODES = StreamNodes(12, 12, 12, (True,) * 12)


@cache
def whole_model(seed=0, edges=3000):
    scores = np.random.default_rng(seed).standard_normal(NODES.allowed.shape) * NODES.allowed
    mask = NODES.allowed
    mask = mask & (np.abs(scores) >= np.sort(np.abs(scores[mask]))[-edges])
    return circuit_as_graph(Circuit(NODES, mask, scores, "random scores"))


def small():
    nodes = (
        Node("input", "input", "input", (), 0),
        Node("q", "reads", "L0H0 query", (), 1),
        Node("k", "reads", "L0 group 0 key", (), 1),
        *(Node(f"h{k}", "head", f"L0H{k}", (), 2) for k in range(3)),
        Node("logits", "answer", "logits", (), 3),
    )
    edges = (
        Edge("input", "q", 1.0),
        Edge("input", "k", 4.0),
        Edge("q", "h0", 1.0),
        *(Edge("k", f"h{k}", 4.0) for k in (0, 1)),
        *(Edge(f"h{k}", "logits", value) for k, value in enumerate((5.0, -1.0, 0.5))),
    )
    return CircuitGraph("small", nodes, edges, (Effect("logits", 4.5),), "", "", "")


def test_reads_are_folded_into_their_heads():
    found = simplify(small())
    assert found.edge("input", "h0").contribution == 1.0 + 4.0 / 2  # a shared key in equal parts
    assert found.edge("input", "h1").contribution == 2.0
    assert [node.name for node in found.nodes] == ["input", "h0", "h1", "h2", "logits"]


def test_small_heads_of_a_layer_become_one_node_with_the_sum_of_their_edges():
    found = simplify(small(), most_nodes=2)
    (group,) = [node for node in found.nodes if node.members]
    assert group.members == ("L0H1", "L0H2")
    assert found.edge(group.name, "logits").contribution == -0.5
    assert found.edge("input", group.name).contribution == 2.0
    assert found.through("logits") == 4.5


def test_small_edges_are_hidden_and_counted():
    found = simplify(small(), most_edges=1)
    assert [(edge.source, edge.target) for edge in found.edges] == [("h0", "logits")]
    fed = simplify(small(), most_edges=4)
    assert {edge.target for edge in fed.edges} == {"h0", "h1", "logits"}, "the largest into every node first"
    assert found.effects[0].hidden == -0.5
    assert "4 small ones of 5 edges between nodes are left out" in found.statement
    with pytest.raises(ConfigError, match="most_edges"):
        simplify(small(), most_edges=0)


@pytest.mark.slow
def test_twelve_layers_of_twelve_heads_fit_a_page():
    graph = whole_model()
    assert len(graph.edges) > 3_000
    assert is_layered(graph)
    found = simplify(graph)
    units = [node for node in found.nodes if node.kind in ("head", "mlp")]
    assert len(units) <= 60
    assert len(found.edges) <= 80
    layout = lay_out_layers(found)
    assert layout.width <= 1.05 * WIDTH
    boxes = layout.nodes
    for k, one in enumerate(boxes):
        assert one.width / 2 <= one.x <= layout.width - one.width / 2
        for other in boxes[k + 1 :]:
            apart = abs(one.x - other.x) >= (one.width + other.width) / 2
            assert apart or abs(one.y - other.y) >= one.height, (one.name, other.name)


@pytest.mark.slow
def test_every_format_is_the_same_bytes_twice(tmp_path):
    graph = whole_model(edges=60)
    for kind in ("png", "svg", "pdf", "dot"):
        files = [save_diagram(graph, tmp_path / f"{k}.{kind}").read_bytes() for k in range(2)]
        assert files[0] == files[1]


def test_two_graphs_are_drawn_alike_with_what_changed_marked(tmp_path):
    before = small()
    edges = tuple(
        Edge(e.source, e.target, -5.0 if (e.source, e.target) == ("h1", "logits") else e.contribution)
        for e in before.edges
    )
    after = CircuitGraph("after", before.nodes, edges, (Effect("logits", 0.5),), "", "", "")
    change = compare_graphs(before, after)
    assert change.marked == {("h1", "logits")}
    row = change.table().iloc[0]
    assert (row["source"], row["before"], row["after"], row["change"]) == ("h1", -1.0, -5.0, -4.0)
    figure = draw_circuit(change)
    assert len(figure.axes) == 2
    faded = [[p.get_alpha() for p in ax.patches if p.get_alpha() is not None] for ax in figure.axes]
    assert sorted(faded[0]) == sorted(faded[1])
    assert sorted(set(faded[0])) == [0.15, 0.75]
    save_diagram(change, tmp_path / "change.svg")
    save_diagram(change, tmp_path / "change.dot")
    lines = (tmp_path / "change.dot").read_text().splitlines()
    (moved,) = [line for line in lines if "-1 -> -5" in line]
    assert '"#de8f05"' in moved, "what changed keeps the colour of its sign after"
    assert sum('"#cccccc"' in line for line in lines) == len(change.after.edges) - 1
    with pytest.raises(ConfigError, match="holds one graph"):
        save_diagram([before, after], tmp_path / "two.dot")


def test_edges_pass_no_box_of_another_node():
    """MLPs stand in a row, so an edge over one of them would look like two edges."""
    nodes = (
        Node("input", "input", "input", (), 0),
        *(Node(f"m{k}", "mlp", f"MLP {k}", (), k + 1) for k in range(3)),
        Node("logits", "answer", "logits", (), 4),
    )
    pairs = [("input", "m0"), ("m0", "m1"), ("m1", "m2"), ("m2", "logits"), ("m0", "m2"), ("m0", "logits")]
    graph = CircuitGraph(
        "row", nodes, tuple(Edge(*ends, 1.0) for ends in pairs), (Effect("logits", 2.0),), "", "", ""
    )
    layout = lay_out(graph, {node.name: "" for node in nodes})
    ends = edge_ends(graph, layout)
    bows = edge_bows(graph, layout, ends)
    assert bows[:4] == [0.0] * 4
    assert abs(bows[5]) > abs(bows[4]) > layout.of("m1").height / 2
    middle = (ends[4][0][1] + ends[4][1][1]) / 2 + bows[4]
    assert not abs(middle - layout.of("m1").y) <= layout.of("m1").height / 2


def test_small_edges_are_left_out_of_a_comparison():
    before = small()
    edges = tuple(
        replace(edge, contribution=1e-4 if "q" in (edge.source, edge.target) else edge.contribution)
        for edge in before.edges
    )
    graphs = [replace(before, edges=edges) for _ in range(2)]
    figure = draw_circuit(compare_graphs(*graphs))
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert not any("query" in text for text in shown)
    assert any("edges below 1% of the largest are left out" in text.replace("\n", " ") for text in shown)


def test_an_edge_of_one_graph_alone_is_zero_in_the_other():
    graph = small()
    without = CircuitGraph("w", graph.nodes, graph.edges[:-1], (Effect("logits", 4.0),), "", "", "")
    change = compare_graphs(graph, without, share=0.05)
    assert change.after.edge("h2", "logits").contribution == 0.0
    assert change.marked == {("h2", "logits")}


def test_graphs_of_two_kinds_are_refused():
    graph = small()
    moved = tuple(Node(n.name, n.kind, n.label, (), 5 if n.name == "h0" else n.column) for n in graph.nodes)
    with pytest.raises(ConfigError, match="must be of one kind, got the node 'h0'"):
        compare_graphs(graph, CircuitGraph("m", moved, (), (Effect("logits", 0.0),), "", "", ""))


@pytest.mark.slow
def test_pairs_of_whole_models_are_simplified_alike():
    before, after = whole_model(0), whole_model(1)
    figure = draw_circuit(compare_graphs(before, after), most_nodes=30, most_edges=40)
    assert figure.get_figwidth() * 72 == pytest.approx(WIDTH, rel=0.05)
    names = [
        [text.get_text() for text in ax.texts if text.get_text().startswith(("H", "+", "M"))]
        for ax in figure.axes
    ]
    assert names[0] == names[1]


def test_a_page_shows_whole_models_as_diagrams_do():
    """Two circuits with other edges: the same boxes, in the page's width; nothing lost in sums."""
    graphs = {"before": whole_model(0, 900), "after": whole_model(1, 900)}
    data = graph_data(graphs)
    assert data["width"] <= 900
    assert len(data["edges"]) == LAYERED_EDGES
    assert all(node["short"] for node in data["nodes"])
    names = {node["name"] for node in data["nodes"]}
    folded = {name for name in names if name.endswith((" query", " key", " value"))}
    assert not {name.rpartition(" ")[0] for name in folded} & names, "only of heads that write nowhere"
    for node in data["nodes"]:
        assert node["x"] - node["w"] / 2 >= 0
        assert node["x"] + node["w"] / 2 <= data["width"]
    upper = [node for node in data["nodes"] if node["kind"] == "head"]
    for one in upper:
        for other in upper:
            apart = abs(one["x"] - other["x"]) >= one["w"] / 2 + other["w"] / 2 - 0.2
            assert one is other or apart or abs(one["y"] - other["y"]) >= one["h"] - 0.2
    largest = max(abs(value) for variant in data["variants"] for value in variant["edges"])
    assert largest == pytest.approx(data["largest"], rel=1e-4)
    # An edge between two nodes that are drawn by themselves is the graph's own.
    ends = [(data["nodes"][e["source"]]["name"], data["nodes"][e["target"]]["name"]) for e in data["edges"]]
    for variant, graph in zip(data["variants"], graphs.values(), strict=True):
        names = {node.name: node.label for node in graph.nodes}
        values = {(names[e.source], names[e.target]): e.contribution for e in graph.edges}
        drawn = dict(zip(ends, variant["edges"], strict=True))
        own = [end for end in drawn if end in values and drawn[end]]
        assert own
        assert all(drawn[end] == pytest.approx(values[end], rel=1e-3) for end in own)
