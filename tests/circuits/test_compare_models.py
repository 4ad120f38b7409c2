"""Two states of a model: every number against dense products; LoRA unmerged equals merged; refusals."""

import copy
import warnings

import numpy as np
import pytest
import torch
from hooked_models import bridge, hooked_transformer, hugging_face_model

from ocr_interp import ModelConfig, TrainConfig, name_tokens, train
from ocr_interp.comparison import compare_models
from ocr_interp.errors import ModelError, UnknownNameError

INPUTS, OUTPUTS = [3, 4, 5, 6], [10, 11, 12]
TOKENS = {"inputs": INPUTS, "outputs": OUTPUTS}


def pair(**options):
    """A model, and a copy with one W_V, one W_Q and one W_out changed."""
    before = hooked_transformer("LN", n_layers=2, attn_only=False, **options)
    after = copy.deepcopy(before)
    generator = torch.Generator().manual_seed(5)
    for weight in (after.blocks[1].attn.W_V[2], after.blocks[0].attn.W_Q[1], after.blocks[1].mlp.W_out):
        weight += 0.1 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return before, after


def dense(model, kind, layer, head):
    """The circuit, written out: embeddings and weights through the linear part of LayerNorm."""
    block = model.blocks[layer]

    def normed(x, ln):
        return (x - x.mean(-1, keepdim=True)) * ln.w

    E, U = model.W_E[INPUTS], model.W_U[:, OUTPUTS]
    if kind == "OV":
        weights = block.attn.W_V[head] @ block.attn.W_O[head]
        return weights, normed(normed(E, block.ln1) @ weights, model.ln_final) @ U
    if kind == "QK":
        weights = block.attn.W_Q[head] @ block.attn.W_K[head].T
        return weights, normed(E, block.ln1) @ weights @ normed(E, block.ln1).T
    if kind == "in":
        return block.mlp.W_in, normed(E, block.ln2) @ block.mlp.W_in
    return block.mlp.W_out, normed(block.mlp.W_out, model.ln_final) @ U


def test_every_number_is_that_of_dense_products():
    before, after = pair()
    found = compare_models(before, after, **TOKENS)
    assert len(found.units) == 2 * (4 * 2 + 2)
    for unit in found.units:
        old, new = (dense(m, unit.kind, unit.layer, unit.head) for m in (before, after))
        for mine, first, second in zip((unit.weights, unit.tokens), old, new, strict=True):
            assert mine == pytest.approx(float((second - first).norm() / first.norm()), abs=1e-12)
    assert {(u.unit, u.kind) for u in found.units if u.changed} == {
        ("L1H2", "OV"),
        ("L0H1", "QK"),
        ("MLP 1", "out"),
    }
    assert set(found.circuits) == {"L1H2 OV", "L0H1 QK"}
    assert found.circuits["L1H2 OV"].relative == pytest.approx(found.of("L1H2").tokens)
    assert found.circuits["L0H1 QK"].relative == pytest.approx(found.of("L0H1", "QK").tokens)
    assert found.grid("OV").shape == (2, 4)
    assert found.table()["tokens"].is_monotonic_decreasing
    assert "L1H2 OV" in found.summary()


def test_a_model_against_itself_is_unchanged():
    before, _ = pair()
    found = compare_models(before, copy.deepcopy(before), **TOKENS)
    assert not any(unit.changed for unit in found.units)
    assert found.circuits == {}
    assert "0 of 20 circuits changed" in found.summary()
    assert all(not unit.random.any() for unit in found.units)


def test_random_changes_tell_a_change_that_is_aimed_at_the_tokens():
    """W_V changes only in what the inputs read: far more than random directions do."""
    before = hooked_transformer(None, n_layers=1)
    after = copy.deepcopy(before)
    E = before.W_E[INPUTS[:1]]
    after.blocks[0].attn.W_V[0] += 2.0 * E.T @ torch.ones(1, 3, dtype=E.dtype) / E.norm()
    unit = compare_models(before, after, inputs=INPUTS[:1], outputs=OUTPUTS, controls=20).of("L0H0")
    assert unit.tokens > 2 * unit.random.mean()
    again = compare_models(before, after, inputs=INPUTS[:1], outputs=OUTPUTS, controls=20).of("L0H0")
    np.testing.assert_array_equal(unit.random, again.random)


def test_gains_of_norms_and_embeddings_count():
    before = hooked_transformer("LN", n_layers=1)
    after = copy.deepcopy(before)
    after.ln_final.w[:4] *= 3.0
    found = compare_models(before, after, **TOKENS)
    unit = found.of("L0H0")
    assert unit.weights == 0.0
    assert unit.tokens > 0.1
    assert found.of("L0H0", "QK").tokens == 0.0


@pytest.mark.slow
def test_heads_by_name_and_without_mlps():
    before, after = pair()
    found = compare_models(before, after, **TOKENS, circuits=[(0, 3)], mlps=False)
    assert set(found.circuits) == {"L0H3 OV", "L0H3 QK"}
    assert {unit.kind for unit in found.units} == {"OV", "QK"}
    with pytest.raises(ModelError, match=r"got \(5, 0\)"):
        compare_models(before, after, **TOKENS, circuits=[(5, 0)])
    with pytest.raises(UnknownNameError, match="L9H9"):
        found.of("L9H9")


@pytest.mark.slow
def test_unmerged_lora_is_the_merged_model():
    peft = pytest.importorskip("peft")
    targets = ["q_proj", "v_proj", "o_proj"]
    base = hugging_face_model("Llama")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(r=2, target_modules=targets))
    wrapped = wrapped.double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    merged = bridge(copy.deepcopy(wrapped).merge_and_unload())
    asked = compare_models(wrapped, **TOKENS)
    wanted = compare_models(bridge(base), merged, **TOKENS)
    for mine, other in zip(asked.units, wanted.units, strict=True):
        assert (mine.unit, mine.kind) == (other.unit, other.kind)
        assert mine.tokens == pytest.approx(other.tokens, rel=1e-9, abs=1e-12)
        assert mine.weights == pytest.approx(other.weights, rel=1e-9, abs=1e-12)
        np.testing.assert_allclose(mine.random, other.random, rtol=1e-9, atol=1e-12)
    assert set(asked.circuits) == set(wanted.circuits)
    assert any("one position" in note for note in asked.notes)
    with pytest.raises(ModelError, match="adapters"):
        compare_models(bridge(base), **TOKENS)


def test_snapshots_of_a_run(tiny_task):
    recipe = TrainConfig(steps=20, batch_size=12, device="cpu")
    run = train(tiny_task, ModelConfig(d_head=6), recipe, progress=False)
    labels = {"inputs": ["s0", "s1", "r1"], "outputs": ["b0", "c0"]}
    found = compare_models(run.untrained, run, **labels)
    assert found.of("L0H0").tokens > 0


@pytest.mark.slow
def test_a_copy_without_labels_is_no_other_vocabulary():
    before, after = pair()
    name_tokens(before, [f"a{k}" for k in range(32)])
    for first, second in ((before, after), (after, before)):
        found = compare_models(first, second, **TOKENS, circuits=1)
        assert len(found.circuits) == 1


def test_models_that_differ_are_refused_with_what_must_match():
    before, _ = pair()
    wider = hooked_transformer("LN", n_layers=1, attn_only=False)
    with pytest.raises(ModelError, match=r"layers \(n_layers: 2 and 1\)"):
        compare_models(before, wider, **TOKENS)
    with pytest.raises(ModelError, match="kind of norm"):
        compare_models(before, hooked_transformer("RMS", n_layers=2, attn_only=False), **TOKENS)
    other = copy.deepcopy(before)
    name_tokens(before, [f"a{k}" for k in range(32)])
    name_tokens(other, [f"b{k}" for k in range(32)])
    with pytest.raises(ModelError, match="id 3 = 'a3' before and 'b3' after"):
        compare_models(before, other, **TOKENS)
    with pytest.raises(UnknownNameError, match="zebra"):
        compare_models(before, before, inputs=["zebra"], outputs=OUTPUTS)


def test_a_change_for_these_tokens_stands_out():
    """A change of W_V and W_O along what the tokens use, beside one as large in a random direction."""
    before = hooked_transformer("LN", n_layers=1, attn_only=False)
    after = copy.deepcopy(before)
    block = after.blocks[0]
    x = before.W_E[INPUTS]
    x = (x - x.mean(-1, keepdim=True)) * block.ln1.w
    values, outputs = torch.linalg.svd(x)[2][0], torch.linalg.svd(before.W_U[:, OUTPUTS])[0][:, 0]
    block.attn.W_V[1] += 2.0 * torch.outer(values, block.attn.W_O[1] @ outputs)
    generator = torch.Generator().manual_seed(3)
    block.attn.W_V[2] += 0.3 * torch.randn(block.attn.W_V[2].shape, generator=generator, dtype=torch.float64)
    found = compare_models(before, after, **TOKENS, controls=8)
    unit = found.of("L0H1")
    assert (("L0H1", "OV") in found.standing_out) == (unit.tokens >= 2 * unit.random.max())
    assert ("L0H2", "OV") not in found.standing_out
    assert "times" in found.summary()


def test_two_models_of_one_shape_are_told_from_two_states_of_one():
    before, after = pair()
    assert not any("cosine" in note for note in compare_models(before, after, **TOKENS).notes)
    other = hooked_transformer("LN", n_layers=2, attn_only=False, seed=9)
    notes = compare_models(before, other, **TOKENS).notes
    assert "look like two models of one shape" in notes[0]


def test_another_family_of_one_shape_is_refused():
    models = [bridge(hugging_face_model(kind)) for kind in ("Llama", "Mistral")]
    with pytest.raises(ModelError, match=r"family \(architecture: LlamaForCausalLM and Mistral"):
        compare_models(*models, **TOKENS)
