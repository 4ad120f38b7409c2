"""Graphs of any circuit and of any head: numbers by hand, sums against the model, bad input."""

import hooked_models
import numpy as np
import pytest
import torch
from snapshots import predicted, random_snapshot
from test_ov_circuit import MICRO, micro

from ocr_interp.circuits.attribution.of_model import attribute_model
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.circuits.weights.spectra import head_spectrum
from ocr_interp.errors import ConfigError, ModelError, UnknownNameError
from ocr_interp.graphs.circuit_graph import circuit_graph
from ocr_interp.graphs.graph import CircuitGraph
from ocr_interp.graphs.head_graph import head_graph
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import solve

OWN = [(f"s{s}", f"{kind}{s // 2}") for s in range(4) for kind in "bc"]
"""Every subject of MICRO with its fact and its implication."""


def test_mean_entries_of_the_micro_model_counted_by_hand():
    """W = [6 0 2 0; 3 0 1 0; 0 6 0 2; 0 3 0 1; 1 1 -1 -1; -1 -1 1 1; 0; 0]: means by group."""
    graph = circuit_graph(OVCircuit.from_run(micro(), raw=True), max_blocks=9)
    wanted = {
        ("training subjects", "facts"): 3,
        ("held-out subjects", "implications"): 0.5,
        ("r2", "facts"): -1,
    }
    for (source, target), value in wanted.items():
        into = [e for e in graph.edges if e.source == f"in {source}" and e.target.endswith(f"to {target}")]
        assert sum(e.contribution for e in into) == pytest.approx(value)
    assert graph.through("out facts") == pytest.approx(3 + 1.5 + 1 - 1)
    assert graph.through("out implications") == pytest.approx(1 + 0.5 - 1 + 1)
    assert graph.node("in training subjects").members == ("s0", "s2")


def test_own_answers_by_block_counted_by_hand():
    """σ = √50 where the pairs differ, √(29 + √521) where they agree (the relations reach in there): a block
    of mean 7.135 at this tolerance, and √(29 − √521)."""
    circuit = OVCircuit.from_run(micro(), raw=True)
    assert circuit.spectrum(0.05).multiplicities == (2, 1)
    untold = [("held-out subjects", "implications")]
    graph = circuit_graph(circuit, pairs=OWN, untold=untold)
    assert graph.edge("in training subjects", "block 0 to facts").contribution == pytest.approx(6 - 3)
    assert graph.edge("in held-out subjects", "block 0 to facts").contribution == pytest.approx(3 - 1.5)
    red = graph.edge("in held-out subjects", "block 0 to implications")
    assert (red.contribution, red.kind) == (pytest.approx(1 - 0.5), "untold")
    assert graph.edge("in training subjects", "block 1 to facts").contribution == pytest.approx(0, abs=1e-12)
    assert graph.through("out implications") == pytest.approx(1 + 0.5)
    assert graph.node("block 0 to facts").label == "block 0: σ 7.14 × 2\n→ facts"
    assert {n.label for n in graph.nodes if n.kind == "token"} == {
        "training subjects (2)",
        "held-out subjects (2)",
    }
    assert CircuitGraph.from_json(graph.to_json()) == graph


def test_blocks_of_the_closed_form_say_where_the_untold_implication_comes_from():
    task = FactRecallTask(20, 1, 3)
    own = [
        (f"s{s}", task.labels[task.n_inputs + 20 * k + f])
        for s, f in enumerate(task.subject_fact)
        for k in (0, 1)
    ]
    carried = {}
    for norm in ("nuclear", "frobenius"):
        circuit = OVCircuit.from_run(predicted(task, solve(task, norm).W))
        graph = circuit_graph(circuit.subjects_and_relations, pairs=own, tolerance=1e-6)
        blocks = [n.name for n in graph.nodes if n.name.endswith("implications") and n.kind == "ov_block"]
        parts = [graph.edge("in held-out subjects", name).contribution for name in blocks]
        carried[norm] = np.array(parts)
    assert carried["nuclear"].sum() == pytest.approx(0.95 * 3**-0.5)
    assert carried["frobenius"].sum() == pytest.approx(0, abs=1e-12)
    # README and theory: without the small block the coefficient is 0.659 and not 0.577.
    assert carried["nuclear"].max() == pytest.approx(0.95 * 0.659, abs=1e-3)
    assert carried["nuclear"].min() < 0
    assert np.abs(carried["frobenius"]).max() > 0.1, "both blocks write it, and cancel"


@pytest.mark.parametrize("most", [1, 2, 9])
def test_graphs_of_any_model_sum_to_its_circuit(most):
    model = hooked_models.hooked_transformer("RMS", kv_heads=2)
    groups = {"a": ["w1", "w2", "w3"], "b": ["w9"]}
    circuit = OVCircuit.from_model(
        model,
        layer=0,
        head=3,
        inputs=groups,
        outputs={"x": ["w4", "w5"], "y": ["w6"]},
        labels=hooked_models.WORDS,
    )
    graph = circuit_graph(circuit, max_blocks=most)
    assert graph.through("out x") == pytest.approx(circuit.W[:3, :2].mean() + circuit.W[3, :2].mean())
    assert sum(n.kind == "ov_block" for n in graph.nodes) == 2 * min(most + 1, 3)
    pruned = graph.prune(0.3)
    into = sum(e.contribution for e in pruned.edges if e.target == "out y")
    assert into + pruned.effects[1].hidden == pytest.approx(graph.through("out y"))


def test_bad_groups_and_pairs():
    circuit = OVCircuit.from_run(random_snapshot(MICRO))
    with pytest.raises(UnknownNameError, match="did you mean 'b0'"):
        circuit_graph(circuit, pairs=[("s0", "b00")])
    with pytest.raises(ModelError, match="each once, got 2 pairs, 1 different"):
        circuit_graph(circuit, pairs=[("s0", "b0"), ("s0", "b0")])
    with pytest.raises(ModelError, match="at least one"):
        circuit_graph(circuit, pairs=[])
    with pytest.raises(UnknownNameError, match="did you mean 'facts'"):
        circuit_graph(circuit, untold=[("r1", "fact")])
    with pytest.raises(ConfigError, match="max_blocks"):
        circuit_graph(circuit, max_blocks=0)


# --- heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [None, "LN", "RMS"])
@pytest.mark.parametrize("most", [1, 2, 9])
def test_a_head_graph_sums_to_the_attribution(norm, most):
    model = hooked_models.hooked_transformer(norm, n_layers=2, attn_only=False)
    prompt, at = [3, 4, 5, 3, 9], {"layer": 1, "head": 2}
    graph = head_graph(model, prompt, 7, 8, **at, max_blocks=most, labels=hooked_models.WORDS)
    found = attribute_model(model, prompt, 7, 8, **at, labels=hooked_models.WORDS)
    assert graph.total == pytest.approx(found.total, abs=1e-10)
    for t, value in enumerate(found.by_position):
        assert graph.through(f"token {t}") == pytest.approx(value, abs=1e-10)
    assert sum(n.kind == "ov_block" for n in graph.nodes) == min(most + 1, 3)
    assert graph.fingerprint == found.fingerprint


def test_blocks_of_a_head_are_projections_on_its_own_singular_directions():
    model = hooked_models.hooked_transformer(None)
    graph = head_graph(model, [3, 4], 7, layer=0, head=1, tolerance=0.0, max_blocks=3)
    _, cache = model.run_with_cache(torch.tensor([[3, 4]]))
    pattern, v = cache["pattern", 0][0, 1, -1].numpy(), cache["v", 0][0, :, 1].numpy()
    _, s, Vt = np.linalg.svd((model.W_V[0, 1] @ model.W_O[0, 1]).numpy())
    assert head_spectrum(model, 0, 1, 0.0).values == pytest.approx(s[:3])
    written = pattern[:, None] * (v @ model.W_O[0, 1].numpy())
    for k in range(3):
        by_hand = written @ Vt[k] * (Vt[k] @ model.W_U[:, 7].numpy())
        for t in range(2):
            edge = graph.edge(f"attention {t}", f"block {k}")
            assert edge.contribution == pytest.approx(by_hand[t], abs=1e-10)


def test_a_bias_that_no_block_spans_has_a_node_of_its_own():
    model = hooked_models.hooked_transformer(None)
    model.blocks[0].attn.W_V[1, :, 2] = 0
    graph = head_graph(model, [3, 4], 7, layer=0, head=1, tolerance=0.0, max_blocks=9)
    labels = [n.label for n in graph.nodes if n.kind == "ov_block"]
    assert len(labels) == 3
    assert labels[-1] == "outside\nall blocks"
    assert graph.total == pytest.approx(attribute_model(model, [3, 4], 7, layer=0, head=1).total)


@pytest.mark.slow
def test_a_head_of_a_bridge():
    model = hooked_models.bridge(hooked_models.hugging_face_model("Llama", attention_bias=True))
    graph = head_graph(model, ["w1", "w2", "w3"], "w4", "w5", layer=1, head=4, max_blocks=2)
    found = attribute_model(model, ["w1", "w2", "w3"], "w4", "w5", layer=1, head=4)
    assert graph.total == pytest.approx(found.total)
    with pytest.raises(UnknownNameError):
        head_graph(model, ["w1", "w99"], "w4", layer=1, head=4)
    with pytest.raises(ModelError, match="head must be"):
        head_graph(model, ["w1"], "w4", layer=1, head=6)
