"""Direct attribution of whole models: dense by hand, beside TransformerLens, and what cannot be split."""

import numpy as np
import pytest
import torch
from hooked_models import bridge, hooked_transformer, hugging_face_model

from ocr_interp.circuits.attribution.whole import direct_attribution
from ocr_interp.errors import ModelError, UnknownNameError

PROMPT = [3, 4, 5, 3, 9]


def by_hand(model, prompt, answer, against):
    """Every contribution of a two-layer HookedTransformer with LayerNorm from its raw weights, in numpy."""
    cfg = model.cfg
    w = {k: v.numpy() for k, v in model.state_dict().items()}

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((x**2).mean(-1, keepdims=True) + cfg.eps)
        return x / scale * w[f"{name}.w"] + w[f"{name}.b"], scale

    token, position = w["embed.W_E"][prompt], w["pos_embed.W_pos"][: len(prompt)]
    stream = token + position
    wrote = {"token embedding": token[-1], "position embedding": position[-1]}
    for layer in range(cfg.n_layers):
        at = f"blocks.{layer}."
        x, _ = norm(stream, at + "ln1")
        added = np.zeros_like(stream)
        for h in range(cfg.n_heads):
            q, k, v = (x @ w[f"{at}attn.W_{c}"][h] + w[f"{at}attn.b_{c}"][h] for c in "QKV")
            scores = q @ k.T / np.sqrt(cfg.d_head)
            scores[np.triu_indices(len(prompt), 1)] = -np.inf
            pattern = np.exp(scores - scores.max(1, keepdims=True))
            pattern /= pattern.sum(1, keepdims=True)
            out = pattern @ v @ w[f"{at}attn.W_O"][h]
            wrote[f"L{layer}H{h}"] = out[-1]
            wrote[f"L{layer}H{h} at 1"] = pattern[-1, 1] * v[1] @ w[f"{at}attn.W_O"][h]
            added += out
        wrote[f"b_O {layer}"] = w[f"{at}attn.b_O"]
        stream = stream + added + w[f"{at}attn.b_O"]
        x, _ = norm(stream, at + "ln2")
        pre = x @ w[f"{at}mlp.W_in"] + w[f"{at}mlp.b_in"]
        post = torch.nn.functional.gelu(torch.from_numpy(pre)).numpy()
        wrote[f"neuron {layer}"] = post[-1, 2] * w[f"{at}mlp.W_out"][2]
        mlp = post @ w[f"{at}mlp.W_out"] + w[f"{at}mlp.b_out"]
        wrote[f"MLP {layer}"] = mlp[-1]
        stream = stream + mlp
    read, scale = norm(stream, "ln_final")
    columns = w["unembed.W_U"][:, answer] - w["unembed.W_U"][:, against].mean(1)
    found = {name: float((x - x.mean()) / scale[-1] * w["ln_final.w"] @ columns) for name, x in wrote.items()}
    found["bias of the final norm"] = float(w["ln_final.b"] @ columns)
    b_U = w["unembed.b_U"]
    found["b_U"] = float(b_U[answer] - b_U[against].mean())
    return found, float(read[-1] @ columns) + found["b_U"]


def test_every_part_by_hand():
    model = hooked_transformer("LN", n_layers=2, attn_only=False)
    found = direct_attribution(model, PROMPT, 7, [8, 11], by_position=True, neurons=[0, 1])
    wanted, total = by_hand(model, PROMPT, 7, [8, 11])
    for part, value in zip(found.parts, found.contributions[0], strict=True):
        assert value == pytest.approx(wanted[part.name], abs=1e-10), part.name
    assert len(found.parts) == 2 + 2 * (4 + 2) + 2
    assert found.totals[0] == pytest.approx(total, abs=1e-10)
    assert abs(found.remainders[0]) < 1e-12
    for layer in range(2):
        for head in range(4):
            by_place = found.of_position(layer, head)[0]
            assert by_place.sum() == pytest.approx(found.of(f"L{layer}H{head}")[0], abs=1e-10)
            assert by_place[1] == pytest.approx(wanted[f"L{layer}H{head} at 1"], abs=1e-10)
        neurons = found.neurons[layer]
        assert neurons.contributions[0, 2] == pytest.approx(wanted[f"neuron {layer}"], abs=1e-10)
        summed = neurons.contributions.sum(1) + neurons.bias
        assert summed == pytest.approx(found.of(f"MLP {layer}"), abs=1e-10)


def test_equals_transformer_lens_where_they_overlap():
    """Its `logit_attrs` takes no centring of W_U and no biases of the final norm; parts are the same."""
    model = hooked_transformer("LNPre", n_layers=2, attn_only=False)
    tokens = torch.tensor([PROMPT, [2, 9, 9, 1, 6], [5, 5, 8, 7, 2]])
    answers, against = torch.tensor([7, 8, 9]), torch.tensor([1, 2, 3])
    found = direct_attribution(model, tokens, answers, against)
    _, cache = model.run_with_cache(tokens)
    stack, names = cache.get_full_resid_decomposition(
        expand_neurons=False, mlp_input=False, apply_ln=False, pos_slice=-1, return_labels=True
    )
    theirs = cache.logit_attrs(stack, answers, incorrect_tokens=against, pos_slice=-1, has_batch_dim=True)
    theirs = dict(zip(names, theirs.numpy(), strict=True))
    for layer in range(2):
        for head in range(4):
            assert found.of(f"L{layer}H{head}") == pytest.approx(theirs[f"L{layer}H{head}"], abs=1e-10)
        assert found.of(f"MLP {layer}") == pytest.approx(theirs[f"{layer}_mlp_out"], abs=1e-10)
    # It sums biases in single precision, whatever the model's.
    assert found.of("b_O 0") + found.of("b_O 1") == pytest.approx(theirs["bias"], abs=1e-6)
    assert found.of("token embedding") == pytest.approx(theirs["embed"], abs=1e-10)


def test_blocks_and_prompts_of_any_length():
    model = hooked_transformer("RMS", n_layers=2, attn_only=False)
    prompts = [PROMPT, [2, 4], [9, 9, 9, 1, 2]]
    found = direct_attribution(
        model, prompts, [7, 8, 9], 1, by_position=True, blocks=[(1, 2)], tolerance=0.0, batch_size=1
    )
    for k, prompt in enumerate(prompts):
        alone = direct_attribution(model, prompt, [7, 8, 9][k], 1)
        assert found.contributions[k] == pytest.approx(alone.contributions[0], abs=1e-12)
    assert np.isnan(found.of_position(0, 0)[1, 2:]).all()
    assert np.isfinite(found.of_position(0, 0)[1, :2]).all()
    block = found.blocks[0]
    assert block.multiplicities == (1, 1, 1)
    assert block.contributions.sum(1) + block.outside == pytest.approx(found.of("L1H2"), abs=1e-12)
    table = found.table()
    assert list(table.columns) == ["part", "kind", "layer", "head", "mean", "std", "share"]
    assert table["mean"].abs().is_monotonic_decreasing
    assert "answers of 3 prompts" in found.summary()
    assert found.heads.shape == (3, 2, 4)
    assert found.mlps.shape == (3, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Llama", "GPTNeoX", "Bloom", "OPT", "Qwen3", "Phi"])
def test_bridges_of_every_shape(kind):
    """Grouped heads, parallel blocks, a norm of the embedding, learned positions, biases."""
    model = bridge(hugging_face_model(kind))
    found = direct_attribution(model, [PROMPT, [3, 9]], 7, [[8, 11], [8, 11]])
    kinds = {part.kind for part in found.parts}
    assert {"embedding", "head", "mlp"} <= kinds
    assert not {"attention", "layer"} & kinds
    assert found.notes == ()
    logits = model(torch.tensor([PROMPT]))[0, -1].detach()
    assert found.totals[0] == pytest.approx(float(logits[7] - (logits[8] + logits[11]) / 2), rel=1e-6)
    assert found.contributions.sum(1) == pytest.approx(found.totals, rel=1e-6)


def test_a_multiplier_of_residuals_is_measured():
    model = bridge(hugging_face_model("Granite", residual_multiplier=0.22))
    found = direct_attribution(model, PROMPT, 7, 8)
    assert "the model adds 0.22 times z W_O + b_O to the stream" in found.notes[0]
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([PROMPT]))
    z, W_O = cache["blocks.1.attn.hook_z"][0, -1, 4], model.blocks[1].attn.W_O[4]
    end = cache["blocks.1.hook_resid_post"][0, -1]
    scale = (end.pow(2).mean() + model.cfg.eps).sqrt()
    read = 0.22 * z @ W_O / scale * model.ln_final.weight
    assert found.of("L1H4")[0] == pytest.approx(float(read @ (model.W_U[:, 7] - model.W_U[:, 8])), rel=1e-5)


def test_a_norm_after_attention_leaves_attention_one_part():
    model = bridge(hugging_face_model("Gemma2", final_logit_softcapping=None))
    found = direct_attribution(model, PROMPT, 7, 8)
    assert {part.kind for part in found.parts} == {"embedding", "attention", "mlp"}
    assert "a norm, gate, multiplier or adapter stands between" in found.notes[0]
    assert found.contributions.sum() == pytest.approx(found.totals[0], rel=1e-5)
    with pytest.raises(ModelError, match="heads of layer 0 cannot be told apart"):
        direct_attribution(model, PROMPT, 7, 8, blocks=[(0, 1)])


@pytest.mark.slow
def test_a_logit_cap_is_refused():
    model = bridge(hugging_face_model("Gemma2", final_logit_softcapping=0.5))
    with pytest.raises(ModelError, match=r"something stands between them \(a logit cap"):
        direct_attribution(model, PROMPT, 7, 8)


def test_outputs_of_another_vocabulary_and_hooks_of_users():
    model = hooked_transformer("LN", n_layers=2, attn_only=False)
    whole = direct_attribution(model, PROMPT, 7)
    model.add_hook("blocks.0.attn.hook_z", lambda z, hook: z * 0)
    ablated = direct_attribution(model, PROMPT, 7)
    model.reset_hooks()
    assert ablated.of("L0H1")[0] == 0 != whole.of("L0H1")[0]
    model.add_hook("blocks.0.hook_attn_out", lambda value, hook: value + 1)
    edited = direct_attribution(model, PROMPT, 7)
    model.reset_hooks()
    assert "stands between z W_O + b_O and the stream" in edited.notes[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 7), "at least one prompt"),
        (([[]], 7), "at least one prompt"),
        ((PROMPT, 7, 7), "against must not hold the answer"),
        (([PROMPT, PROMPT], [7]), "one token, or one for each of 2 prompts, got 1"),
        (([PROMPT, PROMPT], 7, [1, 2, 3]), "one token, or one for each of 2 prompts, got 3"),
        ((torch.zeros(1, 2, 3).long(), 7), r"got shape \[1, 2, 3\]"),
        (([PROMPT, 3], 7), "one prompt, or a list of prompts"),
        ((PROMPT, 32), "a token must be a label or an id in 0..31, got 32"),
    ],
)
def test_bad_prompts_and_answers(arguments, message):
    model = hooked_transformer("LN")
    with pytest.raises(ModelError, match=message):
        direct_attribution(model, *arguments)


def test_bad_layers_and_names():
    model = hooked_transformer("LN")
    with pytest.raises(ModelError, match="layer must be a whole number"):
        direct_attribution(model, PROMPT, 7, blocks=[(1, 0)])
    with pytest.raises(ModelError, match="must have an MLP with hook_post"):
        direct_attribution(model, PROMPT, 7, neurons=[0])
    found = direct_attribution(model, PROMPT, 7)
    with pytest.raises(UnknownNameError, match="part of the model 'L9H0'"):
        found.of("L9H0")
    with pytest.raises(ModelError, match="pass by_position=True"):
        found.of_position(0, 0)
