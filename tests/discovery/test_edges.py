"""Path patching between any two nodes: by hand, every kind of edit, many edges, donors in every form."""

import dense_model
import hooked_models
import numpy as np
import pandas as pd
import pytest
import torch

from ocr_interp.ablation import (
    RANDOM,
    Draw,
    Edges,
    Examples,
    Mean,
    Patch,
    Resample,
    Site,
    Subspace,
    Zero,
    ablated,
    run_ablation_study,
)
from ocr_interp.errors import ModelError, UnknownNameError
from ocr_interp.stream.checks import stream_of

PROMPTS = torch.tensor([[3, 4, 5, 6, 9], [5, 5, 8, 2, 1]])
DONORS = torch.tensor([[7, 8, 9, 10, 11], [2, 3, 4, 20, 9]])
SIZES = [(None, None, 7), ("LN", None, 1), ("RMS", None, 7), ("LN", 2, 3)]


def made(norm="LN", kv_heads=None, attn_only=False):
    return hooked_models.hooked_transformer(norm, 2, attn_only, kv_heads)


def run(model, *interventions, tokens=PROMPTS):
    with torch.no_grad(), ablated(model, *interventions):
        return model(tokens)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "kv_heads", "every"), SIZES)
def test_every_single_edge_is_as_by_hand(norm, kv_heads, every):
    """All 110 edges of a model with two layers and MLPs, each by itself, in float64; some of other models."""
    model = made(norm, kv_heads)
    nodes = stream_of(model).nodes
    with torch.no_grad():
        base, _ = dense_model.forward(model, PROMPTS)
        torch.testing.assert_close(model(PROMPTS), base, rtol=0, atol=1e-12)
        _, donor = dense_model.forward(model, DONORS)
        for edge in nodes.edges[::every]:
            wanted, _ = dense_model.forward(model, PROMPTS, {edge}, donor)
            found = run(model, Patch(donor=DONORS).at(Edges(edge)))
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)
            assert not torch.equal(found, base), edge


@pytest.mark.parametrize("seed", range(3))
def test_many_edges_at_once_are_as_by_hand(seed):
    model = made()
    nodes = stream_of(model).nodes
    edges = np.random.default_rng(seed).choice(nodes.edges, 40, replace=False)
    with torch.no_grad():
        _, donor = dense_model.forward(model, DONORS)
        wanted, _ = dense_model.forward(model, PROMPTS, set(edges), donor)
    found = run(model, Patch(donor=DONORS).at(Edges(edges)))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)
    others = [edge for edge in nodes.edges if edge not in set(edges)]
    again = run(model, Patch(donor=DONORS).at(Edges(others, outside=True)))
    torch.testing.assert_close(again, wanted, rtol=0, atol=1e-11)


def test_all_edges_make_the_donor_and_no_model_is_changed():
    model = made()
    base = model(PROMPTS)
    found = run(model, Patch(donor=DONORS).at(Edges((), outside=True)))
    torch.testing.assert_close(found, model(DONORS), rtol=0, atol=1e-12)
    assert torch.equal(model(PROMPTS), base)
    assert not any(point.fwd_hooks for point in model.hook_dict.values())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not model.cfg.use_split_qkv_input
    assert not model.cfg.use_hook_mlp_in


def test_zero_mean_resample_and_subspace_are_as_by_hand():
    model = made()
    edges = ["a0.h1->a1.h3<k>", "m0->a1.h0<v>", "input->logits", "a1.h2->m1"]
    with torch.no_grad():
        _, clean = dense_model.forward(model, PROMPTS)
        _, other = dense_model.forward(model, DONORS)
    basis = torch.linalg.qr(torch.randn(12, 2, dtype=torch.float64, generator=torch.manual_seed(0)))[0]
    cases = {
        Zero(): {name: torch.zeros_like(value) for name, value in clean.items()},
        Mean(DONORS): {k: v.mean((0, 1), keepdim=True).expand_as(v) for k, v in other.items()},
        Mean(DONORS, by_position=True): {k: v.mean(0, keepdim=True).expand_as(v) for k, v in other.items()},
        Resample(3): {name: value.flip(0) for name, value in clean.items()},  # two prompts: the other one
    }
    for edit, values in cases.items():
        with torch.no_grad():
            wanted, _ = dense_model.forward(model, PROMPTS, set(edges), values)
        found = run(model, edit.at(Edges(edges)))
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)
    # A projection is of what is written in the same pass: with one edge no writer is changed.
    values = {name: value - value @ basis @ basis.mT for name, value in clean.items()}
    with torch.no_grad():
        wanted, _ = dense_model.forward(model, PROMPTS, {"a0.h1->a1.h3<k>"}, values)
    found = run(model, Subspace(basis).at(Edges("a0.h1->a1.h3<k>")))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)


def test_positions():
    model = made()
    edge, at = "input->a1.h0<q>", (-1,)
    found = run(model, Patch(donor=DONORS).at(Edges(edge, positions=at)))
    with torch.no_grad():
        _, clean = dense_model.forward(model, PROMPTS)
        _, donor = dense_model.forward(model, DONORS)
        mixed = {name: torch.cat([clean[name][:, :-1], donor[name][:, -1:]], 1) for name in donor}
        wanted, _ = dense_model.forward(model, PROMPTS, {edge}, mixed)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)
    with pytest.raises(ModelError, match=r"position must be in -5..4"):
        run(model, Zero().at(Edges(edge, positions=(7,))))


def test_padded_prompts_are_as_each_alone():
    model = made()
    padded = torch.tensor([[0, 0, 3, 4, 5], [5, 5, 8, 2, 1]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    what = Zero().at(Edges(["a0.h1->a1.h3", "input->m0"]))
    alone = run(model, what, tokens=torch.tensor([[3, 4, 5]]))
    with torch.no_grad(), ablated(model, what, attention_mask=mask):
        found = model(padded, attention_mask=mask)
    torch.testing.assert_close(found[0, 2:], alone[0], rtol=0, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Llama", "Qwen3", "GPTNeoX"])
def test_bridges_give_the_donor_and_agree_with_a_site(kind):
    """All edges out of one MLP are its output: the site's ablation, on rotary, grouped, parallel models."""
    bridge = hooked_models.bridge(hooked_models.hugging_face_model(kind))
    nodes = stream_of(bridge).nodes
    found = run(bridge, Patch(donor=DONORS).at(Edges((), outside=True)))
    torch.testing.assert_close(found, run(bridge, Patch(donor=DONORS).at(Site("blocks.0.hook_resid_pre"))))
    out = [edge for edge in nodes.edges if edge.startswith("m0->")]
    site = run(bridge, Zero().at(Site("blocks.0.hook_mlp_out")))
    # The norms inside compute in float32, and ours of the change in float64.
    torch.testing.assert_close(run(bridge, Zero().at(Edges(out))), site, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_donors_in_every_form():
    bridge = hooked_models.bridge(hooked_models.hugging_face_model("Llama"))
    words = [["w5", "w6", "w7"], ["w0", "w1", "w2"]]
    ids = torch.tensor([[7, 8, 9], [2, 3, 4]])
    prompts = torch.tensor([[3, 4, 5], [5, 5, 8]])
    texts = [" ".join(row) for row in words]
    forms = [
        ids,
        ids.numpy(),
        ids.tolist(),
        tuple(map(tuple, ids.tolist())),
        words,
        tuple(map(tuple, words)),
        texts,
        tuple(texts),
        pd.Series(texts),
        pd.Series(ids.tolist()),
        pd.DataFrame({"donor": texts})["donor"],
    ]
    edge = Edges("a0.h1->a1.kv1<k>")
    wanted = run(bridge, Patch(donor=ids).at(edge), tokens=prompts)
    for form in forms:
        assert torch.equal(run(bridge, Patch(donor=form).at(edge), tokens=prompts), wanted), form


def test_random_controls_have_as_many_edges_of_each_kind():
    model = made()
    nodes = stream_of(model).nodes
    where = Edges(["a0.h1->a1.h3<k>", "a0.h2->a1.h3<v>", "m0->logits"])
    draw = Draw.seeded(0, model, range(30), range(30), 5)
    control = Zero().at(where).controls(draw)[RANDOM].where
    masks = [nodes.mask(each.edges) for each in (where, control)]
    counts = [{kind: int((mask & of).sum()) for kind, of in nodes.kinds.items()} for mask in masks]
    assert counts[0] == counts[1]
    assert control.edges != where.edges
    assert sum(of.sum() for of in nodes.kinds.values()) == nodes.n_edges
    again = Zero().at(where).controls(Draw.seeded(0, model, range(30), range(30), 5))[RANDOM]
    assert again.describe() == Zero().at(control).describe()
    examples = Examples(PROMPTS, [3, 4])
    table = run_ablation_study(model, {"edges": Zero().at(where)}, examples=examples, progress=False).table
    assert set(table["control"]) >= {RANDOM}


def test_bad_input():
    model = made()
    cases = {
        "a0.h1->a1.h9<q>": (UnknownNameError, r"unknown reader 'a1.h9<q>'.*did you mean"),
        "a2.h1->logits": (UnknownNameError, "unknown writer"),
        "a1.h0->a0.h1<q>": (ModelError, "writes after a0.h1<q> has read"),
        "m1->m1": (ModelError, "writes after m1 has read"),
        "a0.h1": (ModelError, "an edge must be written"),
    }
    for edge, (error, match) in cases.items():
        with pytest.raises(error, match=match):
            run(model, Zero().at(Edges(edge)))
    with pytest.raises(ModelError, match="at least one edge"):
        run(model, Zero().at(Edges(())))
    with pytest.raises(ModelError, match="takes a donor prompt, got source"):
        Patch(torch.zeros(1, 5, 12)).at(Edges("m0->m1"))
    with pytest.raises(ModelError, match="shares its keys and values"):
        run(made(kv_heads=2), Zero().at(Edges("a0.h1->a1.h2")))
    with pytest.raises(ModelError, match="donor must give"):
        run(model, Patch(donor=DONORS[:, :3]).at(Edges("m0->m1")))


@pytest.mark.parametrize("kind", ["Gemma2", "Olmo2"])
def test_models_with_norms_after_attention_are_refused(kind):
    bridge = hooked_models.bridge(hooked_models.hugging_face_model(kind))
    with pytest.raises(ModelError, match="on a probe it must hold that"):
        run(bridge, Zero().at(Edges("m0->logits")))
