"""QK circuits: scores of real prompts put together again, rotary and learned positions, bad input."""

import numpy as np
import pytest
import torch
from hooked_models import bridge, hooked_transformer, hugging_face_model

from ocr_interp.circuits.attention.positions import Positions
from ocr_interp.circuits.attention.qk import QKCircuit
from ocr_interp.errors import ModelError, StaleCircuitError, UnknownNameError

QUERIES, KEYS = [3, 5, 9], {"names": [4, 7], "verbs": [8]}


def test_by_hand_from_raw_weights():
    model = hooked_transformer("LN")
    found = QKCircuit.from_model(model, layer=0, head=2, queries=QUERIES, keys=KEYS)
    w = {k: v.numpy() for k, v in model.state_dict().items()}
    gain, bias = w["blocks.0.ln1.w"], w["blocks.0.ln1.b"]
    sides = []
    for ids, letter in ((QUERIES, "Q"), ([4, 7, 8], "K")):
        rows = w["embed.W_E"][ids]
        W, b = w[f"blocks.0.attn.W_{letter}"][2], w[f"blocks.0.attn.b_{letter}"][2]
        sides.append(((rows - rows.mean(1, keepdims=True)) * gain @ W, bias @ W + b))
    (q, b_q), (k, b_k) = sides
    assert pytest.approx(q @ k.T / np.sqrt(3), abs=1e-12) == found.W
    assert found.scores == pytest.approx((q + b_q) @ (k + b_k).T / np.sqrt(3), abs=1e-12)
    assert found.norms.frobenius == pytest.approx(np.linalg.norm(found.W))
    assert found.energy.shares.sum() == pytest.approx(1)
    assert sum(b.component for b in found.spectrum(0.0).blocks) == pytest.approx(found.W, abs=1e-12)
    assert pytest.approx(found.W[:, 2:]) == found.restrict(keys=[8]).W
    assert "position embeddings" in found.provenance.flags[0]


def test_tokens_and_positions_are_all_of_a_score():
    """The four terms of tokens and positions, over the scales of ln1, are the scores of a prompt."""
    model = hooked_transformer("LN")
    prompt = [3, 5, 9, 4]
    where = {"layer": 0, "head": 1}
    at = Positions(range(4))
    tokens = [sorted(set(prompt))] * 2
    pick = [sorted(set(prompt)).index(t) for t in prompt]
    terms = {
        (a, b): QKCircuit.from_model(model, queries=x, keys=y, **where)
        for a, x in (("token", tokens[0]), ("position", at))
        for b, y in (("token", tokens[1]), ("position", at))
    }
    _, cache = model.run_with_cache(torch.tensor([prompt]))
    scale = cache["blocks.0.ln1.hook_scale"][0, :, 0].numpy()
    theirs = cache["blocks.0.attn.hook_attn_scores"][0, 1].numpy()
    rows = {"token": pick, "position": list(range(4))}
    bilinear = sum(c.W[np.ix_(rows[a], rows[b])] for (a, b), c in terms.items())
    of_query = sum(terms[a, "token"].query_bias[rows[a]] for a in rows)
    of_key = sum(terms["token", b].key_bias[rows[b]] for b in rows)
    constant = terms["token", "token"].constant
    ours = bilinear / np.outer(scale, scale) + (of_query / scale)[:, None] + of_key / scale + constant
    below = np.tril_indices(4)
    assert ours[below] == pytest.approx(theirs[below], abs=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Llama", "GPTNeoX", "Phi", "Qwen2"])
def test_rotary_scores_by_distance(kind):
    """Layer 0 reads the embedding alone, so W at a distance is the score of a prompt, over scales."""
    model = bridge(hugging_face_model(kind))
    prompt = [3, 5, 9, 4]
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([prompt]))
    scale = cache["blocks.0.ln1.hook_scale"][0, :, 0].numpy()
    theirs = cache["blocks.0.attn.hook_attn_scores"][0, 4].numpy()
    for i, j in ((3, 0), (3, 2), (1, 1)):
        found = QKCircuit.from_model(
            model, layer=0, head=4, queries=[prompt[i]], keys=[prompt[j]], distance=i - j
        )
        ours = found.W[0, 0] / (scale[i] * scale[j]) + found.query_bias[0] / scale[i]
        ours += found.key_bias[0] / scale[j] + found.constant
        assert ours == pytest.approx(theirs[i, j], rel=1e-5)
    assert found.provenance.kv_head == (4 if kind == "GPTNeoX" else 1)
    with pytest.raises(ModelError, match="pass distance="):
        QKCircuit.from_model(model, layer=0, head=4, queries=[3], keys=[4])
    with pytest.raises(ModelError, match="got one with rotary embeddings"):
        QKCircuit.from_model(model, layer=0, head=4, queries=[3], keys=Positions([0]), distance=0)


def test_rotary_hooked_transformer_far_apart():
    from transformer_lens import HookedTransformer

    cfg = hooked_transformer("LN").cfg.to_dict()
    cfg |= {"positional_embedding_type": "rotary", "rotary_dim": 2, "d_head": 4, "normalization_type": None}
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = HookedTransformer(type(hooked_transformer().cfg).from_dict(cfg))
    prompt = [3, *range(10, 22), 9]
    _, cache = model.run_with_cache(torch.tensor([prompt]))
    found = QKCircuit.from_model(model, layer=0, head=0, queries=[9], keys=[3], distance=13)
    theirs = float(cache["blocks.0.attn.hook_attn_scores"][0, 0, 13, 0])
    assert found.scores[0, 0] == pytest.approx(theirs, abs=1e-9)


def test_baseline_freshness_and_text():
    model = hooked_transformer("RMS")
    found = QKCircuit.from_model(model, layer=0, head=2, queries=QUERIES, keys=KEYS)
    chance = found.random_like(3)
    assert chance.norms.frobenius == pytest.approx(found.norms.frobenius)
    assert (chance.W == found.random_like(3).W).all()
    assert chance.provenance.model.startswith("random weights like")
    for word in ("QK circuit", "names", "random weights", "checked: attention scores"):
        assert word in found.summary()
    found.check_fresh(model)
    model.blocks[0].attn.W_K.data[2, 0, 0] += 1
    with pytest.raises(StaleCircuitError):
        found.check_fresh(model)


def test_alibi_is_left_out_and_said():
    found = QKCircuit.from_model(
        bridge(hugging_face_model("Bloom")), layer=0, head=2, queries=QUERIES, keys=KEYS
    )
    assert "depends on the distance alone" in " ".join(found.provenance.flags)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (lambda: hooked_transformer("LN"), {"distance": 1}, "distance is for rotary embeddings, got 1"),
        (lambda: hooked_transformer("LN"), {"head": 4}, "head must be a whole number in 0..3"),
        (lambda: hooked_transformer("LN"), {"keys": Positions([16])}, r"in 0\.\.15, the model's context"),
        (lambda: bridge(hugging_face_model("Qwen3")), {"distance": 0}, "norms of queries and keys"),
        (lambda: bridge(hugging_face_model("OPT")), {}, "attn_implementation='eager'"),
    ],
)
def test_bad_input(make, arguments, message):
    where = {"layer": 0, "head": 1, "queries": QUERIES, "keys": KEYS}
    with pytest.raises(ModelError, match=message):
        QKCircuit.from_model(make(), **(where | arguments))


def test_bad_tokens_and_positions():
    model = hooked_transformer("LN")
    with pytest.raises(UnknownNameError):
        QKCircuit.from_model(model, layer=0, head=1, queries=["nobody"], keys=KEYS)
    for at in ([], [1, 1], [-1]):
        with pytest.raises(ModelError, match="Positions must be whole numbers >= 0, each once"):
            Positions(at)
