"""What a model does beside its weights is asked of the model: right, flagged with a number, or refused."""

import copy
import warnings

import hooked_models
import numpy as np
import pytest
import torch
import transformers
from hooked_models import bridge, hooked_transformer, hugging_face_model

from ocr_interp.ablation import Path, Site, Zero, ablated
from ocr_interp.circuits.attribution.of_model import attribute_model
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import AttributionError, ModelError
from ocr_interp.graphs.head_graph import head_graph
from ocr_interp.hooked.probes import probe_head

PROMPT = [3, 4, 5, 3, 9]
TOKENS = torch.tensor([PROMPT])
READ = {"layer": 1, "head": 4, "inputs": range(2, 8), "outputs": [10, 11, 12]}
FALCON_H1 = {
    "mamba_d_ssm": 24,
    "mamba_n_heads": 6,
    "mamba_d_head": 4,
    "mamba_n_groups": 1,
    "mamba_d_state": 4,
    "attention_out_multiplier": 3.0,
}


def named_bridge(kind, dtype=torch.float64, **fields):
    """A bridge of a family whose configuration has names of its own."""
    from transformer_lens.model_bridge import TransformerBridge

    config = getattr(transformers, f"{kind}Config")(vocab_size=32, **fields)
    config.architectures = [f"{kind}ForCausalLM"]
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).to(dtype).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.mul_(10 if parameter.ndim > 1 else 1)
    return TransformerBridge.boot_transformers(
        "tiny-random", hf_model=model, tokenizer=hooked_models.tokenizer(), device="cpu", dtype=dtype
    )


def in_dtype(model, dtype):
    """A bridge in less precision."""
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(
        "tiny-random",
        hf_model=copy.deepcopy(model).to(dtype),
        tokenizer=hooked_models.tokenizer(),
        device="cpu",
        dtype=dtype,
    )


# --- A: sums are checked relative to what is compared ---------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("kind", "fields", "where"),
    [
        ("Granite", {"residual_multiplier": 0.22}, "heads add to attn_out"),
        ("Cohere", {"logit_scale": 0.5}, "final norm and W_U"),
    ],
)
def test_a_multiplier_is_noticed_in_every_precision(kind, fields, where, dtype):
    model = hugging_face_model(kind, **fields)
    for parameter in model.parameters():
        parameter.mul_(3 if kind == "Granite" else 1)
    with pytest.raises(AttributionError, match=where):
        attribute_model(in_dtype(model, dtype), PROMPT, 7, 8, layer=1, head=4)


@pytest.mark.slow
def test_a_precision_that_allows_no_check_is_said():
    exact = hugging_face_model("Llama")
    coarse = in_dtype(exact, torch.bfloat16)
    found = attribute_model(coarse, PROMPT, 7, 8, layer=1, head=4)
    assert "not really checked, the model's precision tells only differences above 6.2%" in found.statement
    assert all("no real check" in said for said in OVCircuit.from_model(coarse, **READ).provenance.checks)
    assert "checked" not in attribute_model(bridge(exact), PROMPT, 7, 8, layer=1, head=4).statement


# --- B: between a head and the stream, the stream and the logits, the token and the stream ---------


@pytest.mark.slow
def test_a_multiplier_that_no_list_knows_is_measured():
    model = bridge(hugging_face_model("FalconH1", **FALCON_H1))
    # The oracle: the last stream's change when the head's slice of o_proj's input is taken away.
    probe = probe_head(model, 1, 4)
    assert probe.writing.factor == pytest.approx(3, rel=1e-12)
    flags = " ".join(OVCircuit.from_model(model, **READ).provenance.flags)
    assert "attention_out_multiplier = 3 is left out" in flags
    with pytest.raises(ModelError, match=r"change of z W_O, got a difference of 0\.67 .* 3 times that"):
        attribute_model(model, PROMPT, 7, 8, layer=1, head=4)
    del model.original_model.config.attention_out_multiplier  # the number is measured, not looked up
    assert "the model has 3 times that" in " ".join(OVCircuit.from_model(model, **READ).provenance.flags)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["NanoChat", "Bloom", "Gemma", "XGLM"])
def test_what_the_embedding_does_to_a_token_is_folded(kind):
    """Values at layer 0, from the circuit's left factor, are hook_v."""
    if kind == "XGLM":  # a scale of the embedding, then positions; runs in float32 alone
        fields = {"d_model": 24, "ffn_dim": 32, "num_layers": 2, "attention_heads": 6}
        model = named_bridge(kind, torch.float32, max_position_embeddings=32, **fields)
    else:
        model = bridge(hugging_face_model(kind))
    circuit = OVCircuit.from_model(model, layer=0, head=4, inputs=range(32), outputs=[7])
    assert "folded into W_E" in circuit.provenance.folded[0]
    other = torch.tensor([[6, 7, 9, 10, 11]])
    seen = [model.run_with_cache(tokens)[1] for tokens in (TOKENS, other)]
    v = [each["blocks.0.attn.hook_v"][0].detach().double().numpy() for each in seen]
    scale = [each["blocks.0.ln1.hook_scale"].detach().double().numpy().reshape(-1, 1) for each in seen]
    kv = 4 // (6 // v[0].shape[1])
    rows = [circuit.left[tokens[0].numpy()] for tokens in (TOKENS, other)]
    if kind == "XGLM":  # positions drop out of the difference
        found = scale[0] * v[0][:, kv] - scale[1] * v[1][:, kv]
        b_V = model.blocks[0].attn.b_V.reshape(6, 4)[4].double().numpy() * (scale[0] - scale[1])
        assert found - b_V == pytest.approx(rows[0] - rows[1], abs=1e-4 * np.abs(found).max())
        return
    constant = v[0][:, kv] - rows[0] / scale[0]  # b_V and the bias of ln1
    assert constant == pytest.approx(np.tile(constant[:1], (5, 1)), abs=1e-5)
    circuit.check_fresh(model)


def test_a_norm_of_the_embedding_counts_in_the_fingerprint():
    model = bridge(hugging_face_model("Bloom"))
    before = OVCircuit.from_model(model, **READ).provenance.fingerprint
    norm = next(
        p for name, p in model.named_parameters() if "embeddings_layernorm" in name or "embed_ln" in name
    )
    with torch.no_grad():
        norm[3] += 1
    assert OVCircuit.from_model(model, **READ).provenance.fingerprint != before


@pytest.mark.slow
def test_a_write_that_drowns_in_the_streams_rounding_is_said_to_be_unchecked():
    model = hugging_face_model("Llama")
    plain = probe_head(in_dtype(model, torch.float32), 1, 4)
    assert plain.writing.tallies
    model.model.layers[1].mlp.down_proj.weight.mul_(1e12)  # the head writes as much as before
    drowned = in_dtype(model, torch.float32)
    step = probe_head(drowned, 1, 4).writing
    assert (step.error, step.tallies, step.differs) == (None, False, False)
    said = " ".join(OVCircuit.from_model(drowned, **READ).provenance.checks)
    assert "not checked, the stream is so large that its rounding may be" in said
    assert probe_head(bridge(model), 1, 4).writing.error is not None  # float64 still tells


# --- C: between the values and W_O ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "fields"), [("Olmo", {"clip_qkv": 0.3}), ("BitNet", {})])
def test_clamped_or_normed_values_are_refused(kind, fields):
    model = bridge(hugging_face_model(kind, **fields))
    wanted = r"pattern × v = z, got a difference of 0\.\d+ of its size: something stands between the values"
    with pytest.raises(ModelError, match=wanted):
        OVCircuit.from_model(model, **READ)
    with (
        pytest.raises(ModelError, match=wanted),
        ablated(model, Zero().at(Path(tuple(range(32)), layer=1, head=4))),
    ):
        model(TOKENS)
    for read in (attribute_model, head_graph):
        with pytest.raises(ModelError, match=wanted):
            read(model, PROMPT, 7, 8, layer=1, head=4)


def test_a_clamp_that_acts_on_some_prompts_is_flagged_and_refused_there():
    model = hugging_face_model("Olmo")
    values = bridge(model).run_with_cache(torch.arange(32)[:, None])[1]["blocks.0.attn.hook_v"]
    sizes = values.abs().amax((1, 3))
    probed = [5, 11, 18, 26]
    large = int(sizes[:, 1].argmax())  # in the key-value head of head 4
    between = float(sizes[probed].max() + sizes[large, 1]) / 2
    assert sizes[probed].max() < between
    clamped = bridge(hugging_face_model("Olmo", clip_qkv=between))
    flags = OVCircuit.from_model(clamped, **READ | {"layer": 0}).provenance.flags
    assert any("limits large values before z" in flag for flag in flags)
    path = Zero().at(Path((large, 5), layer=0, head=4))
    with ablated(clamped, path):
        clamped(torch.tensor([[5, 11, 18]]))
    with pytest.raises(ModelError, match="on these prompts: the model limits"), ablated(clamped, path):
        clamped(torch.tensor([[5, large, large, 18]]))


# --- D: the weights read are the ones used --------------------------------------------------------


def with_adapters(kind, targets, **fields):
    """A transformers model with random, unmerged LoRA adapters."""
    peft = pytest.importorskip("peft")
    model = hugging_face_model(kind, **fields)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets)).double().eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        parameter.requires_grad_(False)
        if "lora_" in name:
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return wrapped


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "targets", "step"),
    [
        ("Qwen2", ["lm_head"], "the final norm, W_U"),
        ("GPTNeoX", ["query_key_value"], "hook_v"),  # the bridge does not run these at all
    ],
)
def test_unmerged_adapters_that_are_not_read_are_refused_and_merged_ones_read(kind, targets, step):
    wrapped = with_adapters(kind, targets)
    with pytest.raises(ModelError, match=f"needs {step}.*merge adapters"):
        OVCircuit.from_model(bridge(wrapped.get_base_model()), **READ)
    circuit = OVCircuit.from_model(bridge(wrapped.merge_and_unload()), **READ)
    assert not any("left out:" in flag for flag in circuit.provenance.flags)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        pytest.param("Llama", ["q_proj", "v_proj"], marks=pytest.mark.slow),
        ("Llama", ["v_proj", "o_proj"]),
        pytest.param("Qwen2", ["v_proj", "o_proj"], marks=pytest.mark.slow),  # with biases of values
        pytest.param("GPTNeoX", ["dense"], marks=pytest.mark.slow),
    ],
)
def test_unmerged_adapters_are_read_as_the_model_applies_them(kind, targets):
    wrapped = with_adapters(kind, targets)
    model = bridge(wrapped.get_base_model())
    found = OVCircuit.from_model(model, **READ)
    assert "unmerged adapters" in found.provenance.folded[-1]
    here = attribute_model(model, PROMPT, 7, 8, layer=1, head=4)
    merged = wrapped.merge_and_unload()
    there = attribute_model(bridge(merged), PROMPT, 7, 8, layer=1, head=4)
    assert here.contributions == pytest.approx(there.contributions, rel=1e-6, abs=1e-9)
    wanted = OVCircuit.from_model(bridge(merged), **READ)
    assert found.bias == pytest.approx(wanted.bias, rel=1e-8, abs=1e-12)
    if kind != "Llama":
        assert pytest.approx(wanted.W, rel=1e-8, abs=1e-12) == found.W
        return
    # The oracle: the dense product.
    block, head, kv = merged.model.layers[1], slice(16, 20), slice(4, 8)
    left = merged.model.embed_tokens.weight[2:8] * block.input_layernorm.weight
    left = left @ block.self_attn.v_proj.weight[kv].mT @ block.self_attn.o_proj.weight[:, head].mT
    dense = (left * merged.model.norm.weight) @ merged.lm_head.weight[10:13].mT
    assert pytest.approx(dense.numpy(), rel=1e-8) == found.W


@pytest.mark.slow
def test_adapters_of_the_embedding_are_folded_and_all_adapters_count_in_the_fingerprint():
    wrapped = with_adapters("Qwen2", ["embed_tokens"])
    found = OVCircuit.from_model(bridge(wrapped.get_base_model()), **READ)
    merged = OVCircuit.from_model(bridge(wrapped.merge_and_unload()), **READ)
    assert pytest.approx(merged.W, rel=1e-8) == found.W
    model = bridge(with_adapters("Llama", ["v_proj"]).get_base_model())
    first = attribute_model(model, PROMPT, 7, 8, layer=1, head=4)
    adapter = next(p for name, p in model.blocks[1].named_parameters() if "lora_B" in name)
    with torch.no_grad():
        adapter.mul_(1.5)
    assert attribute_model(model, PROMPT, 7, 8, layer=1, head=4).fingerprint != first.fingerprint


# --- J: post-norm ---------------------------------------------------------------------------------


def test_a_post_norm_model_is_refused():
    from transformer_lens import HookedEncoder, HookedTransformerConfig

    shape = {"n_layers": 2, "n_heads": 6, "d_model": 24, "d_head": 4, "d_mlp": 32, "n_ctx": 16, "d_vocab": 32}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = HookedEncoder(
            HookedTransformerConfig(**shape, act_fn="gelu", normalization_type="LN", device="cpu")
        )
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    with pytest.raises(ModelError, match="read the stream without ln1: the model is post-norm"):
        OVCircuit.from_model(model, **READ, labels=hooked_models.WORDS)


@pytest.mark.parametrize("kind", ["Olmo2", "Exaone4"])
def test_post_norm_is_measured_and_not_looked_up(kind, monkeypatch):
    monkeypatch.setattr("ocr_interp.hooked.heads.check_architecture", lambda model, layer: None)
    with pytest.raises(ModelError, match="without ln1: the model is post-norm"):
        OVCircuit.from_model(bridge(hugging_face_model(kind)), **READ)


# --- K: one clear error ---------------------------------------------------------------------------


def test_widths_that_do_not_fit_and_models_with_two_stacks():
    fields = {"hidden_size": 24, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 6}
    narrow = named_bridge("OPT", word_embed_proj_dim=12, max_position_embeddings=32, pad_token_id=1, **fields)
    with pytest.raises(ModelError, match=r"W_E must be as wide as the residual stream \(24\), got 12"):
        OVCircuit.from_model(narrow, **READ)
    with pytest.raises(ModelError, match=r"W_E must be as wide"):
        attribute_model(narrow, PROMPT, 7, 8, layer=1, head=4)
    config = transformers.T5Config(vocab_size=32, d_model=24, d_kv=4, d_ff=32, num_layers=2, num_heads=6)
    config.architectures = ["T5ForConditionalGeneration"]
    t5 = bridge(transformers.T5ForConditionalGeneration(config).double().eval())
    with pytest.raises(ModelError, match="must be decoder-only"):
        OVCircuit.from_model(t5, **READ)


# --- the probe itself -----------------------------------------------------------------------------


def test_probes_leave_the_model_as_it_was_and_see_it_without_the_users_edits():
    model = bridge(hugging_face_model("Llama"))
    model.train()
    model.blocks[0].attn.eval()
    modes = [module.training for module in model.modules()]
    with ablated(model, Zero().at(Site.at("z", layer=1, heads=[4]))):
        inside = model(TOKENS)
        probe = probe_head(model, 1, 4)
        assert torch.equal(model(TOKENS), inside)
    assert all(step.tallies for step in probe.steps().values())
    assert modes == [module.training for module in model.modules()]
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_a_probe_is_asked_once_and_again_when_anything_changes(monkeypatch):
    from ocr_interp.hooked import probes

    runs = []
    run = probes.run_alone
    monkeypatch.setattr(probes, "run_alone", lambda *args: (runs.append(1), run(*args))[1])
    model = bridge(hugging_face_model("Granite", residual_multiplier=0.5))
    assert probe_head(model, 1, 4).writing.factor == pytest.approx(0.5)
    probe_head(model, 1, 2)
    assert len(runs) == 1
    model.original_model.model.layers[1].residual_multiplier = 0.25
    assert probe_head(model, 1, 4).writing.factor == pytest.approx(0.25)
    with torch.no_grad():
        model.blocks[1].attn.o.weight.mul_(2)
    probe_head(model, 1, 4)
    for parameter in model.parameters():
        parameter.data.mul_(1.1)  # keeps the version
    probe_head(model, 1, 4)
    assert len(runs) == 4


def test_a_hooked_transformer_tallies_with_every_norm():
    for norm in (None, "LN", "RMS", "LNPre", "RMSPre"):
        probe = probe_head(hooked_transformer(norm, n_layers=2, attn_only=False, kv_heads=2), 1, 3)
        assert max(step.error for step in probe.steps().values()) < 1e-12
        assert (probe.embeds, probe.limited) == ("rows", False)
