"""What real architectures do beside W_E W_V W_O W_U: folded, or flagged, or refused; never passed over."""

import copy

import hooked_models
import numpy as np
import pytest
import torch
from hooked_models import bridge, hooked_transformer, hugging_face_model

from ocr_interp.circuits.attribution.of_model import attribute_model
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import AttributionError, ModelError, WeightsError

PROMPT = [3, 4, 5, 3, 9]
READ = {"layer": 0, "head": 4, "inputs": range(10), "outputs": [7, 8, 20]}


def inside(model, circuit):
    """What the circuit says that each position of PROMPT adds to logit 7 − logit 8 through its head."""
    _, cache = model.run_with_cache(torch.tensor([PROMPT]))
    pattern = cache["blocks.0.attn.hook_pattern"][0, circuit.provenance.head, -1].detach().numpy()
    ln1 = cache["blocks.0.ln1.hook_scale"][0, :, 0].detach().numpy()
    final = float(cache["ln_final.hook_scale"][0, -1, 0])
    rows = circuit.W[PROMPT] / ln1[:, None] + circuit.bias
    return pattern * (rows @ [1, -1, 0]) / final


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("Qwen2", {"tie_word_embeddings": True}),
        ("Qwen3", {}),
        ("Mistral", {}),
        ("Olmo", {}),
        ("GPTNeoX", {}),
        ("GPTNeoX", {"use_parallel_residual": False}),
        ("Phi", {}),
    ],
)
def test_biases_tied_embeddings_norms_without_gains_qk_norms_and_parallel_blocks(kind, fields):
    """Nothing but W, the bias, the pattern and the two scales is needed; each head has its key-value head."""
    model = bridge(hugging_face_model(kind, **fields))
    circuit = OVCircuit.from_model(model, **READ)
    found = attribute_model(model, PROMPT, 7, 8, layer=0, head=4)
    # Bridges keep some norms in float32 inside.
    assert found.contributions[0] == pytest.approx(inside(model, circuit), rel=1e-5, abs=1e-8)
    assert circuit.provenance.flags == (
        "direct path only: embedding to this head to logits, without MLPs and other layers",
    )


@pytest.mark.parametrize("norm", ["LN", "RMS"])
def test_a_model_with_folded_norms_has_the_same_circuit(norm):
    model = hooked_transformer(norm, n_layers=2, attn_only=False, kv_heads=2)
    read = {**READ, "layer": 1, "head": 2}
    before, seen = OVCircuit.from_model(model, **read), attribute_model(model, PROMPT, 7, 8, layer=1, head=2)
    folded, centred = copy.deepcopy(model), copy.deepcopy(model)
    fold = {"fold_ln": True, "center_writing_weights": False, "fold_value_biases": False}
    folded.load_and_process_state_dict(copy.deepcopy(model.state_dict()), center_unembed=False, **fold)
    centred.load_and_process_state_dict(copy.deepcopy(model.state_dict()), center_unembed=True, **fold)
    for each in (folded, centred):
        assert each.cfg.normalization_type == f"{norm}Pre"
        after = OVCircuit.from_model(each, **read)
        # TransformerLens folds in float32. Centring W_U shifts each row, which no difference sees.
        same = after.W if each is folded else after.W - after.W[:, :1] + before.W[:, :1]
        assert same == pytest.approx(before.W, abs=1e-6)
        again = attribute_model(each, PROMPT, 7, 8, layer=1, head=2)
        assert again.contributions == pytest.approx(seen.contributions, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Llama", pytest.param("Gemma", marks=pytest.mark.slow)])
def test_a_bridge_in_compatibility_mode_has_the_same_logit_differences(kind):
    model = hugging_face_model(kind)
    plain, compatible = bridge(model), bridge(model)
    compatible.enable_compatibility_mode()
    before, after = OVCircuit.from_model(plain, **READ), OVCircuit.from_model(compatible, **READ)
    assert after.W - after.W[:, :1] == pytest.approx(before.W - before.W[:, :1], abs=1e-6)
    ours, theirs = (attribute_model(m, PROMPT, 7, 8, layer=1, head=2) for m in (plain, compatible))
    assert ours.contributions == pytest.approx(theirs.contributions, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.bfloat16])
def test_weights_in_less_precision(dtype):
    from transformer_lens.model_bridge import TransformerBridge

    exact = hugging_face_model("Llama", attention_bias=True)
    rounded = copy.deepcopy(exact).to(dtype)
    model = TransformerBridge.boot_transformers(
        "tiny-random", hf_model=rounded, tokenizer=hooked_models.tokenizer(), device="cpu", dtype=dtype
    )
    circuit, reference = (OVCircuit.from_model(m, **READ) for m in (model, bridge(exact)))
    assert circuit.provenance.dtype == str(dtype).removeprefix("torch.")
    assert circuit.left.dtype == np.float64
    size = np.abs(reference.W).max()
    assert np.abs(circuit.W - reference.W).max() < 4 * torch.finfo(dtype).eps * size
    found = attribute_model(model, PROMPT, 7, 8, layer=1, head=2)
    assert abs(found.residual) < 1e3 * torch.finfo(dtype).eps


@pytest.mark.slow
def test_multipliers_outside_of_the_weights_are_flagged_and_never_attributed():
    fields = {"embedding_multiplier": 3.0, "residual_multiplier": 0.5, "logits_scaling": 2.0}
    model = bridge(hugging_face_model("Granite", **fields))
    circuit = OVCircuit.from_model(model, **READ)
    for name in ("residual_multiplier", "logits_scaling"):
        assert f"{name} = {fields[name]:g} is left out" in " ".join(circuit.provenance.flags)
    assert any("of the embedding: folded into W_E" in said for said in circuit.provenance.folded)
    with pytest.raises(AttributionError, match=r"heads add to attn_out must be .* multiplier of res"):
        attribute_model(model, PROMPT, 7, 8, layer=0, head=4)
    model = bridge(hugging_face_model("Granite", logits_scaling=2.0))
    with pytest.raises(AttributionError, match="final norm and W_U make of resid_post must be"):
        attribute_model(model, PROMPT, 7, 8, layer=0, head=4)
    plain = bridge(hugging_face_model("Granite"))
    assert not any("left out: it" in flag for flag in OVCircuit.from_model(plain, **READ).provenance.flags)
    attribute_model(plain, PROMPT, 7, 8, layer=0, head=4)
    cohere = OVCircuit.from_model(bridge(hugging_face_model("Cohere")), **READ)
    assert "logit_scale = 0.0625 is left out: it multiplies all logits" in cohere.provenance.flags


def test_a_soft_cap_of_logits_is_flagged_and_never_attributed():
    model = hooked_transformer("LN", n_layers=2)
    model.cfg.output_logits_soft_cap = 1.0
    flags = OVCircuit.from_model(model, **READ | {"head": 3}).provenance.flags
    assert "the model caps its logits softly: W speaks of logits before the cap" in flags
    with pytest.raises(AttributionError, match="a logit cap"):
        attribute_model(model, PROMPT, 7, 8, layer=1, head=3)


@pytest.mark.slow
def test_a_gain_that_is_stored_less_one_without_saying_so():
    """Nemotron's LayerNorm1P: no field of the configuration tells, so the norm is asked."""
    model = bridge(hugging_face_model("Nemotron"))
    circuit = OVCircuit.from_model(model, **READ)
    found = attribute_model(model, PROMPT, 7, 8, layer=0, head=4)
    assert found.contributions[0] == pytest.approx(inside(model, circuit), rel=1e-3, abs=1e-6)
    model.blocks[0].ln1.original_component.forward = lambda x: x.sign()
    with pytest.raises(ModelError, match="computes something else with its weight"):
        OVCircuit.from_model(model, **READ)


@pytest.mark.slow
def test_attention_without_a_pattern_says_how_to_get_one():
    with pytest.raises(ModelError, match=r"nothing at blocks\.0\.attn\.hook_pattern: .*'eager'"):
        attribute_model(bridge(hugging_face_model("OPT")), PROMPT, 7, 8, layer=0, head=4)
    eager = bridge(hugging_face_model("OPT", attn_implementation="eager"))
    attribute_model(eager, PROMPT, 7, 8, layer=0, head=4)


@pytest.mark.parametrize("kind", ["Gemma2", "Olmo2"])
def test_norms_after_attention_are_refused(kind):
    with pytest.raises(ModelError, match="got a norm after attention"):
        OVCircuit.from_model(bridge(hugging_face_model(kind)), **READ)


def test_layers_without_attention_or_without_its_weights_are_refused(monkeypatch):
    model = bridge(hugging_face_model("Llama"))

    def compressed(self):
        raise NotImplementedError("W_V is not available on MLA")

    monkeypatch.setattr(type(model.blocks[0].attn), "W_V", property(compressed), raising=False)
    with pytest.raises(ModelError, match="attention with W_V and W_O: W_V is not available"):
        OVCircuit.from_model(model, **READ)
    monkeypatch.undo()
    del model.blocks[0].attn
    with pytest.raises(ModelError, match="got no attention: choose another layer"):
        OVCircuit.from_model(model, **READ)


def test_gains_that_are_not_finite_are_named():
    model = bridge(hugging_face_model("Llama"))
    with torch.no_grad():
        model.blocks[0].ln1.weight[2] = torch.nan
    with pytest.raises(WeightsError, match=r"ln1\.gain of tiny-random, layer 0, head 4 must be finite"):
        OVCircuit.from_model(model, **READ)
    with pytest.raises(WeightsError, match="logits of this prompt must be finite"):
        attribute_model(model, PROMPT, 7, 8, layer=0, head=4)


def test_norms_after_the_residual_are_refused():
    model = bridge(hugging_face_model("OPT", attn_implementation="eager"))
    model.cfg.do_layer_norm_before = False  # such a model does not run in a bridge at all
    with pytest.raises(ModelError, match="got one after it: post-norm"):
        OVCircuit.from_model(model, **READ)
