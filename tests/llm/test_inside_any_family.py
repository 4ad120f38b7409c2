"""Inspecting models of any family: cuts are the model's own, and what cannot be read is foreseen."""

import re

import numpy as np
import pytest
import torch
import transformers
from small_facts import SMALL

from analyses.architectures.tiny import tiny_architecture
from ocr_interp.cli.llm import Finetune, Inspect
from ocr_interp.errors import ModelError
from ocr_interp.llm.inside.foreseen import foreseen
from ocr_interp.llm.inside.inside import inspect_models
from ocr_interp.llm.inside.parts import PARTS, REST, parts_of
from ocr_interp.llm.inside.updates import ov_update, ov_weights
from ocr_interp.llm.measuring.measure import Questions
from ocr_interp.llm.models.bridge import as_bridge
from ocr_interp.llm.models.forward import answer_logits
from ocr_interp.llm.models.loading import LanguageModel
from ocr_interp.llm.training.configuration import FinetuneConfig

pytestmark = pytest.mark.slow  # importing transformer_lens alone takes seconds

OUT = {  # the projection that reads z
    "GPT2LMHeadModel": lambda model, k: model.transformer.h[k].attn.c_proj,
    "GPTNeoXForCausalLM": lambda model, k: model.gpt_neox.layers[k].attention.dense,
    "GPTJForCausalLM": lambda model, k: model.transformer.h[k].attn.out_proj,
    "OPTForCausalLM": lambda model, k: model.model.decoder.layers[k].self_attn.out_proj,
    "BloomForCausalLM": lambda model, k: model.transformer.h[k].self_attention.dense,
    "PhiForCausalLM": lambda model, k: model.model.layers[k].self_attn.dense,
    "Phi3ForCausalLM": lambda model, k: model.model.layers[k].self_attn.o_proj,
    "Qwen3ForCausalLM": lambda model, k: model.model.layers[k].self_attn.o_proj,
    "MptForCausalLM": lambda model, k: model.transformer.blocks[k].attn.out_proj,
}


@pytest.fixture
def tiny(tokenizer):
    """A tiny model of an architecture with the facts' vocabulary, in float32."""

    def make(name, seed=0):
        model = tiny_architecture(name, seed, vocab_size=len(tokenizer)).float()
        return LanguageModel(f"tiny {name}", model, tokenizer)

    return make


def ranks_without(lm, facts, head):
    """Ranks of the plain transformers model with a head's slice of the output projection's input zero."""
    layer, index = head
    projection = OUT[type(lm.model).__name__](lm.model, layer)

    def cut(module, args):
        z = args[0].clone()
        z[..., 4 * index : 4 * index + 4] = 0
        return (z, *args[1:])

    handle = projection.register_forward_pre_hook(cut)
    try:
        questions = Questions(facts, lm.tokenizer, lm.pad)
        with torch.no_grad():
            return questions.ask(lambda batch: answer_logits(lm.model, batch), torch.device("cpu"))
    finally:
        handle.remove()


@pytest.mark.parametrize("name", OUT)
def test_every_family_is_inspected_and_its_cuts_are_those_of_transformers(name, tiny, facts):
    before, after = tiny(name), tiny(name, seed=1)
    kept = {key: p.detach().clone() for key, p in after.model.named_parameters()}
    assert foreseen(before, facts) == ()
    inside = inspect_models(before, after, facts, n_heads=1, device="cpu")
    assert not isinstance(inside.circuits, str)
    assert inside.uncut is None
    cuts = {cut.what: cut for cut in inside.cuts}
    wanted = ranks_without(after, facts, inside.heads[0])
    for split, rank in cuts["1 most changed heads zeroed"].ranks.items():
        assert rank == pytest.approx(wanted.mean(split, "rank"), abs=1e-6), split
    for key, parameter in after.model.named_parameters():
        assert torch.equal(parameter, kept[key])
    update = ov_update(ov_weights(before), ov_weights(after))
    np.testing.assert_array_equal(update.relative, inside.update.relative)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GPT2LMHeadModel", {"QKV": 4, "O": 4, "MLP": 8, REST: 2 + 10}),
        ("OPTForCausalLM", {"QK": 8, "OV": 8, "MLP": 8, REST: 2 + 10}),
        ("JambaForCausalLM", None),
    ],
)
def test_parts_are_asked_of_the_bridge(name, expected, tiny):
    lm = tiny(name)
    parts = parts_of(lm)
    assert parts.keys() == dict(lm.model.named_parameters()).keys()
    assert set(parts.values()) <= {*PARTS, REST}
    if expected is None:
        assert parts["model.layers.0.mamba.in_proj.weight"] == "other mixers"
        assert parts["model.layers.1.self_attn.v_proj.weight"] == "OV"
    else:
        assert {part: list(parts.values()).count(part) for part in set(parts.values())} == expected


def test_a_hybrid_has_heads_in_its_attention_layers_alone(tiny, facts):
    inside = inspect_models(
        tiny("JambaForCausalLM"), tiny("JambaForCausalLM", seed=1), facts, n_heads=2, device="cpu"
    )
    assert {layer for layer, _ in inside.heads} == {1}
    assert inside.update.heads() == tuple((1, head) for head in range(6))
    assert inside.to_dict()["ov_update"]["relative"][0] == [None] * 6


@pytest.mark.parametrize(
    ("name", "foretold", "inspected"),
    [
        ("Gemma3ForCausalLM", "will show no OV circuits .* norm after attention", None),
        ("Qwen3NextForCausalLM", "will show no OV circuits .* between the values and W_O", None),
        ("StableLmForCausalLM", "will cut no heads .* as another computation", None),
        (
            "MambaForCausalLM",
            "will not be able to read .* no layer of this bridge has it",
            "no layer of this bridge has it.*evaluate",
        ),
        (
            "DeepseekV3ForCausalLM",
            "will not be able to read .* W_V is not available",
            "ocr-interp llm evaluate",
        ),
    ],
)
def test_what_inspect_leaves_out_is_foreseen(name, foretold, inspected, tiny, facts):
    lm = tiny(name)
    (said,) = foreseen(lm, facts)
    assert re.search(foretold, said)
    if inspected is None:
        inside = inspect_models(lm, tiny(name, seed=1), facts, n_heads=1, device="cpu")
        reason = inside.uncut or inside.circuits
        assert isinstance(reason, str)
        assert reason in inside.summary()
    else:
        with pytest.raises(ModelError, match=inspected):
            inspect_models(lm, lm, facts, n_heads=1, device="cpu")


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "MambaForCausalLM"])
def test_the_commands_say_before_training_what_inspect_cannot_read(name, tiny, tmp_path, capsys):
    lm = tiny(name)
    lm.model.save_pretrained(tmp_path / "base")
    lm.tokenizer.save_pretrained(tmp_path / "base")
    recipe = FinetuneConfig(model=str(tmp_path / "base"), steps=1, log_every=1, lr=1e-3, device="cpu")
    Finetune(tmp_path / "run", SMALL, recipe).run()
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("note:", "step"))]
    inspect = Inspect(tmp_path / "run", n_heads=1, device="cpu")
    if name == "GPT2LMHeadModel":
        assert not any(line.startswith("note:") for line in said)
        inspect.run()
        assert "1 most changed heads zeroed" in capsys.readouterr().out
    else:
        assert said[0].startswith("note: `ocr-interp llm inspect` will not be able to read this model: ")
        assert said[1].startswith("step")
        with pytest.raises(ModelError, match="`ocr-interp llm evaluate`"):
            inspect.run()


def test_models_that_would_install_packages_are_refused_before_they_are_bridged(tokenizer, monkeypatch):
    def boot(*args, **options):
        raise AssertionError("it was booted")

    from transformer_lens.model_bridge import TransformerBridge

    monkeypatch.setattr(TransformerBridge, "boot_transformers", boot)
    model = torch.nn.Linear(2, 2)
    for kind in ("Gemma3", "Qwen2_5_VL", "Qwen2Audio", "Llava", "Idefics3"):
        model.config = getattr(transformers, f"{kind}Config")()
        with pytest.raises(ModelError, match="must be a model of text alone, got one with"):
            as_bridge(LanguageModel(kind, model, tokenizer), torch.device("cpu"))


def test_an_architecture_without_a_bridge_is_one_error(tokenizer):
    config = transformers.BioGptConfig(
        vocab_size=len(tokenizer), hidden_size=24, num_hidden_layers=1, num_attention_heads=6
    )
    lm = LanguageModel("tiny", transformers.BioGptForCausalLM(config), tokenizer)
    with pytest.raises(ModelError, match="no bridge that fits a BioGptForCausalLM"):
        ov_weights(lm)
