"""Every intervention on a one-layer model whose activations are computed by hand here."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformer_lens import patching

sys.path.append(str(Path(__file__).parents[1] / "circuits"))
import hooked_models

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.interventions import (
    MeanAblation,
    Patch,
    ResampleAblation,
    SubspaceAblation,
    ZeroAblation,
    donors,
    output_subspace,
    singular_block,
)
from ocr_interp.ablation.paths import PathAblation
from ocr_interp.ablation.sites import Site, tokens_of_kind
from ocr_interp.circuits.ov_circuit import OVCircuit
from ocr_interp.errors import InterventionNeverFiredError, ModelError, OcrInterpError, UnknownNameError
from ocr_interp.models.config import ModelConfig
from ocr_interp.models.hooked import build_model
from ocr_interp.models.weights import TokenWeights
from ocr_interp.task import FactRecallTask
from ocr_interp.training.config import RunConfig, TrainConfig
from ocr_interp.training.runs import Snapshot

TASK = FactRecallTask(2, 1, 1, n_noise=1, seq_len=4)
# s0 s1 s2 s3 r1 r2 noise EOS b0 b1 c0 c1: W_OV[token, answer] by hand, and a score for every key.
ROWS = np.array(
    [
        [4, 0, 3, 0],
        [4, 1, 2, 0],
        [0, 5, 0, 4],
        [1, 6, 0, 2],
        [3, 3, 0, 0],
        [0, 0, 3, 4],
        [1, 0, 0, 2],
        [0, 1, 1, 0],
    ]
)
SCORES = np.array([1, 2, 1, 2, 3, 1, 0.5, 2])
BATCH = torch.tensor([[0, 4, 6, 7], [3, 6, 5, 7], [1, 5, 6, 7]])  # EOS is token 7


def weights():
    W = torch.zeros(12, 12, dtype=torch.float64)
    W[:8, 8:] = torch.tensor(ROWS, dtype=torch.float64)
    scores = torch.zeros(12, 12, dtype=torch.float64)
    scores[7, :8] = torch.tensor(SCORES)
    return TokenWeights(W, None, scores)


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(ov="non_factorized", dtype="float64", train_attention=False)
    return build_model(TASK, config, device="cpu", weights=weights())


@pytest.fixture(scope="module")
def llama_bridge():
    return hooked_models.bridge(hooked_models.hugging_face_model("Llama"))


def by_hand(rows=ROWS, tokens=BATCH, scores=SCORES):
    """Answer logits at EOS: sum over tokens of score times row."""
    return np.array([sum(scores[t] * rows[t] for t in sequence) for sequence in tokens.tolist()])


def answers(model, tokens=BATCH):
    return model(tokens)[:, -1, 8:].detach().numpy()


def test_the_model_computes_what_the_hand_does(model):
    assert np.array_equal(answers(model), by_hand())


# --- one after the other -------------------------------------------------------------------------


def test_zero_at_tokens_positions_and_heads(model):
    rows = ROWS.copy()
    rows[6] = 0  # the noise token
    with ablated(model, ZeroAblation(Site.at("v", tokens=["noise0"])), labels=TASK.labels):
        assert np.array_equal(answers(model), by_hand(rows))
    with ablated(model, ZeroAblation(Site.at("pattern", tokens=[6]))):
        assert np.array_equal(answers(model), by_hand(rows))
    with ablated(model, ZeroAblation(Site.at("v", positions=[0]))):
        assert np.array_equal(answers(model), by_hand(tokens=BATCH[:, 1:]))
    with ablated(model, ZeroAblation(Site.at("attn_scores", positions=[-4]))):
        assert np.array_equal(answers(model), by_hand(tokens=BATCH[:, 1:]))
    with ablated(model, ZeroAblation(Site.at("z", heads=[0], positions=[-1]))):
        assert np.array_equal(answers(model), np.zeros((3, 4)))


def test_mean_over_the_same_tokens_of_a_reference(model):
    reference = torch.tensor([[0, 4, 6, 7], [0, 6, 4, 7], [2, 6, 5, 7]])
    rows = ROWS.astype(float)
    mean = (2 * ROWS[0] + ROWS[2]) / 3  # subjects s0, s0, s2
    rows[[0, 1, 2, 3]] = mean
    subjects = tokens_of_kind(TASK, "subjects")
    assert set(subjects) == {0, 1, 2, 3}
    with ablated(model, MeanAblation(Site.at("v", tokens=subjects), reference)):
        assert answers(model) == pytest.approx(by_hand(rows), abs=1e-12)
    by_position = MeanAblation(Site.at("v", positions=[1]), reference, by_position=True)
    second = (ROWS[4] + 2 * ROWS[6]) / 3
    wanted = by_hand() + np.array([SCORES[s[1]] * (second - ROWS[s[1]]) for s in BATCH.tolist()])
    with ablated(model, by_position):
        assert answers(model) == pytest.approx(wanted, abs=1e-12)
        with pytest.raises(ModelError, match="by_position=False"):
            model(BATCH[:, 1:])


def test_resampling_takes_donors_from_the_batch(model):
    order = donors(3, torch.Generator().manual_seed(5)).tolist()
    assert sorted(order) == [0, 1, 2]
    assert all(order[k] != k for k in range(3))
    wanted = by_hand()
    for k, sequence in enumerate(BATCH.tolist()):  # the value at position 0 of the donor, the own score
        wanted[k] += SCORES[sequence[0]] * (ROWS[int(BATCH[order[k], 0])] - ROWS[sequence[0]])
    for seed in (5, torch.Generator().manual_seed(5)):
        with ablated(model, ResampleAblation(Site.at("v", positions=[0]), seed)):
            assert np.array_equal(answers(model), wanted)
            with pytest.raises(ModelError, match=">= 2"):
                model(BATCH[:1])


def test_every_donor_but_oneself_is_as_likely():
    generator = torch.Generator().manual_seed(0)
    found = np.array([donors(4, generator).tolist() for _ in range(600)])
    shares = np.array([[(found[:, k] == j).mean() for j in range(4)] for k in range(4)])
    assert np.abs(shares - (1 - np.eye(4)) / 3).max() < 0.08


def test_a_subspace_is_projected_out(model):
    q = torch.zeros(24, 1, dtype=torch.float64)
    q[20:22, 0] = torch.tensor([0.6, 0.8], dtype=torch.float64)  # logits of b0, b1
    wanted = by_hand().astype(float)
    wanted[:, :2] -= np.outer(wanted[:, :2] @ [0.6, 0.8], [0.6, 0.8])
    with ablated(model, SubspaceAblation(Site.at("attn_out"), q)):
        assert answers(model) == pytest.approx(wanted, abs=1e-12)
    other = torch.zeros(24, 1, dtype=torch.float64)
    other[22] = 1
    # As much as the other: the norm of the c0 logits, all positions of the batch counted.
    with torch.no_grad():
        _, cache = model.run_with_cache(BATCH)
    written = cache["blocks.0.hook_attn_out"].numpy()
    g = np.linalg.norm(written @ other.numpy()) / np.linalg.norm(written @ q.numpy())
    wanted = by_hand().astype(float)
    wanted[:, :2] -= g * np.outer(wanted[:, :2] @ [0.6, 0.8], [0.6, 0.8])
    with ablated(model, SubspaceAblation(Site.at("attn_out"), q, equal_to=other)):
        assert answers(model) == pytest.approx(wanted, abs=1e-12)


def test_a_singular_block_is_taken_out_of_the_circuit(model):
    config = ModelConfig(ov="non_factorized", dtype="float64", train_attention=False)
    run = Snapshot(RunConfig(TASK, config, TrainConfig()), 0, weights())
    circuit = OVCircuit.from_run(run).effective
    for index, block in enumerate(circuit.spectrum().blocks):
        W = circuit.W - block.component
        wanted = np.array([sum(W[t] for t in s) for s in BATCH.tolist()])
        with ablated(model, singular_block(circuit, index)):
            assert answers(model) == pytest.approx(wanted, abs=1e-10)
            other = model(BATCH)[:, -1, :8]
        assert torch.equal(other, model(BATCH)[:, -1, :8])  # no other logit moves


def test_a_path_is_cut_exactly(model):
    rows = ROWS.copy()
    rows[[1, 3], 2:] = 0
    path = PathAblation(tokens_of_kind(TASK, "held-out subjects"), tokens_of_kind(TASK, "implications"))
    with ablated(model, path):
        assert answers(model) == pytest.approx(by_hand(rows), abs=1e-12)
        assert answers(model)[:, :2] == pytest.approx(by_hand()[:, :2], abs=1e-12)
        with ablated(model, PathAblation(("r2",), ("b0",)), labels=TASK.labels):
            rows[5, 0] = 0
            assert answers(model) == pytest.approx(by_hand(rows), abs=1e-12)
    rows = ROWS.copy()
    rows[[4, 5]] = 0
    with ablated(model, PathAblation(tokens_of_kind(TASK, "relations"))):
        assert answers(model) == pytest.approx(by_hand(rows), abs=1e-12)


def test_a_patch_puts_another_prompt_in_place(model):
    _, cache = model.run_with_cache(torch.tensor([[2, 5, 6, 7]]))
    patch = Patch(Site.at("v", positions=[0, 1]), cache["blocks.0.attn.hook_v"])
    wanted = by_hand()
    for k, sequence in enumerate(BATCH.tolist()):
        for place, donor in enumerate((2, 5)):
            wanted[k] += SCORES[sequence[place]] * (ROWS[donor] - ROWS[sequence[place]])
    with ablated(model, patch):
        assert np.array_equal(answers(model), wanted)
        with pytest.raises(ModelError, match="source must be"):
            model(BATCH[:, 1:])


# --- the context manager -------------------------------------------------------------------------


def all_specs(model, reference):
    _, cache = model.run_with_cache(reference)
    return [
        ZeroAblation(Site.at("z", positions=[-1])),
        MeanAblation(Site.at("v", tokens=[4, 5, 7]), reference),
        ResampleAblation(Site.at("pattern", heads=[0])),
        SubspaceAblation(Site.at("z"), torch.eye(cache["blocks.0.attn.hook_z"].shape[-1])[:, -2:].double()),
        PathAblation((5, 6)),
        Patch(Site.at("v", positions=[0]), cache["blocks.0.attn.hook_v"].flip(0)),
    ]


def fails_inside(each, specs):
    with ablated(each, *specs):
        each(BATCH)
        with ablated(each, specs[0]):
            raise RuntimeError("inside")


@pytest.mark.parametrize("kind", ["ours", "norms", "bridge"])
def test_logits_are_the_same_to_the_bit_before_and_after(kind, model, llama_bridge):
    each = {"ours": model, "bridge": llama_bridge}.get(kind)
    each = hooked_models.hooked_transformer("LN", n_layers=2, attn_only=False) if each is None else each
    before, state = each(BATCH), {name: t.clone() for name, t in each.state_dict().items()}
    specs = all_specs(each, BATCH)
    for spec in specs:
        with ablated(each, spec) as same:
            assert same is each
            inside = each(BATCH)
            assert not torch.equal(inside, before)
            assert torch.equal(each.run_with_cache(BATCH)[0], inside) or isinstance(spec, ResampleAblation)
        assert torch.equal(each(BATCH), before)
    with pytest.raises(RuntimeError, match="inside"):
        fails_inside(each, specs)
    assert torch.equal(each(BATCH), before)
    assert all(torch.equal(state[name], t) for name, t in each.state_dict().items())
    assert not any(point.fwd_hooks for point in each.hook_dict.values())
    assert not each.embed._forward_pre_hooks


def test_nesting_peels_off_in_order_and_leaves_the_hooks_of_the_user(model):
    calls, name = [], "blocks.0.attn.hook_z"
    model.add_hook(name, lambda value, hook: calls.append("before"))
    model.add_perma_hook(name, lambda value, hook: calls.append("permanent"))
    kept = list(model.hook_dict[name].fwd_hooks)
    try:
        plain = model(BATCH)
        outer, inner = ZeroAblation(Site.at("v", tokens=[7])), ZeroAblation(Site.at("z"))
        with ablated(model, outer):
            first = model(BATCH)
            with ablated(model, inner):
                assert not model(BATCH).any()
                double = (name, lambda value, hook: value + 1)
                assert model.run_with_hooks(BATCH, fwd_hooks=[double])[0, -1, 8:].tolist() == [1, 1, 1, 1]
                assert not model.run_with_cache(BATCH)[1][name].any()
            assert torch.equal(model(BATCH), first)
        assert torch.equal(model(BATCH), plain)
        assert model.hook_dict[name].fwd_hooks == kept
        calls.clear()
        model(BATCH)
        assert calls == ["before", "permanent"]
        with ablated(model, outer):
            model.reset_hooks()
            assert torch.equal(model(BATCH), first)
    finally:
        model.reset_hooks(including_permanent=True)


def test_gradients_flow_through_an_ablation(model):
    with ablated(model, ZeroAblation(Site.at("v", tokens=[6]))):
        model(BATCH)[:, -1, 8].sum().backward()
    grad = model.blocks[0].attn.W_V.grad[0]
    model.zero_grad()
    assert not grad[6].any()
    assert grad[0].any()


def test_a_spec_that_never_fires_raises_but_hides_no_exception(model):
    absent = ZeroAblation(Site.at("v", tokens=[2]))
    with (
        pytest.raises(InterventionNeverFiredError, match="1 of 2"),
        ablated(model, ZeroAblation(Site.at("z")), absent),
    ):
        model(BATCH)
    with pytest.raises(InterventionNeverFiredError), ablated(model, ZeroAblation(Site.at("z"))):
        pass
    with (
        pytest.raises(InterventionNeverFiredError, match="use_attn_result"),
        ablated(model, ZeroAblation(Site("blocks.0.attn.hook_result"))),
    ):
        model(BATCH)
    with pytest.raises(InterventionNeverFiredError), ablated(model, PathAblation((2,))):
        model(BATCH)
    with pytest.raises(KeyError, match="mine"), ablated(model, absent):
        raise KeyError("mine")


def test_ids_can_be_given_where_they_do_not_enter_as_ids(model):
    spec, residual = ZeroAblation(Site.at("v", tokens=[6])), model.W_E[BATCH]
    with ablated(model, spec):
        wanted = model(BATCH)
        with pytest.raises(ModelError, match="pass tokens="):
            model(residual, start_at_layer=0)
    with ablated(model, spec, tokens=BATCH):
        assert torch.equal(model(residual, start_at_layer=0), wanted)
        with pytest.raises(ModelError, match="token ids must be"):
            model(BATCH[:2])


# --- other models --------------------------------------------------------------------------------


def test_patching_agrees_with_transformer_lens():
    each = hooked_models.hooked_transformer("LN", n_layers=2, attn_only=False)
    clean, corrupted = torch.tensor([[3, 4, 5, 9]]), torch.tensor([[3, 6, 5, 8]])
    _, cache = each.run_with_cache(clean)

    def metric(logits):
        return logits[0, -1, 7] - logits[0, -1, 8]

    heads = patching.get_act_patch_attn_head_out_all_pos(each, corrupted, cache, metric)
    positions = patching.get_act_patch_attn_out(each, corrupted, cache, metric)
    for layer in range(2):
        for head in range(4):
            z = cache[f"blocks.{layer}.attn.hook_z"]
            with ablated(each, Patch(Site.at("z", layer, heads=[head]), z)):
                assert metric(each(corrupted)).float() == heads[layer, head]
        for position in range(4):
            written = cache[f"blocks.{layer}.hook_attn_out"]
            with ablated(each, Patch(Site.at("attn_out", layer, positions=[position]), written)):
                assert metric(each(corrupted)).float() == positions[layer, position]


@pytest.mark.parametrize("kind", ["grouped", "bridge"])
def test_tokens_cut_from_a_head_of_grouped_models(kind, llama_bridge):
    grouped = hooked_models.hooked_transformer("RMS", n_layers=2, kv_heads=2)
    each, head = (llama_bridge, 4) if kind == "bridge" else (grouped, 3)
    tokens = torch.tensor([[3, 4, 5, 3, 9]])
    _, cache = each.run_with_cache(tokens)
    pattern = cache["blocks.1.attn.hook_pattern"][0, head]
    v = cache["blocks.1.attn.hook_v"][0]
    v = v[:, head // (each.cfg.n_heads // v.shape[1])]
    wanted = cache["blocks.1.attn.hook_z"][0].clone()
    wanted[:, head] = pattern[:, [1, 2, 4]] @ v[[1, 2, 4]]  # all but token 3
    names = {"labels": [f"w{i}" for i in range(32)]} if kind == "grouped" else {}
    label = "w3" if kind == "grouped" else "w1"
    with ablated(each, PathAblation((label,), layer=1, head=head), **names):
        _, inside = each.run_with_cache(tokens)
    assert torch.allclose(inside["blocks.1.attn.hook_z"][0], wanted, atol=1e-6)


def test_a_subspace_of_logits_of_a_head_of_any_model():
    each = hooked_models.hooked_transformer(None)
    circuit = OVCircuit.from_model(each, layer=0, head=1, inputs=range(32), outputs=[7, 8, 20, 21])
    block = circuit.spectrum().blocks[0]
    spec = singular_block(circuit, block)
    tokens = torch.tensor([[3, 4, 5]])
    plain, cache = each.run_with_cache(tokens)
    with ablated(each, spec):
        found = each(tokens)
    z = cache["blocks.0.attn.hook_z"][:, :, 1]
    through = z @ each.W_O[0, 1] @ each.W_U[:, [7, 8, 20, 21]]
    wanted = plain[..., [7, 8, 20, 21]] - through @ torch.tensor(block.output_projector)
    assert torch.allclose(found[..., [7, 8, 20, 21]], wanted, atol=1e-12)


# --- what is refused -----------------------------------------------------------------------------


def test_names_that_do_not_exist(model, llama_bridge):
    attached = pytest.raises(UnknownNameError, match=r"blocks\.0\.attn\.hook_z")
    with attached, ablated(model, ZeroAblation(Site("blocks.0.attn.hook_zz"))):
        pass
    with pytest.raises(UnknownNameError, match="attn_scores"):
        Site.at("scores")
    with pytest.raises(UnknownNameError, match="blocks"), ablated(model, ZeroAblation(Site.at("z", 1))):
        pass
    with (
        pytest.raises(ModelError, match="head must be"),
        ablated(model, ZeroAblation(Site.at("z", heads=[1]))),
    ):
        pass
    for tokens, error in (((12,), ModelError), (("s9",), UnknownNameError)):
        spec = ZeroAblation(Site.at("v", tokens=tokens))
        with pytest.raises(error, match=r"0\.\.11|did you mean"), ablated(model, spec, labels=TASK.labels):
            pass
    with (
        pytest.raises(ModelError, match=r"0\.\.5"),
        ablated(llama_bridge, ZeroAblation(Site.at("z", heads=[6]))),
    ):
        pass
    with pytest.raises(UnknownNameError, match="held-out subjects"):
        tokens_of_kind(TASK, "held out subjects")
    with pytest.raises(ModelError, match="layer must be"), ablated(model, PathAblation((0,), layer=1)):
        pass
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_paths_that_do_not_exist(llama_bridge):
    for each in (
        llama_bridge,
        hooked_models.hooked_transformer("LN"),
        hooked_models.hooked_transformer(None),
    ):
        with pytest.raises(ModelError, match="outputs=None"), ablated(each, PathAblation((3,), (4,))):
            pass


def test_specs_that_make_no_sense(model):
    with pytest.raises(ModelError, match="each once"):
        Site.at("z", heads=[])
    with pytest.raises(ModelError, match="no head axis"):
        Site.at("resid_pre", heads=[0])
    with pytest.raises(ModelError, match="orthonormal"):
        SubspaceAblation(Site.at("z"), torch.ones(3, 1))
    with pytest.raises(ModelError, match="mean pattern"):
        MeanAblation(Site.at("pattern"), BATCH)
    with (
        pytest.raises(InterventionNeverFiredError, match="reference must hold"),
        ablated(model, MeanAblation(Site.at("v", tokens=[2]), BATCH)),
    ):
        pass
    with pytest.raises(OcrInterpError, match="at least one"), ablated(model):
        pass
    with (
        ablated(model, SubspaceAblation(Site.at("z"), torch.eye(3, 1))),
        pytest.raises(ModelError, match="12 dim"),
    ):
        model(BATCH)
    with ablated(model, ZeroAblation(Site.at("z", positions=[0]))):
        model(BATCH)
    with (
        pytest.raises(ModelError, match="position must be"),
        ablated(model, ZeroAblation(Site.at("z", positions=[9]))),
    ):
        model(BATCH)


def test_output_subspaces_take_numpy(model):
    config = ModelConfig(ov="non_factorized", dtype="float64", train_attention=False)
    circuit = OVCircuit.from_run(Snapshot(RunConfig(TASK, config, TrainConfig()), 0, weights()))
    spec = output_subspace(circuit, np.eye(4)[:, 2:], positions=(-1,))
    with ablated(model, spec):
        assert np.array_equal(answers(model)[:, :2], by_hand()[:, :2])
        assert not answers(model)[:, 2:].any()
