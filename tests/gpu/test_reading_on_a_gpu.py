"""Circuits, attribution, interventions and discovery on a GPU against the same on the CPU."""

import copy
from dataclasses import asdict
from typing import Any

import numpy as np
import on_a_gpu
import pytest
import torch
from on_a_gpu import DEVICE, assert_close

from ocr_interp import FactRecallTask, ModelConfig, OVCircuit, TrainConfig, attribute, build_model, train
from ocr_interp.ablation import (
    Edges,
    Examples,
    Mean,
    Patch,
    Path,
    Resample,
    Site,
    Subspace,
    Zero,
    ablated,
    run_ablation_study,
    task_examples,
)
from ocr_interp.circuits import Positions, QKCircuit, composition, direct_attribution
from ocr_interp.comparison import compare_models
from ocr_interp.discovery import Contrast, attribute_edges, evaluate_circuit, find_circuit, patch_every_edge
from ocr_interp.graphs import head_graph

pytestmark = on_a_gpu.MARKS

TASK = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
RECIPE = TrainConfig(steps=40, log_every=40, lr=0.02, data="noise_free", device="cpu")


# --- the hooked model of a run --------------------------------------------------------------------


@pytest.fixture(scope="module")
def run():
    return train(TASK, ModelConfig(dtype="float64"), RECIPE, progress=False)


@pytest.fixture(scope="module")
def hooked(run):
    return build_model(TASK, run.config.model, device=DEVICE, weights=run.weights)


def test_the_hooked_model_answers_as_on_the_cpu(run, hooked):
    tokens = task_examples(TASK, False, 0, 1).tokens
    assert hooked.W_V.device.type == DEVICE
    assert_close(hooked(tokens.to(DEVICE)).detach(), run.model(tokens).detach())


def test_circuit_and_attribution_of_a_runs_model(run, hooked):
    tokens = TASK.tokens("s1", "r2", "EOS")
    sets: dict[str, Any] = {
        "inputs": [*TASK.labels[: TASK.n_inputs]],
        "outputs": [*TASK.labels[TASK.n_inputs :]],
    }
    ours, theirs = (OVCircuit.from_model(m, layer=0, head=0, **sets) for m in (hooked, run.model))
    assert_close(ours.W, theirs.W)
    assert_close(ours.spectrum().values, theirs.spectrum().values)
    pair = ("c0", "c1")
    mine, yours = (attribute(model, [*map(int, tokens)], *pair) for model in (hooked, run.model))
    assert_close(mine.contributions, yours.contributions)
    assert_close(mine.total, yours.total)


def test_a_study_of_a_runs_model(run, hooked):
    specs = {
        "relation": Zero().at(Site.at("pattern", layer=0, tokens=["r2"])),
        "path": Zero().at(Path(("s0",), layer=0, head=0)),
        "resampled": Resample(seed=1).at(Site.at("v", layer=0, tokens=["s1", "s2"])),
    }
    examples = task_examples(TASK, False, 0, 4)
    ours, theirs = (
        run_ablation_study(model, specs, examples=examples).table for model in (hooked, run.model)
    )
    assert_close(ours.drop(columns="study"), theirs.drop(columns="study"))


# --- any model ------------------------------------------------------------------------------------

PROMPTS = torch.tensor([[3, 1, 4, 1, 5], [2, 7, 1, 8, 2], [6, 6, 2, 6, 0]])
DONORS = torch.tensor([[3, 9, 4, 1, 5], [2, 9, 1, 8, 2], [6, 9, 2, 6, 0]])
SETS: dict[str, Any] = {
    "inputs": {"names": range(3, 9), "verbs": [9, 10]},
    "outputs": {"a": range(12, 16), "b": [20, 21]},
}


@pytest.fixture(scope="module", params=["LN", "RMS", None])
def pair(request):
    """A small transformer with MLPs, on the device and on the CPU."""
    import hooked_models

    model = hooked_models.hooked_transformer(request.param, n_layers=2, attn_only=False)
    moved = copy.deepcopy(model).to(DEVICE)
    assert moved.W_E.device.type == DEVICE
    return moved, model


@pytest.fixture(scope="module")
def bridges():
    """A tiny Llama with rotary positions and grouped heads, bridged on the device and on the CPU."""
    import hooked_models
    from transformer_lens.model_bridge import TransformerBridge

    llama = hooked_models.hugging_face_model()

    def bridged(where):
        return TransformerBridge.boot_transformers(
            "tiny",
            hf_model=copy.deepcopy(llama).to(where),  # the bridge leaves a given model where it is
            tokenizer=hooked_models.tokenizer(),
            device=where,
            dtype=torch.float64,
        )

    return bridged(DEVICE), bridged("cpu")


def both(pair, call):
    return [call(model) for model in pair]


def test_circuits_of_any_model(pair):
    ours, theirs = both(pair, lambda model: OVCircuit.from_model(model, layer=1, head=2, **SETS))
    assert_close(ours.W, theirs.W)
    assert_close(ours.bias, theirs.bias)
    assert_close(ours.spectrum().values, theirs.spectrum().values)
    assert ours.provenance.fingerprint == theirs.provenance.fingerprint
    at: dict[str, Any] = {"queries": range(3, 9), "keys": [9, 10, 11]}
    assert_close(*(qk.W for qk in both(pair, lambda m: QKCircuit.from_model(m, layer=0, head=1, **at))))
    places: dict[str, Any] = {"queries": Positions(range(4)), "keys": Positions(range(4))}
    assert_close(*(qk.W for qk in both(pair, lambda m: QKCircuit.from_model(m, layer=0, head=1, **places))))


def test_composition_and_attribution_of_any_model(pair):
    ours, theirs = both(pair, composition)
    assert_close(ours.scores, theirs.scores)
    assert_close(ours.deviations, theirs.deviations, rtol=1e-6, atol=1e-8)
    asked: dict[str, Any] = {"by_position": True, "blocks": [(1, 2)], "neurons": [0]}
    whole = both(pair, lambda m: direct_attribution(m, PROMPTS, [12, 13, 14], [[20], [21], [20]], **asked))
    for name in ("contributions", "totals", "heads_by_position"):
        assert_close(*(getattr(each, name) for each in whole))
    assert_close(*(each.blocks[0].table() for each in whole), rtol=1e-6, atol=1e-8)
    assert_close(*(each.neurons[0].table() for each in whole))
    found = both(pair, lambda m: attribute(m, [3, 5, 9], 12, 20, layer=1, head=2))
    assert_close(*(each.contributions for each in found))
    assert_close(*(each.total for each in found))


def test_head_graphs_and_comparisons_of_any_model(pair):
    graphs = both(pair, lambda m: head_graph(m, [3, 5, 9], 12, 20, layer=1, head=2))
    assert [node.name for node in graphs[0].nodes] == [node.name for node in graphs[1].nodes]
    assert_close(*([edge.contribution for edge in graph.edges] for graph in graphs))

    def compared(model):
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.blocks[1].attn.W_O[2] *= 1.5
        return compare_models(model, other, **SETS)

    changes = both(pair, compared)
    assert changes[0].circuits.keys() == changes[1].circuits.keys()
    assert_close(*([unit.tokens for unit in each.units] for each in changes))


def specs():
    reference = DONORS
    return {
        "head": Zero().at(Site.at("z", layer=0, heads=[1])),
        "word": Zero().at(Site.at("v", layer=1, tokens=[1])),
        "mean": Mean(reference).at(Site.at("z", layer=0)),
        "patch": Patch(donor=DONORS).at(Site.at("resid_pre", layer=1, positions=[1])),
        "resampled": Resample().at(Site.at("resid_pre", layer=1, positions=[0])),
        "path": Zero().at(Path((1, 3), layer=1, head=2)),
        "subspace": Subspace(torch.eye(12, 2, dtype=torch.float64)).at(Site.at("resid_post", layer=0)),
    }


def test_interventions_and_studies_of_any_model(pair):
    for name, intervention in specs().items():
        answers = []
        for model in pair:
            tokens = PROMPTS.to(model.W_E.device)
            plain = model(tokens)
            with ablated(model, intervention):
                answers.append(model(tokens))
            assert not torch.equal(plain, answers[-1]), name
        assert_close(*answers)
    examples = Examples(PROMPTS, torch.tensor([12, 13, 14]), ("seen", "new", "new"))
    tables = both(
        pair, lambda model: run_ablation_study(model, specs(), examples=examples, seeds=range(2)).table
    )
    assert_close(*(table.drop(columns="study") for table in tables))


def test_edges_as_interventions(pair):
    answers = []
    for model in pair:
        with ablated(model, Patch(donor=DONORS).at(Edges(["a0.h1->a1.h2<k>", "m0->logits"]))):
            answers.append(model(PROMPTS.to(model.W_E.device)))
    assert_close(*answers)
    assert not torch.equal(answers[1], pair[1](PROMPTS))


@pytest.mark.parametrize("ablation", ["donor", "zero", "mean"])
def test_discovery_in_any_model(pair, ablation):
    def contrast(model):
        return Contrast.of(model, PROMPTS, DONORS, 12, 20)

    scores = both(pair, lambda model: attribute_edges(model, contrast(model), ablation=ablation))
    assert_close(*(each.scores for each in scores))
    exact = both(pair, lambda model: patch_every_edge(model, contrast(model), ablation=ablation))
    assert_close(*(each.scores for each in exact))
    for of, size in (("edges", 15), ("nodes", 4)):

        def found(model, of=of, size=size):
            return find_circuit(model, contrast(model), size=size, of=of, ablation=ablation)

        circuits = both(pair, found)
        np.testing.assert_array_equal(circuits[0].mask, circuits[1].mask)
        assert circuits[0].mask.any()

        def evaluated(model, circuit=circuits[1]):
            return evaluate_circuit(model, circuit, contrast(model), ablation=ablation, random_circuits=3)

        ours, theirs = both(pair, evaluated)
        assert_close(asdict(ours), asdict(theirs), rtol=1e-7, atol=1e-9)


def test_a_bridge_is_read_as_on_the_cpu(bridges):
    """Bridges compute norms in single precision whatever the dtype of the model."""
    assert bridges[0].W_E.device.type == DEVICE
    ours, theirs = both(bridges, lambda m: OVCircuit.from_model(m, layer=1, head=2, **SETS))
    assert_close(ours.W, theirs.W, rtol=1e-5, atol=1e-6)
    at: dict[str, Any] = {"queries": range(3, 9), "keys": [9, 10, 11], "distance": 2}
    scores = both(bridges, lambda m: QKCircuit.from_model(m, layer=0, head=1, **at))
    assert_close(*(each.W for each in scores), rtol=1e-5, atol=1e-6)
    whole = both(bridges, lambda m: direct_attribution(m, PROMPTS, [12, 13, 14], by_position=True))
    assert_close(*(each.contributions for each in whole), rtol=1e-4, atol=1e-5)
    found = both(bridges, lambda m: attribute(m, [3, 5, 9], 12, 20, layer=1, head=2))
    assert_close(*(each.contributions for each in found), rtol=1e-4, atol=1e-5)
    edges = both(bridges, lambda m: attribute_edges(m, Contrast.of(m, PROMPTS, DONORS, 12, 20)))
    assert_close(*(each.scores for each in edges), rtol=1e-4, atol=1e-5)
    specs = {
        "head": Zero().at(Site.at("z", layer=0, heads=[1])),
        "path": Zero().at(Path((1, 3), layer=1, head=2)),
        "mean": Mean(DONORS).at(Site.at("resid_pre", layer=1)),
    }
    mask = torch.ones_like(PROMPTS)
    mask[0, -1] = mask[2, -2:] = 0
    examples = Examples(PROMPTS, torch.tensor([12, 13, 14]), attention_mask=mask)
    studies = both(bridges, lambda m: run_ablation_study(m, specs, examples=examples, seeds=range(2)).table)
    assert_close(*(table.drop(columns="study") for table in studies), rtol=1e-4, atol=1e-5)
