"""What kind of model it is as a whole: decoder-only or not, and the same as what its bridge wraps or not."""

from types import SimpleNamespace

import pytest
import torch
from hooked_models import bridge, gpt2, hooked_transformer, hugging_face_model

from analyses.architectures.tiny import tiny_architecture
from ocr_interp.ablation import Path, Site, Zero, ablated
from ocr_interp.circuits.attribution.of_model import attribute_model
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import ModelError
from ocr_interp.graphs.head_graph import head_graph
from ocr_interp.hooked.asked.wrapped import compare_with_wrapped, components_out
from ocr_interp.hooked.protocol import check_model

PROMPT = [3, 4, 5, 3, 9]
TOKENS = torch.tensor([PROMPT])
AT = {"layer": 1, "head": 4}
READ = {**AT, "inputs": range(2, 8), "outputs": [10, 11, 12]}


def enter(model, intervention):
    with ablated(model, intervention):
        model(TOKENS)


def asked(model):
    """The ways to ask a model anything."""
    return {
        "circuit": lambda: OVCircuit.from_model(model, **READ),
        "attribution": lambda: attribute_model(model, PROMPT, 7, 8, **AT),
        "graph": lambda: head_graph(model, PROMPT, 7, 8, **AT),
        "ablation": lambda: enter(model, Zero().at(Site.at("z", layer=1, heads=[4]))),
        "path": lambda: enter(model, Zero().at(Path((3, 4), **AT))),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("BertForMaskedLM", "reads what comes after a token|norm after attention"),
        ("BartForConditionalGeneration", "one stack of blocks"),
        ("MarianMTModel", "got a MarianMTModel without `blocks`"),
        ("T5ForConditionalGeneration", "one stack of blocks"),
    ],
)
def test_models_that_are_not_decoder_only_are_one_error_everywhere(name, why):
    model = bridge(tiny_architecture(name))
    for what, ask in asked(model).items():
        with pytest.raises(ModelError, match=why) as found:
            ask()
        assert len(str(found.value)) < 400, what


def test_a_bridge_of_two_stacks():
    with pytest.raises(ModelError, match="one stack of blocks"):
        check_model(bridge(tiny_architecture("T5GemmaForConditionalGeneration")))


def test_a_bridge_without_weights_between_tokens_and_logits():
    """A stand-in: booting a bridge of a model of images may install packages."""

    class Inside:
        """Has no tokens."""

        config = SimpleNamespace(architectures=["ViTModel"])

    class Bridge:
        original_model = Inside()
        blocks = ()

    with pytest.raises(ModelError, match=r"must be decoder-only, .* got a ViTModel without an embedding"):
        check_model(Bridge())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["StableLmForCausalLM", "HunYuanDenseV1ForCausalLM"])
def test_a_bridge_with_other_logits_is_told_of_and_not_run(name):
    source = tiny_architecture(name)
    model = bridge(source)
    wanted = source(TOKENS).logits
    with components_out(model.original_model):
        assert torch.equal(model.original_model(TOKENS).logits, wanted)
    assert not torch.allclose(model(TOKENS), wanted, rtol=0.01)
    circuit = OVCircuit.from_model(model, **READ)
    assert any("as another computation" in flag for flag in circuit.provenance.flags)
    for what in ("attribution", "graph", "ablation", "path"):
        with pytest.raises(ModelError, match=r"the bridge.s logits = those .* difference of 0\."):
            asked(model)[what]()


def test_a_bridge_with_the_same_logits_is_said_to_have_them():
    model = bridge(hugging_face_model("Llama"))
    before = model(TOKENS)
    circuit = OVCircuit.from_model(model, **READ)
    assert any("of the model that it wraps: to " in said for said in circuit.provenance.checks)
    assert torch.equal(model(TOKENS), before)
    assert compare_with_wrapped(hooked_transformer("LN")) is None


def test_weights_that_only_the_bridge_has_are_not_held_against_it():
    """A joint projection is split by a bridge: the copies are what it runs and what it would train."""
    model = bridge(hugging_face_model("Bloom"))
    with torch.no_grad():
        model.blocks[0].attn.v.weight.mul_(2)
    enter(model, Zero().at(Site.at("z", layer=1, heads=[4])))
    found = compare_with_wrapped(model)
    assert found is not None
    assert "copies of joint projections were changed" in found.logits.describe()
    processed = bridge(gpt2())
    processed.enable_compatibility_mode()
    enter(processed, Zero().at(Site.at("z", layer=1, heads=[4])))
    assert compare_with_wrapped(processed) is None


def test_a_post_norm_model_is_one_error():
    model = bridge(tiny_architecture("OpenAIGPTLMHeadModel"))
    for what in ("circuit", "attribution", "graph"):
        with pytest.raises(ModelError, match="without ln1: the model is post-norm"):
            asked(model)[what]()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["NemotronHForCausalLM", "RecurrentGemmaForCausalLM", "Zamba2ForCausalLM"])
def test_where_no_layer_will_do_no_other_layer_is_advised(name):
    model = bridge(tiny_architecture(name))
    for what in ("circuit", "attribution", "graph", "path"):
        with pytest.raises(ModelError, match="no layer of this bridge has it"):
            asked(model)[what]()


def test_layers_with_heads_of_other_sizes_are_one_error():
    model = bridge(tiny_architecture("Gemma4ForCausalLM"))
    for what in ("circuit", "attribution", "path"):
        with pytest.raises(ModelError, match=r"geometry|norm after attention|pattern × v") as found:
            asked(model)[what]()
        assert len(str(found.value)) < 600
