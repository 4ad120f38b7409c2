"""Composition: dense by hand, beside TransformerLens, chance by exact moments and by draws, bad input."""

import copy
import warnings

import numpy as np
import pytest
import torch
from hooked_models import bridge, hooked_transformer, hugging_face_model

from ocr_interp.circuits.weights.composition import composition
from ocr_interp.circuits.weights.grams import fourth_powers, moments_of_chance, squared_products, squares
from ocr_interp.errors import ModelError, UnknownNameError, WeightsError


def dense(A, B):
    return np.linalg.norm(A @ B) / (np.linalg.norm(A) * np.linalg.norm(B))


def test_every_pair_by_hand():
    """Dense d_model by d_model products from raw weights, LayerNorm folded by hand."""
    model = hooked_transformer("LN", n_layers=2, attn_only=False)
    found = composition(model)
    w = {k: v.numpy() for k, v in model.state_dict().items()}

    def read(W, norm):
        W = w[norm + ".w"][:, None] * W
        return W - W.mean(0)

    def head(letter, layer, h):
        return w[f"blocks.{layer}.attn.W_{letter}"][h]

    for a in range(4):
        OV = read(head("V", 0, a), "blocks.0.ln1") @ head("O", 0, a)
        for b in range(4):
            Q, K = (read(head(x, 1, b), "blocks.1.ln1") for x in "QK")
            assert found.of(f"L0H{a}", f"L1H{b}", "Q") == pytest.approx(dense(OV, Q @ K.T), abs=1e-12)
            assert found.of(f"L0H{a}", f"L1H{b}", "K") == pytest.approx(dense(OV, K @ Q.T), abs=1e-12)
            later = read(head("V", 1, b), "blocks.1.ln1") @ head("O", 1, b)
            assert found.of(f"L0H{a}", f"L1H{b}", "V") == pytest.approx(dense(OV, later), abs=1e-12)
        for layer in range(2):
            W_in = read(w[f"blocks.{layer}.mlp.W_in"], f"blocks.{layer}.ln2")
            assert found.of(f"L0H{a}", f"MLP {layer}", "in") == pytest.approx(dense(OV, W_in), abs=1e-12)
        Q, K = (read(head(x, 1, a), "blocks.1.ln1") for x in "QK")
        W_out = w["blocks.0.mlp.W_out"]
        assert found.of("MLP 0", f"L1H{a}", "K") == pytest.approx(dense(W_out, K @ Q.T), abs=1e-12)
    with pytest.raises(ModelError, match="be later than L1H0"):
        found.of("L1H0", "L0H1", "K")
    with pytest.raises(ModelError, match="must read by Q"):
        found.of("L0H0", "MLP 0", "Q")


@pytest.mark.slow
@pytest.mark.parametrize("by", ["Q", "K", "V"])
def test_equals_transformer_lens(by):
    """Without norms exactly; with norms once TransformerLens has folded them into the weights itself."""
    plain = hooked_transformer(None, n_layers=3)
    assert composition(plain).heads(by) == pytest.approx(plain.all_composition_scores(by).numpy(), abs=1e-10)
    normed = hooked_transformer("LN", n_layers=3)
    folded = copy.deepcopy(normed)
    folded.process_weights_(fold_ln=True, center_writing_weights=False, center_unembed=False)
    theirs = folded.all_composition_scores(by).numpy()
    # It folds and centres in single precision, whatever the model's.
    assert composition(normed).heads(by) == pytest.approx(theirs, abs=1e-6)
    assert composition(folded).heads(by) == pytest.approx(theirs, abs=1e-6)


def test_chance_is_exact():
    """Mean and spread over all rotations, beside 4,000 draws; 1 / d_model whatever the spectra."""
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "dtype": torch.float64}
    A, B = (
        torch.randn(1, 3, 6, **options) * torch.tensor([3.0, 1, 0.2])[:, None],
        torch.randn(1, 2, 6, **options),
    )
    mean, deviation = moments_of_chance(*((squares([x]), fourth_powers([x])) for x in (A, B)), 6)
    turns = torch.linalg.qr(torch.randn(4000, 6, 6, **options))
    signs = turns.R.diagonal(0, -2, -1).sign()
    drawn = squared_products([A @ (turns.Q * signs[:, None])], [B])[:, 0] / (squares([A]) * squares([B]))
    assert mean == pytest.approx(1 / 6)
    assert float(drawn.mean()) == pytest.approx(mean, abs=4 * float(deviation) / 4000**0.5)
    assert float(drawn.std()) == pytest.approx(float(deviation), rel=0.06)


def test_random_weights_of_the_same_spectra():
    model = hooked_transformer("LN", n_layers=2, attn_only=False)
    found = composition(model)
    chance = found.random_like(1)
    assert (np.isnan(chance.scores["K"]) == np.isnan(found.scores["K"])).all()
    for by in ("Q", "K", "V", "in"):
        for side in (found, chance):
            stacks = [side.weights.writers.rows, side.weights.readers[by].rows]
            values = [
                torch.cat([torch.linalg.svdvals(s)[:, :3].flatten() for s in stack]) for stack in stacks
            ]
            if side is found:
                kept = values
        for ours, theirs in zip(kept, values, strict=True):
            assert theirs == pytest.approx(ours.numpy(), abs=1e-10)
    again = found.random_like(1)
    assert np.array_equal(chance.scores["K"], again.scores["K"], equal_nan=True)
    draws = np.stack([found.random_like(seed).scores["K"] for seed in range(40)])
    assert np.sqrt(np.nanmean(draws**2)) == pytest.approx(found.chance, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Llama", "GPTNeoX", "Phi", "Bloom"])
def test_grouped_heads_and_parallel_blocks(kind):
    model = bridge(hugging_face_model(kind))
    found = composition(model)
    gain = model.blocks[1].ln1.weight.detach().double().numpy()[:, None]

    def read(W):
        W = gain * W.detach().double().numpy()
        return W if kind == "Llama" else W - W.mean(0)

    one, two = model.blocks[0].attn, model.blocks[1].attn
    group = 6 // len(two.W_K)
    first = (
        model.blocks[0].ln1.weight.detach().double().numpy()[:, None]
        * one.W_V[4 // group].detach().double().numpy()
    )
    first = first if kind == "Llama" else first - first.mean(0)
    OV = first @ one.W_O[4].detach().double().numpy()
    QK = read(two.W_K[5 // group]) @ read(two.W_Q[5]).T
    assert found.of("L0H4", "L1H5", "K") == pytest.approx(dense(OV, QK), rel=1e-6)
    sequential = kind in ("Llama", "Bloom")
    assert np.isnan(found.scores["in"][4, found.readers.index(_unit(found, "MLP 0"))]) != sequential


def _unit(found, name):
    return next(unit for unit in found.readers if unit.name == name)


def test_table_and_text():
    found = composition(hooked_transformer("RMS", n_layers=2))
    table = found.table()
    assert list(table.columns) == ["writer", "reader", "by", "score", "chance", "deviation"]
    assert len(table) == 3 * 16
    assert table["deviation"].is_monotonic_decreasing
    assert "48 scores" in found.summary()
    assert "gain and centring folded" in found.folded[0]
    with pytest.raises(UnknownNameError, match="head or MLP 'L0H9'"):
        found.of("L0H9", "L1H0", "K")
    with pytest.raises(UnknownNameError, match="way of reading 'k'"):
        found.of("L0H0", "L1H0", "k")


@pytest.mark.parametrize(
    ("kind", "message"),
    [("Qwen3", "norms of queries and keys"), ("Gemma2", "norm after attention"), ("OPT", "eager")],
)
def test_what_weights_do_not_say_is_refused(kind, message):
    with pytest.raises(ModelError, match=message):
        composition(bridge(hugging_face_model(kind)))


def test_values_compose_where_queries_and_keys_have_norms():
    """V-composition is that of the weights by hand; queries and keys are left out by name."""
    hf = hugging_face_model("Qwen3")
    with pytest.raises(ModelError, match="pass qk=False"):
        composition(bridge(hf))
    found = composition(bridge(hf), qk=False)
    assert set(found.scores) == {"V", "in"}
    assert "queries and keys were not asked for" in found.flags[0]
    config, products = hf.config, []
    for layer, head in ((0, 1), (1, 2)):
        block, width = hf.model.layers[layer], config.head_dim
        group = head // (config.num_attention_heads // config.num_key_value_heads)
        W_V = block.self_attn.v_proj.weight.T[:, group * width : (group + 1) * width]
        W_O = block.self_attn.o_proj.weight.T[head * width : (head + 1) * width]
        products.append((block.input_layernorm.weight[:, None] * W_V @ W_O).double())
    first, second = products
    wanted = float((first @ second).norm() / first.norm() / second.norm())
    assert found.of("L0H1", "L1H2", "V") == pytest.approx(wanted, rel=1e-9)


def test_weights_that_are_not_finite():
    model = hooked_transformer(None, n_layers=2)
    model.blocks[1].attn.W_K.data[0, 0, 0] = torch.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((WeightsError, ModelError), match="finite"):
            composition(model)
