"""Circuits of nodes: against TransformerLens' hooks that patch all other heads and MLPs, and by hand."""

import hooked_models
import numpy as np
import pytest
import torch

from ocr_interp.discovery import Contrast, attribute_edges, evaluate_circuit, faithfulness_of, find_circuit
from ocr_interp.discovery.evaluation import NODES, random_like
from ocr_interp.discovery.node_sets import edges_among, random_nodes, top_nodes
from ocr_interp.discovery.runner import CircuitRunner
from ocr_interp.errors import ConfigError, WeightsError
from ocr_interp.stream.nodes import StreamNodes

PROMPTS = torch.tensor([[3, 1, 4, 1, 5], [2, 7, 1, 8, 2], [6, 6, 2, 6, 0]])
AT_THE_QUERY, BEFORE_IT = PROMPTS.clone(), PROMPTS.clone()
AT_THE_QUERY[:, -1] = 9
BEFORE_IT[:, 1] = 9


def made(kv_heads=None):
    return hooked_models.hooked_transformer("LN", 2, False, kv_heads)


def patched(model, contrast, kept):
    """The measure with what all heads and MLPs but the kept ones write taken from the donors, by hooks."""
    with torch.no_grad():
        _, cache = model.run_with_cache(contrast.donors)

    def heads(value, hook):
        others = [h for h in range(value.shape[2]) if f"a{hook.layer()}.h{h}" not in kept]
        value[:, :, others] = cache[hook.name][:, :, others]
        return value

    def mlp(value, hook):
        return value if f"m{hook.layer()}" in kept else cache[hook.name]

    hooks = [(f"blocks.{layer}.attn.hook_z", heads) for layer in range(model.cfg.n_layers)]
    hooks += [(f"blocks.{layer}.hook_mlp_out", mlp) for layer in range(model.cfg.n_layers)]
    with torch.no_grad():
        return contrast.values(model.run_with_hooks(contrast.prompts, fwd_hooks=hooks))


@pytest.mark.parametrize("kv_heads", [None, 2])
@pytest.mark.parametrize("donors", [AT_THE_QUERY, BEFORE_IT])
def test_all_other_heads_and_mlps_are_patched(kv_heads, donors):
    model = made(kv_heads)
    contrast = Contrast.of(model, PROMPTS, donors, 3, 4)
    runner = CircuitRunner(model, contrast)
    nodes, rng = runner.stream.nodes, np.random.default_rng(0)
    for count in (1, 3, 5, 8, 10):
        kept = 1 + rng.permutation(len(nodes.writers) - 1)[:count]
        mask = edges_among(nodes, kept, runner.at_query)
        wanted = patched(model, contrast, {nodes.writers[k] for k in kept})
        torch.testing.assert_close(runner.measured([mask])[0], wanted, rtol=0, atol=1e-11)


def test_nodes_are_ranked_by_the_sums_of_their_edges_to_first_order():
    """The derivative of the measure along what a head writes, from the prompt's to the donor's."""
    model = made()
    contrast = Contrast.of(model, PROMPTS, BEFORE_IT, 3, 4)
    scores = attribute_edges(model, contrast, steps=None)
    _, donor = model.run_with_cache(BEFORE_IT)
    for name, hook, pick in (
        ("a0.h2", "blocks.0.attn.hook_z", (slice(None), slice(None), 2)),
        ("m1", "blocks.1.hook_mlp_out", (slice(None),)),
    ):

        def along(t, hook_name=hook, pick=pick):
            def edit(value, hook):
                value = value.clone()
                value[pick] = (1 - t) * value[pick] + t * donor[hook_name][pick]
                return value

            with torch.no_grad():
                logits = model.run_with_hooks(PROMPTS, fwd_hooks=[(hook_name, edit)])
            return contrast.values(logits).mean().item()

        slope = (along(1e-5) - along(-1e-5)) / 2e-5
        writer = scores.nodes.writer_index[name]
        assert scores.scores[writer].sum() == pytest.approx(-slope, abs=1e-7)
    order = top_nodes(np.array([9.0, 1.0, -3.0, 0.0, 2.0]), 3)
    assert order.tolist() == [2, 4, 1]  # the input is none of them


def test_find_and_evaluate_beside_as_many_random_heads_and_mlps():
    model = made()
    contrast = Contrast.of(model, PROMPTS, BEFORE_IT, 3, 4)
    found = find_circuit(model, contrast, size=4, of="nodes", steps=3)
    assert found.of == "nodes"
    assert len(found.kept) <= 4
    table = found.node_table()
    assert set(table.node) == {found.nodes.writers[k] for k in found.kept}
    assert (table.score.abs().diff().dropna() <= 0).all()
    worth = evaluate_circuit(model, found, contrast, random_circuits=4)
    assert worth.faithfulness == pytest.approx(faithfulness_of(model, [found], contrast)[0], abs=1e-12)
    assert list(worth.random) == [NODES]
    assert worth.n_nodes == len(found.kept)
    assert worth.parts == tuple(found.nodes.writers[k] for k in found.kept)
    full, empty = worth.full, worth.empty
    for name, fall in zip(worth.parts, worth.falls, strict=True):
        rest = patched(model, contrast, set(worth.parts) - {name}).mean().item()
        assert worth.faithfulness - fall == pytest.approx((rest - empty) / (full - empty), abs=1e-10)
    assert f"{len(found.kept)} heads and MLPs" in worth.summary()
    assert f"{len(found.kept)} of 10 heads and MLPs" in repr(found)
    whole = find_circuit(model, contrast, size=10, of="nodes", steps=3)
    assert faithfulness_of(model, [whole], contrast)[0] == pytest.approx(1, abs=1e-10)
    enough = find_circuit(model, contrast, faithfulness=0.9, of="nodes", steps=3)
    assert faithfulness_of(model, [enough], contrast)[0] >= 0.9


@pytest.mark.parametrize("ablation", ["donor", "zero", "mean"])
def test_nodes_found_on_some_donors_are_measured_on_others_as_nodes(ablation):
    """Donors that differ before the query kill edges that are alive where donors differ at it."""
    model = made()
    found = find_circuit(model, Contrast.of(model, PROMPTS, BEFORE_IT, 3, 4), size=6, of="nodes", steps=3)
    elsewhere = Contrast.of(model, PROMPTS, AT_THE_QUERY, 3, 4)
    worth = evaluate_circuit(model, found, elsewhere, ablation=ablation, random_circuits=2)
    again = find_circuit(model, Contrast.of(model, PROMPTS, BEFORE_IT, 3, 4), size=10, of="nodes", steps=3)
    whole = faithfulness_of(model, [again], elsewhere, ablation=ablation)
    assert whole[0] == pytest.approx(1, abs=1e-9)
    if ablation == "donor":
        full, empty = worth.full, worth.empty
        names = {found.nodes.writers[k] for k in found.kept}
        by_hand = patched(model, elsewhere, names).mean().item()
        assert worth.faithfulness == pytest.approx((by_hand - empty) / (full - empty), abs=1e-10)
        rest = patched(model, elsewhere, set(found.nodes.writers) - names).mean().item()
        assert worth.without == pytest.approx((rest - empty) / (full - empty), abs=1e-10)


def test_scores_of_something_else_are_refused():
    model = made()
    contrast = Contrast.of(model, PROMPTS, BEFORE_IT, 3, 4)
    scores = attribute_edges(model, contrast, steps=None)
    find_circuit(model, contrast, size=5, of="nodes", scores=scores)
    other = hooked_models.hooked_transformer("LN", 2, False, seed=1)
    with pytest.raises(ConfigError, match="scores must be of this model"):
        find_circuit(other, contrast, size=5, scores=scores)
    with pytest.raises(ConfigError, match="the same ablation, 'zero', got 'donor'"):
        find_circuit(model, contrast, size=5, scores=scores, ablation="zero")
    at_query = Contrast.of(model, PROMPTS, AT_THE_QUERY, 3, 4)
    with pytest.raises(ConfigError, match="differ at the query as these do"):
        find_circuit(model, at_query, size=5, scores=scores)


def test_weights_that_are_nan_are_named():
    model = made()
    model.blocks[1].attn.W_V.data[0, 0, 0] = float("nan")
    with pytest.raises(WeightsError, match="finite activations"):
        CircuitRunner(model, Contrast.of(model, PROMPTS, BEFORE_IT, 3, 4))


def test_random_sets_have_as_many_heads_and_as_many_mlps():
    nodes = StreamNodes(3, 2, 1, (True, False, True), parallel=True)
    kept = [nodes.writer_index[name] for name in ("a0.h1", "m2", "a1.h0")]
    rng, seen = np.random.default_rng(0), set()
    for _ in range(200):
        names = [nodes.writers[k] for k in random_nodes(nodes, kept, rng)]
        assert sorted(name[0] for name in names) == ["a", "a", "m"]
        assert len(set(names)) == 3
        seen.update(names)
    assert seen == set(nodes.writers[1:])


def test_a_circuit_of_edges_keeps_its_controls():
    model = made()
    contrast = Contrast.of(model, PROMPTS, BEFORE_IT, 3, 4)
    found = find_circuit(model, contrast, size=20, steps=None)
    drawn = random_like(found, False, 2, np.random.default_rng(0))
    assert set(drawn) == {"same kinds", "connected"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 11}, "size must be <= 10"),
        ({"size": 0}, "size must be"),
        ({"size": 3, "pruning": "removal"}, "circuits of nodes are pruned by 'scores'"),
        ({"size": 3, "of": "heads"}, "of"),
    ],
)
def test_bad_input(options, message):
    model = made()
    contrast = Contrast.of(model, PROMPTS, BEFORE_IT, 3, 4)
    with pytest.raises(ConfigError, match=message):
        find_circuit(model, contrast, **({"of": "nodes", "steps": None} | options))
