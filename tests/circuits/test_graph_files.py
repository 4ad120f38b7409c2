"""Circuit graphs from files of others: checked by type, size and direction, then drawn."""

import copy
import dataclasses
import json

import pytest

from ocr_interp.errors import AttributionError, ConfigError, OcrInterpError
from ocr_interp.graphs.graph import CircuitGraph, Edge, Effect, Node
from ocr_interp.viz.diagram.dot import to_dot
from ocr_interp.viz.diagram.drawing import draw_circuit
from ocr_interp.viz.diagram.saving import save_diagram

NODES = (
    Node("t", "token", "s0"),
    Node("a", "attention", "att"),
    Node("o", "ov_block", "ov"),
    Node("y", "answer", "b0"),
)
EDGES = (Edge("t", "a", 2.0), Edge("a", "o", 2.0), Edge("o", "y", 2.0))


def graph(nodes=NODES, edges=EDGES, total=2.0, **texts):
    told = {"title": "t", "statement": "s", "source": "m", "fingerprint": "f", **texts}
    return CircuitGraph(nodes=nodes, edges=edges, effects=(Effect("y", total),), **told)


GOOD = json.loads(graph().to_json())


def changed(*path_and_value):
    *path, last, value = path_and_value
    content = copy.deepcopy(GOOD)
    place = content
    for key in path:
        place = place[key]
    place[last] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "lists within lists"),
        (changed("title", 3), "title must be a text, got 3"),
        (changed("title", "x" * 2_001), "title must have at most 2,000 letters"),
        (changed("version", True), "up to version 2, got True"),
        (changed("nodes", {"a": 1}), "nodes must be a list"),
        (changed("nodes", 0, "label", ["x"]), "label of a node must be a text"),
        (changed("nodes", 0, "members", "abc"), "members must be a list"),
        (changed("nodes", 0, "members", [1]), "a member of a node must be a text"),
        (changed("nodes", 0, 3), "damaged"),
        (changed("nodes", 0, "name", "\ud800"), "a surrogate without its partner"),
        (changed("edges", 0, "contribution", "2.0"), "contribution of an edge must be a finite number"),
        (changed("edges", 0, "contribution", float("inf")), "must be a finite number"),
        (changed("edges", 0, "contribution", 10**50 * 10**9), "must be at most|sum"),
        (changed("edges", 0, "contribution", 1e200), "must be at most 1e"),
        (changed("edges", 0, "target", "t"), "must lead to a later column"),
        (changed("edges", 2, {**GOOD["edges"][2], "source": "y", "target": "o"}), "later column"),
        (changed("effects", 0, "total", None), "total of an effect must be a finite number"),
        (changed("effects", 0, "node", 3), "node of an effect must be a text"),
        (changed("pruned_below", "1"), "pruned_below must be a finite number"),
        (changed("pruned_below", 2), "pruned_below must be <= 1"),
    ],
)  # fmt: skip
def test_a_wrong_type_size_or_direction_is_named(text, message, unchecked):
    with pytest.raises((ConfigError, AttributionError), match=message):
        unchecked.CircuitGraph.from_json(text)


@pytest.mark.slow
def test_every_entry_may_be_anything(unchecked):
    """Each entry of the file replaced by each of these: refused by the package's own errors, or drawn."""
    spots = [
        ("title",),
        ("statement",),
        ("source",),
        ("fingerprint",),
        ("pruned_below",),
        ("nodes",),
        ("edges",),
    ]
    spots += [("nodes", 0, key) for key in ("name", "kind", "label", "members")] + [
        ("nodes", 0),
        ("effects", 0),
    ]
    spots += [("edges", 0, key) for key in ("source", "target", "contribution", "kind")]
    for spot in spots:
        for value in (
            None,
            True,
            -1,
            0,
            1e308,
            10**50,
            "",
            "a",
            "t",
            "token",
            "\0",
            "\u202e",
            [],
            ["a"],
            {},
            [[]],
        ):
            try:
                unchecked.CircuitGraph.from_json(changed(*spot, value))
                made = CircuitGraph.from_json(changed(*spot, value))
                to_dot(made).encode()
                draw_circuit(made)
            except OcrInterpError:
                continue


def test_no_control_character_reaches_a_picture(tmp_path):
    odd = '\x00\x1b]0;x\x07\u202e]]>\ufffe&<script>$x^2$"\\'
    made = graph(nodes=(Node("t", "token", odd), *NODES[1:]), title=odd, source=odd, statement=odd)
    assert CircuitGraph.from_json(made.to_json()) == made, "the data keep what they are"
    for suffix in ("svg", "dot"):
        written = save_diagram(made, tmp_path / f"g.{suffix}").read_text(encoding="utf-8")
        assert all(char.isprintable() or char == "\n" for char in written)
    assert r"\\x00\\x1b]0;x\\x07\\u202e" in to_dot(made)


def wide(count):
    tokens = tuple(Node(f"t{k}", "token", f"s{k}") for k in range(count))
    edges = tuple(Edge(f"t{k}", "a", 1.0) for k in range(count))
    return graph((*tokens, *NODES[1:]), (*edges, Edge("a", "o", count), Edge("o", "y", count)), float(count))


@pytest.mark.slow
def test_a_graph_that_nobody_could_read_is_refused_with_the_number_allowed():
    with pytest.raises(ConfigError, match=r"at most 300 nodes, got 10,003: .*prune"):
        draw_circuit(wide(10_000))
    with pytest.raises(ConfigError, match=r"at most 1,000 nodes, got 1,003"):
        to_dot(wide(1_000))
    assert to_dot(wide(500)).count("->") == 502
    tall = tuple(Node(f"t{k}", "token", "a\n" * 150) for k in range(290))
    edges = tuple(Edge(node.name, "a", 1.0) for node in tall)
    with pytest.raises(ConfigError, match="points is too large to draw"):
        draw_circuit(graph((*tall, *NODES[1:]), (*edges, Edge("a", "o", 290), Edge("o", "y", 290)), 290.0))


@pytest.mark.parametrize("size", [1e-300, 1e-20, 1e20, 1e90])
def test_numbers_of_any_size_are_a_few_letters(size):
    made = graph(edges=tuple(Edge(e.source, e.target, size) for e in EDGES), total=size)
    labels = [text.get_text() for text in draw_circuit(made).axes[0].texts]
    assert max(len(line) for label in labels[:4] for line in label.split("\n")) < 14


def test_columns_of_whole_models():
    """Nodes of a model's layers name their column, which edges and files keep."""
    nodes = (
        Node("input", "input", "input", (), 0),
        Node("m0", "mlp", "MLP 0", (), 3),
        Node("y", "answer", "y", (), 4),
    )
    edges = (Edge("input", "m0", 2.0), Edge("m0", "y", 1.0), Edge("input", "y", 0.5))
    whole = CircuitGraph("g", nodes, edges, (Effect("y", 2.0, 0.5),), "", "", "")
    text = whole.to_json()
    assert json.loads(text)["version"] == 2
    assert CircuitGraph.from_json(text) == whole
    with pytest.raises(ConfigError, match="an edge must lead to a later column"):
        dataclasses.replace(whole, edges=(*edges, Edge("m0", "input", 1.0)))
    for column in (None, -1, True):
        with pytest.raises(ConfigError, match="column of 'm0' must be"):
            dataclasses.replace(
                whole, nodes=(nodes[0], dataclasses.replace(nodes[1], column=column), nodes[2])
            )
