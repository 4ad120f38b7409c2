"""Edge attribution: gradients against differences, completeness of the integral, exact ablation, exchange."""

import json

import dense_model
import hooked_models
import numpy as np
import pandas as pd
import pytest
import torch

from ocr_interp.ablation import Edges, Patch, Resample, Zero, ablated
from ocr_interp.discovery import (
    Contrast,
    EdgeScores,
    attribute_edges,
    circuit_as_graph,
    evaluate_circuit,
    faithfulness_of,
    find_circuit,
    from_eap_ig,
    patch_every_edge,
    to_auto_circuit,
    to_eap_ig,
)
from ocr_interp.discovery.paths import largest_live, live
from ocr_interp.discovery.runner import ABLATIONS, CircuitRunner
from ocr_interp.errors import ConfigError, ModelError, UnknownNameError, WeightsError
from ocr_interp.graphs import CircuitGraph
from ocr_interp.stream.checks import stream_of
from ocr_interp.stream.editing import EdgeEdit
from ocr_interp.stream.nodes import StreamNodes
from ocr_interp.viz.diagram.dot import to_dot

DRAWN = torch.Generator().manual_seed(0)
PROMPTS, DONORS = torch.randint(0, 32, (2, 6, 5), generator=DRAWN)
SIZES = [(None, None), ("LN", None), ("RMS", 2)]


def made(norm="LN", kv_heads=None, attn_only=False):
    return hooked_models.hooked_transformer(norm, 2, attn_only, kv_heads)


def contrast_of(model, **fields):
    return Contrast.of(model, PROMPTS, DONORS, 3, 4, **fields)


@pytest.mark.parametrize(("norm", "kv_heads"), SIZES)
def test_scores_are_derivatives_of_the_measure(norm, kv_heads):
    """A small part of each edge's change, patched for real: the central difference is EAP's score."""
    model = made(norm, kv_heads)
    contrast = contrast_of(model)
    scores = attribute_edges(model, contrast, steps=None)
    runner = CircuitRunner(model, contrast)
    nodes, rng, small = runner.stream.nodes, np.random.default_rng(0), 1e-5
    for edge in rng.choice(nodes.edges, 25, replace=False):
        mask, found = nodes.mask([edge]), []
        for part in (small, -small):

            def instead(which, written, part=part):
                return written + part * (runner.other[:, :, which] - written)

            with torch.no_grad(), EdgeEdit(runner.stream, mask, instead).applied():
                found.append(float(contrast.values(model(PROMPTS)).mean()))
        assert scores[edge] == pytest.approx((found[1] - found[0]) / (2 * small), rel=1e-5, abs=1e-8), edge


@pytest.mark.slow
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_the_integral_is_complete(ablation):
    """Scores of the input's edges sum to the change of the measure along the path, to 1/steps².

    Not to zero through a norm: it is steep where the stream is small, and takes many more steps.
    """
    model = made(None if ablation == "zero" else "LN")
    contrast = contrast_of(model)
    runner = CircuitRunner(model, contrast, ablation)
    from_input = np.zeros_like(runner.stream.nodes.allowed)
    from_input[0] = True
    edit = EdgeEdit(runner.stream, from_input, lambda which, written: runner.other[:, :, which])
    with torch.no_grad(), edit.applied():  # the input alone is replaced, everything else follows
        start = float(contrast.values(model(PROMPTS)).mean())
    errors = []
    for steps in (8, 32):
        scores = attribute_edges(model, contrast, steps=steps, ablation=ablation)
        errors.append(abs(scores.scores[0].sum() - (scores.full - start)))
    assert errors[1] < 5e-3
    assert errors[1] < errors[0] / 4


def test_exact_effects_are_those_of_the_intervention():
    model = made()
    contrast = contrast_of(model)
    exact = patch_every_edge(model, contrast)
    assert exact.method == "exact"
    for edge in ("input->a0.h1<k>", "a0.h2->m1", "m1->logits", "a0.h3->a1.h0<v>"):
        with torch.no_grad(), ablated(model, Patch(donor=DONORS).at(Edges(edge))):
            found = float(contrast.values(model(PROMPTS)).mean())
        assert exact[edge] == pytest.approx(exact.full - found, abs=1e-12)


def test_a_linear_path_is_scored_exactly():
    """Without norms the edges into the logits are linear: estimates and exact effects agree."""
    model = made(None)
    contrast = contrast_of(model)
    exact, found = patch_every_edge(model, contrast), attribute_edges(model, contrast, steps=None)
    np.testing.assert_allclose(found.scores[:, -1], exact.scores[:, -1], atol=1e-11)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_the_full_graph_is_one_and_the_empty_one_zero_exactly(ablation):
    model = made()
    contrast = Contrast.of(model, PROMPTS, DONORS, [3, 5, 7, 9, 11, 13], 4)
    runner = CircuitRunner(model, contrast, ablation)
    every = runner.stream.nodes.allowed
    assert runner.faithfulness([every, every & ~every]).tolist() == [1.0, 0.0]
    with torch.no_grad():
        full = contrast.values(model(PROMPTS))
    torch.testing.assert_close(runner.full, full, rtol=0, atol=0)
    if ablation == "donor":
        with torch.no_grad():
            torch.testing.assert_close(runner.empty, contrast.values(model(DONORS)), rtol=0, atol=1e-11)


def test_circuits_are_measured_as_by_hand():
    """All edges but a circuit's patched, norms computed anew, in a dense model; several in one pass."""
    model = made()
    contrast = contrast_of(model)
    runner = CircuitRunner(model, contrast)
    nodes, rng = runner.stream.nodes, np.random.default_rng(0)
    masks = [(rng.random(nodes.allowed.shape) < 0.5) & nodes.allowed for _ in range(5)]
    found = runner.measured(masks)
    with torch.no_grad():
        _, donor = dense_model.forward(model, DONORS)
        for mask, values in zip(masks, found, strict=True):
            logits, _ = dense_model.forward(model, PROMPTS, set(nodes.names(nodes.allowed & ~mask)), donor)
            torch.testing.assert_close(values, contrast.values(logits), rtol=0, atol=1e-11)
    with torch.no_grad(), ablated(model, Patch(donor=DONORS).at(Edges(nodes.names(masks[0]), outside=True))):
        torch.testing.assert_close(contrast.values(model(PROMPTS)), found[0], rtol=0, atol=1e-11)


def test_every_ablation_is_that_of_its_edit():
    model = made()
    contrast = contrast_of(model)
    nodes = stream_of(model).nodes
    kept = live(nodes, np.random.default_rng(1).random(nodes.allowed.shape) < 0.6)
    outside = Edges(nodes.names(kept), outside=True)
    for ablation, edit in (("zero", Zero()), ("resample", Resample(0))):
        found = CircuitRunner(model, contrast, ablation).measured([kept])[0]
        if ablation == "resample":  # both draw the same other prompts; the edit takes what these write then
            assert not torch.equal(
                found, CircuitRunner(model, contrast, ablation, seed=1).measured([kept])[0]
            )
            continue
        with torch.no_grad(), ablated(model, edit.at(outside)):
            torch.testing.assert_close(found, contrast.values(model(PROMPTS)), rtol=0, atol=1e-11)


def test_live_edges_lie_on_paths():
    nodes = StreamNodes(2, 2, 2, (True, False))
    dead = ["a0.h0->a1.h0<q>", "input->m0"]
    path = ["input->a0.h1<v>", "a0.h1->a1.h1<k>", "a1.h1->logits"]
    assert nodes.names(live(nodes, nodes.mask([*dead, *path]))) == nodes.names(nodes.mask(path))
    sizes = np.random.default_rng(0).random(nodes.allowed.shape)
    for most in range(nodes.n_edges + 1):
        found = largest_live(nodes, sizes, most)
        assert found.sum() <= most
        assert (live(nodes, found) == found).all()
    assert found.sum() == nodes.n_edges


@pytest.mark.slow
def test_find_and_evaluate():
    model = made()
    contrast = contrast_of(model)
    nodes = stream_of(model).nodes
    circuit = find_circuit(model, contrast, size=30)
    assert len(circuit) <= 30
    assert len(circuit.table()) == len(circuit)
    with torch.no_grad():
        before = model(PROMPTS)
    report = evaluate_circuit(model, circuit, contrast, random_circuits=3)
    assert torch.equal(model(PROMPTS), before)
    assert report.faithfulness == pytest.approx(faithfulness_of(model, [circuit], contrast)[0], abs=1e-12)
    kinds = {name: of & circuit.mask for name, of in nodes.kinds.items()}
    assert sum(int(each.sum()) for each in kinds.values()) == len(circuit)
    assert report.random_sizes["same kinds"] == (len(circuit),) * 3
    assert all(size <= len(circuit) for size in report.random_sizes["connected"])
    assert report.falls.shape == (len(circuit),)
    assert "faithfulness" in report.summary()
    again = evaluate_circuit(model, circuit, contrast, random_circuits=3)
    assert again.table().equals(report.table())
    for pruning in ("scores", "removal"):
        found = find_circuit(model, contrast, faithfulness=0.8, pruning=pruning)
        assert faithfulness_of(model, [found], contrast)[0] >= 0.8
    best = {}
    for pruning, kept in (("removal", 30), ("search", 95)):
        pruned = find_circuit(model, contrast, size=kept, pruning=pruning)
        assert len(pruned) <= kept
        assert pruning in pruned.method
        best[pruning] = faithfulness_of(model, [pruned], contrast)[0]
    assert max(best.values()) >= report.faithfulness


def test_graphs_and_files():
    circuit = find_circuit(made(), contrast_of(made()), size=30)
    graph = circuit_as_graph(circuit)
    ends = {(edge.source, edge.target): edge.contribution for edge in graph.edges}
    for edge in circuit.edges:
        assert ends[tuple(edge.split("->"))] == circuit.scores[circuit.nodes.mask([edge])].sum()
    assert CircuitGraph.from_json(graph.to_json()) == graph
    assert '"version": 2' in graph.to_json()
    assert "rank=same" in to_dot(graph)
    assert len(circuit_as_graph(circuit, inputs=False).nodes) < len(graph.nodes)


@pytest.mark.parametrize("kv_heads", [None, 2])
def test_eap_ig_there_and_back(kv_heads):
    model = made(kv_heads=kv_heads)
    circuit = find_circuit(model, contrast_of(model), size=30)
    text = to_eap_ig(circuit, 12)
    content = json.loads(text)
    assert content["cfg"] == {"n_layers": 2, "n_heads": 4, "parallel_attn_mlp": False, "d_model": 12}
    # The names that EAP-IG's Graph.from_model makes of this configuration.
    layers = [[f"a{layer}.h{head}" for head in range(4)] for layer in range(2)]
    wanted, before = set(), ["input"]
    for layer, heads in enumerate(layers):
        wanted |= {f"{s}->{h}<{part}>" for s in before for h in heads for part in "qkv"}
        before += heads
        wanted |= {f"{s}->m{layer}" for s in before}
        before.append(f"m{layer}")
    wanted |= {f"{s}->logits" for s in before}
    assert set(content["edges"]) == wanted
    assert set(content["nodes"]) == {*before, "logits"}
    assert all(set(entry) == {"score", "in_graph"} for entry in content["edges"].values())
    back = from_eap_ig(text, circuit.nodes)
    assert (back.mask == circuit.mask).all()
    np.testing.assert_allclose(back.scores, circuit.scores, rtol=1e-15)
    if kv_heads is None:
        assert from_eap_ig(text).nodes == circuit.nodes


def test_auto_circuit_tables_have_its_shapes():
    circuit = find_circuit(made(), contrast_of(made()), size=30)
    content = {name: np.array(rows) for name, rows in json.loads(to_auto_circuit(circuit)).items()}
    shapes = {name: rows.shape for name, rows in content.items()}
    assert shapes["blocks.0.hook_q_input"] == (4, 1)
    assert shapes["blocks.1.hook_v_input"] == (4, 6)
    assert shapes["blocks.0.hook_mlp_in"] == (5,)
    assert shapes["blocks.1.hook_resid_post"] == (11,)
    assert sum(int((rows != 0).sum()) for rows in content.values()) == len(circuit)
    edge = "a0.h2->a1.h3<k>"
    everything = circuit.scores[circuit.nodes.mask([edge])].sum()
    inside = edge in circuit.edges
    assert content["blocks.1.hook_k_input"][3, 3] == (everything if inside else 0)
    grouped = made(kv_heads=2)
    with pytest.raises(ConfigError, match="to_eap_ig"):
        to_auto_circuit(find_circuit(grouped, contrast_of(grouped), size=10))


def test_bad_files():
    text = to_eap_ig(find_circuit(made(), contrast_of(made()), size=10))
    content = json.loads(text)
    content["edges"]["a9.h9->logits"] = {"score": 0.0, "in_graph": True}
    cases = {
        "no json": "EAP-IG's JSON",
        "{}": "cfg, nodes and edges",
        text.replace('"n_layers": 2', '"n_layers": -2'): "at least 1",
        text.replace('"in_graph": false}}', '"in_graph": 3}}'): "true or false",
        json.dumps(content): "none of the model's",
    }
    for bad, match in cases.items():
        with pytest.raises(ConfigError, match=match):
            from_eap_ig(bad)


def test_contrasts_in_every_form():
    bridge = hooked_models.bridge(hooked_models.hugging_face_model("Llama"))
    ids, others = torch.tensor([[3, 4, 5], [6, 7, 8]]), torch.tensor([[9, 10, 11], [3, 4, 9]])
    words, donors = (["w1 w2 w3", "w4 w5 w6"], ["w7 w8 w9", "w1 w2 w7"])
    wanted = Contrast(ids, others, torch.tensor([3, 4]), torch.tensor([5, 5]))
    table = pd.DataFrame({"prompt": words, "donor": donors, "answer": ["w1", "w2"], "against": ["w3", "w3"]})
    forms = [
        (ids, others, [3, 4], 5),
        (ids.numpy(), others.tolist(), np.array([3, 4]), [5, 5]),
        (words, tuple(donors), ["w1", "w2"], "w3"),
        (table["prompt"], table["donor"], table["answer"], table["against"]),
    ]
    for form in forms:
        found = Contrast.of(bridge, *form)
        for name in ("prompts", "donors", "answer", "against"):
            assert torch.equal(getattr(found, name), getattr(wanted, name)), (form, name)
    assert attribute_edges(bridge, wanted).nodes.n_kv_heads == 2


def test_measures():
    model = made()
    with torch.no_grad():
        logits = model(PROMPTS)
    own = logits[:, -1, 3]
    of = {"log_probability": logits[:, -1].log_softmax(-1)[:, 3], "logit_difference": own - logits[:, -1, 4]}
    for measure, wanted in of.items():
        torch.testing.assert_close(contrast_of(model, measure=measure).values(logits), wanted)
    alone = Contrast.of(model, PROMPTS, DONORS, 3)
    others = torch.cat([logits[:, -1, :3], logits[:, -1, 4:]], dim=1).mean(1)
    torch.testing.assert_close(alone.values(logits), own - others)
    custom = contrast_of(model, measure=lambda logits, contrast: logits[:, 0])
    torch.testing.assert_close(custom.values(logits), logits[:, -1, 0])
    early = contrast_of(model, query=1)
    torch.testing.assert_close(early.values(logits), logits[:, 1, 3] - logits[:, 1, 4])


@pytest.mark.slow
def test_bad_input():
    model = made()
    contrast = contrast_of(model)
    same, alone = (Contrast.of(model, PROMPTS, given, 3) for given in (PROMPTS, None))
    silent = contrast_of(model, measure=lambda logits, contrast: logits[:, 0] * 0 + 1)
    broken_measure = contrast_of(model, measure=lambda logits, contrast: logits[:, 0] * torch.nan)
    earlier = Contrast.of(model, PROMPTS, torch.cat([DONORS[:, :-1], PROMPTS[:, -1:]], 1), 3, 4)
    found = find_circuit(model, contrast, size=10)
    cases = [
        (lambda: Contrast.of(model, PROMPTS, DONORS[:3], 3), ConfigError, "donors must be one for each"),
        (lambda: Contrast.of(model, PROMPTS, DONORS, 3, 3), ConfigError, "another token than the answer"),
        (lambda: Contrast.of(model, PROMPTS, DONORS, 99), ModelError, "0..31"),
        (lambda: Contrast.of(model, PROMPTS + 40, DONORS, 3), ModelError, "prompts must be token ids"),
        (lambda: contrast_of(model, measure="logit_diff"), UnknownNameError, "did you mean"),
        (lambda: contrast_of(model, query=9), ConfigError, "query must be positions"),
        (lambda: attribute_edges(model, contrast, steps=0), ConfigError, "steps must be >= 1"),
        (lambda: attribute_edges(model, contrast, ablation="noise"), UnknownNameError, "unknown ablation"),
        (lambda: attribute_edges(model, alone), ConfigError, "needs a contrast"),
        (lambda: find_circuit(model, contrast), ConfigError, "either size or faithfulness"),
        (lambda: find_circuit(model, contrast, size=0), ConfigError, "size must be >= 1"),
        (lambda: find_circuit(model, contrast, size=999), ConfigError, "size must be <= 110"),
        (lambda: find_circuit(model, contrast, faithfulness=50.0), ConfigError, "> 0 and <= 1"),
        (lambda: find_circuit(model, contrast, faithfulness=0.0), ConfigError, "> 0 and <= 1"),
        (lambda: find_circuit(model, contrast, faithfulness=float("nan")), ConfigError, "> 0 and <= 1"),
        (lambda: find_circuit(model, contrast, faithfulness=0.9, pruning="search"), ConfigError, "a size"),
        (lambda: find_circuit(model, same, faithfulness=0.9), ConfigError, "must differ in some token"),
        (lambda: evaluate_circuit(model, found, same), ConfigError, "must differ in some token"),
        (lambda: evaluate_circuit(model, found, silent), ConfigError, "must change the measure"),
        (lambda: evaluate_circuit(model, found, broken_measure), ConfigError, "must be finite"),
        (lambda: find_circuit(model, earlier, size=1), ConfigError, "room for a path"),
    ]
    for call, error, match in cases:
        with pytest.raises(error, match=match):
            call()
    with pytest.raises(ModelError, match="of this model"):
        evaluate_circuit(made(attn_only=True), found, contrast)
    broken = made()
    broken.blocks[0].attn.W_O.data[0, 0, 0] = torch.nan
    with pytest.raises(WeightsError, match="finite activations"):
        attribute_edges(broken, contrast)


def test_scores_are_kept_apart_from_the_model():
    model = made()
    scores = attribute_edges(model, contrast_of(model))
    assert isinstance(scores, EdgeScores)
    assert len(scores.table()) == scores.nodes.n_edges
    assert not any(point.fwd_hooks for point in model.hook_dict.values())
    assert not any(parameter.grad is not None for parameter in model.parameters())
