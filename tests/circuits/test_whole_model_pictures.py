"""Pictures and the graph of whole models: what is drawn are the numbers of the results."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hooked_models import bridge, hooked_transformer, hugging_face_model

from ocr_interp.circuits.attribution.whole import direct_attribution
from ocr_interp.circuits.weights.composition import composition
from ocr_interp.errors import ConfigError, ModelError, UnknownNameError
from ocr_interp.graphs.composition_graph import composition_graph
from ocr_interp.graphs.graph import CircuitGraph
from ocr_interp.viz.diagram.saving import save_diagram
from ocr_interp.viz.whole_model import plot_composition, plot_direct_attribution

PROMPT = [3, 4, 5]


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_attribution_is_drawn_by_layer_and_head(ax):
    found = direct_attribution(hooked_transformer("LN", n_layers=3, attn_only=False), PROMPT, 7, 8)
    shown = plot_direct_attribution(ax, found).images[0].get_array()
    assert shown.shape == (3, 5)
    assert shown[2, 1] == pytest.approx(found.of("L2H1")[0])
    assert shown[1, 4] == pytest.approx(found.of("MLP 1")[0])
    assert "logit difference" in ax.get_title()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "2", "3", "MLP"]


def test_attention_that_is_one_part_has_a_column(ax):
    model = bridge(hugging_face_model("Gemma2", final_logit_softcapping=None))
    found = direct_attribution(model, PROMPT, 7)
    shown = plot_direct_attribution(ax, found).images[0].get_array()
    assert shown.shape == (2, 2)
    assert shown[0, 0] == pytest.approx(found.of("attention 0")[0])
    assert ax.get_title().startswith("logit ")


def test_composition_is_drawn_for_later_readers(ax):
    found = composition(hooked_transformer("LN", n_layers=3, attn_only=False))
    shown = plot_composition(ax, found, "K").images[0].get_array()
    assert shown.shape == (3 * 4 - 4 + 2, 8)  # heads and MLPs that have a later head; heads from layer 1 on
    assert shown[0, 0] == pytest.approx(found.of("L0H0", "L1H0", "K"))
    assert len(ax.patches) == 3
    with pytest.raises(UnknownNameError, match="way of reading 'k'"):
        plot_composition(ax, found, "k")


def test_one_layer_has_no_composition_of_heads(ax):
    found = composition(hooked_transformer("LN"))
    with pytest.raises(ModelError, match="of which one reads the other"):
        plot_composition(ax, found, "K")
    with pytest.raises(ModelError, match="needs a unit that reads another"):
        composition_graph(found)


def test_the_graph_holds_the_strongest_pairs(tmp_path):
    found = composition(hooked_transformer("LN", n_layers=2, attn_only=False))
    graph = composition_graph(found, 7)
    for row in found.table().head(7).itertuples():
        target = row.reader if row.by == "in" else f"{row.reader}<{row.by.lower()}>"
        assert graph.edge(row.writer, target).contribution == pytest.approx(row.score)
    assert CircuitGraph.from_json(graph.to_json()) == graph
    text = save_diagram(graph, tmp_path / "composition.svg").read_text()
    assert text.startswith("<?xml")
    dot = save_diagram(graph, tmp_path / "composition.dot").read_text()
    assert dot.count("->") == len(graph.edges)
    with pytest.raises(ConfigError, match="strongest"):
        composition_graph(found, 0)
    assert np.isfinite([edge.contribution for edge in graph.edges]).all()
