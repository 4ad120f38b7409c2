"""A bridge that computes something else than the model that it wraps is told, by asking both."""

import hooked_models
import pytest
import torch
from hooked_models import bridge, family, hooked_transformer, hugging_face_model

from ocr_interp.ablation import Path, Site, Zero, ablated
from ocr_interp.circuits.attribution.of_model import attribute_model
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import ModelError
from ocr_interp.hooked.asked import wrapped
from ocr_interp.hooked.asked.wrapped import compare_with_wrapped

PROMPT = [3, 4, 5, 3, 9]
TOKENS = torch.tensor([PROMPT])
READ = {"layer": 1, "head": 2, "inputs": range(2, 8), "outputs": [10, 11, 12]}
FALCON = {"hidden_size": 24, "num_attention_heads": 6, "num_hidden_layers": 2, "bos_token_id": 1}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["HunYuanDenseV1", "Cohere2", "StableLm"])
def test_a_bridge_with_other_patterns_is_read_and_never_run(kind):
    """transformer-lens 3.9 turns or norms queries and keys of these in another way."""
    fields = {"HunYuanDenseV1": {}, "Cohere2": {"logit_scale": 1.0}, "StableLm": {"qk_layernorm": False}}[
        kind
    ]
    inner = hugging_face_model(kind, **fields)
    model = bridge(inner)
    with torch.no_grad():
        error = float((model(TOKENS) - inner(TOKENS).logits).norm() / inner(TOKENS).logits.norm())
    if error < 1e-4:
        pytest.skip("this version of transformer-lens bridges it as transformers runs it")
    flags = " ".join(OVCircuit.from_model(model, **READ).provenance.flags)
    assert "the bridge's logits = those of the model that it wraps: off by" in flags
    with pytest.raises(ModelError, match=r"an attribution needs .* \(W_V and W_O are the model's"):
        attribute_model(model, PROMPT, 7, 8, layer=1, head=2)
    for place in (Site.at("z", layer=1, heads=[2]), Path((3,), layer=1, head=2)):
        with (
            pytest.raises(ModelError, match="an intervention needs the bridge's logits"),
            ablated(model, Zero().at(place)),
        ):
            model(TOKENS)


def test_values_that_a_bridge_splits_in_another_way_are_not_read():
    """Falcon's new decoder with as many key-value heads as heads: the joint projection is interleaved."""
    fields = FALCON | {"new_decoder_architecture": True, "multi_query": False, "num_kv_heads": 6}
    model = bridge(family("Falcon", **fields))
    with pytest.raises(ModelError, match=r"the OV circuit needs .* so its weights and activations are not"):
        OVCircuit.from_model(model, **READ)
    plain = family("Falcon", **FALCON, new_decoder_architecture=False, multi_query=True, num_kv_heads=1)
    assert not any("wraps" in flag for flag in OVCircuit.from_model(bridge(plain), **READ).provenance.flags)


@pytest.mark.parametrize("kind", ["GPT2", "Llama", "Bloom", "GPTNeoX"])
def test_a_faithful_bridge_is_said_to_be_one_and_left_as_it_was(kind):
    inner = hooked_models.gpt2() if kind == "GPT2" else hugging_face_model(kind)
    model = bridge(inner)
    before = model(TOKENS)
    found = compare_with_wrapped(model)
    assert found is not None
    assert found.logits.error is not None
    assert found.logits.error < 1e-6
    assert torch.equal(model(TOKENS), before)
    assert any("that it wraps: to" in said for said in OVCircuit.from_model(model, **READ).provenance.checks)


def test_what_was_added_to_a_projection_that_the_bridge_does_not_run_is_noticed():
    """The same kind as an adapter of a joint projection: the bridge runs split copies of it."""
    model = bridge(hooked_models.gpt2())
    assert compare_with_wrapped(model).logits.tallies
    joint = model.blocks[0].attn.qkv.original_component
    joint.register_forward_hook(lambda module, args, output: output * 1.5)
    with (
        pytest.raises(ModelError, match="needs the bridge's logits"),
        ablated(model, Zero().at(Site.at("z", layer=1))),
    ):
        model(TOKENS)


def test_a_bridge_that_was_trained_itself_or_folded_is_no_copy_of_what_it_wraps():
    trained, folded = bridge(hooked_models.gpt2()), bridge(hugging_face_model("Llama"))
    with torch.no_grad():
        value = trained.blocks[1].attn.v.original_component
        value.weight = torch.nn.Parameter(2 * value.weight, requires_grad=False)  # no view of the joint one
    folded.enable_compatibility_mode()
    found = compare_with_wrapped(trained)
    assert found is not None
    assert found.logits.error is None
    assert "changed since" in found.logits.note
    assert compare_with_wrapped(folded) is None
    assert compare_with_wrapped(hooked_transformer("LN")) is None
    for model in (trained, folded):
        with ablated(model, Zero().at(Site.at("z", layer=1))):
            model(TOKENS)


def test_a_model_that_does_not_run_by_itself_is_said_to_be_unchecked(monkeypatch):
    def fail(model):
        raise ValueError("no\nsecond line")

    monkeypatch.setattr(wrapped, "components_out", fail)
    model = bridge(hugging_face_model("Llama"))
    found = compare_with_wrapped(model)
    assert found is not None
    assert found.logits.note == "that model does not run by itself (ValueError: no)"
    flags = " ".join(OVCircuit.from_model(model, **READ).provenance.checks)
    assert "not checked, that model does not run by itself" in flags
