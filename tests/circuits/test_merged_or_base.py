"""Adapters are read without merging by hand: W_0 + ΔW, W_0 and ΔW, against dense products."""

import copy
import warnings

import hooked_models
import numpy as np
import pytest
import torch
from hooked_models import bridge, gpt2, hugging_face_model
from torch.nn.utils import parametrizations, parametrize

from ocr_interp.circuits.attribution.attribute import attribute
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import ModelError, StaleCircuitError, UnknownNameError
from ocr_interp.graphs.head_graph import head_graph
from ocr_interp.hooked.protocol import check_model

peft = pytest.importorskip("peft")

SLOW = pytest.mark.slow
READ = {"layer": 1, "head": 4, "inputs": range(2, 8), "outputs": [10, 11, 12]}
SPLIT, FUSED = ["q_proj", "k_proj", "v_proj", "o_proj"], {"GPT2": ["c_attn", "c_proj"]}
TARGETS = {"Llama": SPLIT, "Qwen2": SPLIT, "GPT2": FUSED["GPT2"], "GPTNeoX": ["query_key_value", "dense"]}
ADDED = ("lora_", "hada_", "lokr_", "ia3_", "oft_", "vera_", "modules_to_save", "trainable_tokens_delta")


def plain(kind):
    return gpt2() if kind == "GPT2" else hugging_face_model(kind)


def randomise(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ADDED) and "base_layer" not in name:
                noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                parameter.add_(0.3 * noise)
    return model


def wrapped(model, config):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(model, config)


def adapted(kind, method="Lora", **options):
    """A PeftModel in float64 with random adapters."""
    options = {"target_modules": TARGETS[kind], **({"r": 2} if method == "Lora" else {}), **options}
    return randomise(wrapped(plain(kind), getattr(peft, f"{method}Config")(**options)).double().eval())


def dense(model, kind):
    """W_E ln1 W_V W_O ln_final W_U of layer 1, head 4, written out from a transformers model."""
    head, kv = slice(16, 20), slice(16, 20)
    if kind == "GPT2":
        block, last, W_E = model.transformer.h[1], model.transformer.ln_f, model.transformer.wte.weight
        W_V, W_O = block.attn.c_attn.weight[:, 48:][:, kv], block.attn.c_proj.weight[head]
        ln1 = block.ln_1
    elif kind == "GPTNeoX":
        block, last, W_E = model.gpt_neox.layers[1], model.gpt_neox.final_layer_norm, model.gpt_neox.embed_in
        W_E, ln1 = W_E.weight, block.input_layernorm
        W_V = block.attention.query_key_value.weight.reshape(6, 3, 4, 24)[4, 2].mT
        W_O = block.attention.dense.weight[:, head].mT
    else:
        block, last, W_E = model.model.layers[1], model.model.norm, model.model.embed_tokens.weight
        kv, ln1 = slice(4, 8), block.input_layernorm  # 6 heads share 2 key-value heads
        W_V, W_O = block.self_attn.v_proj.weight[kv].mT, block.self_attn.o_proj.weight[:, head].mT

    def through(norm, x):
        x = x - x.mean(-1, keepdim=True) if norm.bias is not None else x
        return x * norm.weight

    W_U = model.get_output_embeddings().weight[10:13].mT
    with torch.no_grad():
        norms = [ln1, last]
        for norm in norms:
            norm.bias = getattr(norm, "bias", None)
        return (through(last, through(ln1, W_E[2:8]) @ W_V @ W_O) @ W_U).numpy()


def merged(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return copy.deepcopy(model).merge_and_unload()


def sides(source, **read):
    return {of: OVCircuit.from_model(source, of=of, **(READ | read)) for of in ("merged", "base", "update")}


def assert_sides(source, model, kind):
    """All three sides are the dense products, and the model is left as it was."""
    before = [(p.clone(), p.requires_grad) for p in model.parameters()]
    found = sides(source)
    wanted, base = dense(merged(model), kind), dense(plain(kind), kind)
    assert np.abs(wanted - base).max() > 0.01 * np.abs(base).max()
    np.testing.assert_allclose(found["merged"].W, wanted, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(found["base"].W, base, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(found["update"].W, wanted - base, rtol=1e-8, atol=1e-12)
    bias = found["merged"].bias - found["base"].bias
    np.testing.assert_allclose(found["update"].bias, bias, rtol=1e-8, atol=1e-12)
    for of, circuit in found.items():
        circuit.check_fresh(source)
        assert circuit.provenance.of == of
    for (value, trained), now in zip(before, model.parameters(), strict=True):
        assert torch.equal(value, now)
        assert trained == now.requires_grad
    return found


@pytest.mark.parametrize(
    "kind", ["GPT2", *(pytest.param(kind, marks=SLOW) for kind in TARGETS if kind != "GPT2")]
)
def test_a_peft_model_gives_what_it_uses_its_base_and_its_update(kind):
    model = adapted(kind)
    found = assert_sides(model, model, kind)
    assert "without its adapters" in found["base"].provenance.summary()
    assert found["update"].provenance.folded[-1].startswith("merged - base")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("Qwen2", SPLIT),
        pytest.param("Llama", SPLIT, marks=SLOW),
        pytest.param("GPT2", ["attn.c_proj"], marks=SLOW),
        pytest.param("GPTNeoX", ["dense"], marks=SLOW),
    ],
)
def test_a_bridge_of_its_base_gives_the_same(kind, targets):
    model = adapted(kind, target_modules=targets)
    hooked = bridge(model.get_base_model())
    modes = [each.training for each in hooked.modules()]
    found = assert_sides(hooked, model, kind)
    assert found["merged"].left.shape[1] == 4
    assert found["update"].left.shape[1] == (8 if len(targets) > 1 else 4)  # ΔV V_O' + V ΔO, or one of them
    assert modes == [each.training for each in hooked.modules()]


@SLOW
@pytest.mark.parametrize(
    ("kind", "method", "options"),
    [
        ("Llama", "Lora", {"use_dora": True}),
        ("GPT2", "Lora", {"use_dora": True, "fan_in_fan_out": True}),
        ("Qwen2", "Lora", {"use_rslora": True, "lora_alpha": 5}),
        ("Qwen2", "Lora", {"target_modules": ["v_proj"], "lora_bias": True}),
        ("Llama", "Lora", {"modules_to_save": ["embed_tokens", "lm_head"]}),
        ("Llama", "Lora", {"target_modules": ["q_proj"], "modules_to_save": ["o_proj"]}),
        ("Llama", "Lora", {"target_modules": ["v_proj"], "trainable_token_indices": [3, 5]}),
        ("Llama", "Lora", {"target_modules": ["embed_tokens"]}),
        ("Llama", "LoHa", {"r": 2}),
        ("Llama", "LoKr", {"r": 2}),
        ("Llama", "IA3", {"target_modules": ["k_proj", "v_proj"], "feedforward_modules": []}),
        ("Llama", "OFT", {"r": 0, "oft_block_size": 4}),
        ("Llama", "Vera", {"r": 2, "target_modules": ["v_proj"]}),
    ],
)
def test_every_method_that_is_linear_in_the_input_is_read(kind, method, options):
    model = adapted(kind, method, **options)
    assert_sides(model, model, kind)
    if kind != "GPT2":
        assert_sides(bridge(model.get_base_model()), model, kind)


@SLOW
def test_several_adapters_are_read_as_they_are_active():
    model = adapted("Llama")
    model.add_adapter("second", peft.LoraConfig(r=3, lora_alpha=7, target_modules=["v_proj"]))
    randomise(model.double(), seed=2)
    found = []
    for active in ("default", "second", ["default", "second"]):
        model.base_model.set_adapter(active)
        found.append(assert_sides(model, model, "Llama")["merged"].W)
        hooked = bridge(model.get_base_model())
        np.testing.assert_allclose(OVCircuit.from_model(hooked, **READ).W, found[-1], rtol=1e-8)
    assert np.abs(found[0] - found[1]).min() > 0


@SLOW
def test_disabled_and_merged_adapters():
    model = adapted("Llama")
    wanted = sides(model)
    with model.disable_adapter():
        for source in (model, bridge(model.get_base_model())):
            found = OVCircuit.from_model(source, **READ)
            np.testing.assert_allclose(found.W, wanted["base"].W, rtol=1e-10)
            assert found.provenance.flags[0].startswith("the model's adapters are switched off")
            with pytest.raises(ModelError, match="needs adapters that are on"):
                OVCircuit.from_model(source, of="update", **READ)
    np.testing.assert_allclose(OVCircuit.from_model(model, **READ).W, wanted["merged"].W, rtol=1e-10)
    model.merge_adapter()
    weights = [p.clone() for p in model.parameters()]
    for of, circuit in sides(model).items():
        np.testing.assert_allclose(circuit.W, wanted[of].W, rtol=1e-8, atol=1e-12)
    hooked = bridge(model.get_base_model())
    np.testing.assert_allclose(OVCircuit.from_model(hooked, **READ).W, wanted["merged"].W, rtol=1e-10)
    with pytest.raises(ModelError, match=r"call unmerge_adapter\(\) first, or pass the PeftModel"):
        OVCircuit.from_model(hooked, of="base", **READ)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("source", ["bridge", pytest.param("PeftModel", marks=SLOW)])
def test_training_the_adapter_changes_the_fingerprint_of_what_it_changes(source):
    model = adapted("GPT2" if source == "PeftModel" else "Llama")
    if source == "PeftModel":
        layer = model.get_base_model().transformer.h[1].attn.c_attn
    else:
        model = bridge(model.get_base_model())
        layer = model.blocks[1].attn.v.original_component
    found = sides(model)
    layer.lora_B["default"].weight.data.mul_(1.5)  # keeps the version
    found["base"].check_fresh(model)
    for of in ("merged", "update"):
        with pytest.raises(StaleCircuitError):
            found[of].check_fresh(model)
        assert np.abs(OVCircuit.from_model(model, of=of, **READ).W - found[of].W).max() > 1e-3


@SLOW
def test_what_the_base_cannot_be_without_is_said():
    model = adapted("Qwen2", bias="lora_only")
    for source in (model, bridge(model.get_base_model())):
        flags = OVCircuit.from_model(source, of="base", **READ).provenance.flags
        assert flags[0].startswith("bias='lora_only' trained the biases of the base too")


@pytest.mark.slow
def test_an_update_elsewhere_is_zero_and_says_so():
    model = bridge(adapted("Llama", target_modules=["q_proj"]).get_base_model())
    found = OVCircuit.from_model(model, of="update", **READ)
    assert not found.W.any()
    assert "the adapters change nothing of this circuit: they act elsewhere" in found.provenance.flags
    assert found.singular_values.max() == 0


@SLOW
def test_a_small_update_of_a_coarse_model_is_not_rounded_away():
    """In bfloat16 a merge would round an update of 0.1 % away."""
    model = adapted("Llama", target_modules=["v_proj"])
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.mul_(1e-3)
    coarse = copy.deepcopy(model).bfloat16()
    wanted = dense(merged(coarse.double()), "Llama") - dense(coarse.unload(), "Llama")
    for source in (copy.deepcopy(model).bfloat16(), copy.deepcopy(model).bfloat16().get_base_model()):
        of_copy = source if hasattr(source, "peft_config") and hasattr(source, "get_base_model") else None
        hooked = of_copy or bridge(source, torch.bfloat16)
        found = OVCircuit.from_model(hooked, of="update", **READ).W
        assert np.abs(found - wanted).max() < (1e-3 if of_copy else 1e-6) * np.abs(wanted).max()


@pytest.mark.slow
def test_what_is_no_change_of_weights_is_refused():
    base = plain("Llama")
    for config in (
        peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
        peft.AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_layers=1, adapter_len=2),
    ):
        model = wrapped(copy.deepcopy(base), config)
        with pytest.raises(ModelError, match=r"adds prompts or modules: pass a bridge of its base"):
            OVCircuit.from_model(model, **READ)
    for source in (bridge(base), hooked_models.hooked_transformer(n_layers=2)):
        with pytest.raises(ModelError, match="needs adapters that can be switched off"):
            OVCircuit.from_model(source, **READ | {"head": 1}, of="base")
    with pytest.raises(UnknownNameError, match="of"):
        OVCircuit.from_model(bridge(base), **READ, of="delta")
    bridged = adapted("Llama")
    bridge_of = hooked_models.bridge
    from transformer_lens.model_bridge import TransformerBridge

    TransformerBridge.boot_transformers(
        "tiny", hf_model=bridged.get_base_model(), tokenizer=hooked_models.tokenizer(), device="cpu"
    )
    with pytest.raises(ModelError, match="got one that a bridge was booted on"):
        OVCircuit.from_model(bridged, **READ)
    joint = bridge_of(adapted("GPT2").get_base_model())
    for of in ("merged", "update"):
        with pytest.raises(ModelError, match="or pass the PeftModel itself to from_model"):
            OVCircuit.from_model(joint, of=of, **READ)


@pytest.mark.slow
def test_other_questions_take_a_peft_model_or_say_what_to_pass():
    model = adapted("GPT2")
    hooked = bridge(merged(model))
    prompt = [3, 4, 5]
    here = attribute(model, prompt, 7, 8, layer=1, head=4)
    there = attribute(hooked, prompt, 7, 8, layer=1, head=4)
    np.testing.assert_allclose(here.contributions, there.contributions, rtol=1e-8)
    graphs = [head_graph(each, prompt, 7, 8, layer=1, head=4) for each in (model, hooked)]
    assert graphs[0].effects[0].total == pytest.approx(graphs[1].effects[0].total, rel=1e-8)
    with pytest.raises(ModelError, match=r"hf_model=copy\.deepcopy\(model\)\.merge_and_unload\(\)"):
        check_model(model)  # of `ablated`, which acts on the model that the user runs


class Own(torch.nn.Module):
    """LoRA as somebody may write it, without a switch; not linear where `bent`."""

    def __init__(self, linear, bent):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.linear, self.bent, out = linear, bent, linear.out_features
        self.A = torch.nn.Parameter(torch.randn(2, 24, generator=generator, dtype=torch.float64))
        self.B = torch.nn.Parameter(torch.randn(out, 2, generator=generator, dtype=torch.float64))
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x):
        inner = x @ self.A.mT
        return self.linear(x) + (inner.relu() if self.bent else inner) @ self.B.mT


@pytest.mark.slow
def test_an_adapter_of_ones_own_is_read_if_it_is_linear():
    for bent in (False, True):
        model = plain("Llama").requires_grad_(False)
        attention = model.model.layers[1].self_attn
        attention.v_proj = Own(attention.v_proj, bent)
        hooked = bridge(model)
        if bent:
            with pytest.raises(ModelError, match="needs hook_v"):
                OVCircuit.from_model(hooked, **READ)
            continue
        written = plain("Llama")
        written.model.layers[1].self_attn.v_proj.weight += (attention.v_proj.B @ attention.v_proj.A).detach()
        found = OVCircuit.from_model(hooked, **READ)
        np.testing.assert_allclose(found.W, dense(written, "Llama"), rtol=1e-8)
        with pytest.raises(ModelError, match="needs adapters that can be switched off"):
            OVCircuit.from_model(hooked, of="base", **READ)


# --- parametrisations and quantization --------------------------------------------------------------


class Cubed(torch.nn.Module):
    def forward(self, x):
        return 2 * x + 0.1 * x**3


@pytest.mark.slow
@pytest.mark.parametrize("part", ["v_proj", pytest.param("o_proj", marks=SLOW)])
@pytest.mark.parametrize(
    "make",
    [
        lambda module: parametrize.register_parametrization(module, "weight", Cubed()),
        pytest.param(parametrizations.weight_norm, marks=SLOW),
        pytest.param(parametrizations.spectral_norm, marks=SLOW),
        torch.nn.utils.spectral_norm,  # recomputes the weight in a hook before each pass
    ],
)
def test_parametrised_weights_are_read_as_they_are_used(part, make):
    model = plain("Llama")
    make(getattr(model.model.layers[1].self_attn, part))
    hooked = bridge(model.requires_grad_(False))
    inside = getattr(hooked.blocks[1].attn, part[0]).original_component
    for _ in range(2):
        inside.eval()
        with torch.no_grad():
            used = inside(torch.eye(24, dtype=torch.float64)).mT
        inside.train()
        kept = copy.deepcopy(inside.state_dict())
        written = plain("Llama")
        getattr(written.model.layers[1].self_attn, part).weight.copy_(used)
        found = OVCircuit.from_model(hooked, **READ)
        np.testing.assert_allclose(found.W, dense(written, "Llama"), rtol=1e-8, atol=1e-12)
        assert all(torch.equal(kept[name], value) for name, value in inside.state_dict().items())
        for parameter in inside.parameters():
            parameter.data.mul_(1.3)  # trained on


def test_quantized_weights_are_refused():
    class Quantized(torch.nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.scale = torch.nn.Parameter(linear.weight.abs().max() / 100, requires_grad=False)
            bits = (linear.weight / self.scale).round().to(torch.int8)
            self.weight, self.bias = torch.nn.Parameter(bits, requires_grad=False), None

        def forward(self, x):
            return x @ (self.weight.to(x.dtype) * self.scale).mT

    model = plain("Llama")
    attention = model.model.layers[1].self_attn
    attention.v_proj = Quantized(attention.v_proj)
    with pytest.raises(ModelError, match=r"its dtype is torch\.int8"):
        OVCircuit.from_model(bridge(model), **READ)
