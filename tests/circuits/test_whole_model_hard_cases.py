"""Whole models of users as they come: adapters, training mode, coarse precision, hybrids, no attention."""

import warnings

import pytest
import torch
from hooked_models import WORDS, bridge, family, gpt2, hooked_transformer, hugging_face_model
from peft import LoraConfig, get_peft_model

from ocr_interp.circuits.attention.qk import QKCircuit
from ocr_interp.circuits.attribution.whole import direct_attribution
from ocr_interp.circuits.weights.composition import composition
from ocr_interp.errors import ModelError

PROMPT = [3, 4, 5, 3, 9]


def adapted(modules):
    model = hugging_face_model("Llama")
    config = LoraConfig(r=2, target_modules=modules, init_lora_weights=False)
    torch.manual_seed(5)
    return get_peft_model(model, config)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_unmerged_adapters_are_read_as_the_model_uses_them():
    """Of the bridge of its base and of the PeftModel, beside a bridge of the merged weights."""
    import copy

    peft = adapted(["q_proj", "k_proj", "v_proj", "o_proj"])
    merged = bridge(copy.deepcopy(peft).merge_and_unload())
    of_base = bridge(peft.get_base_model())
    wanted = direct_attribution(merged, PROMPT, 7, 8)
    scores = composition(merged)
    where = {"layer": 1, "head": 4, "queries": [3, 4], "keys": [5, 6], "distance": 2}
    W = QKCircuit.from_model(merged, **where).W
    for model in (of_base, peft):
        found = direct_attribution(model, PROMPT, 7, 8)
        assert found.contributions == pytest.approx(wanted.contributions, rel=1e-4, abs=1e-5)
        assert composition(model).heads("K") == pytest.approx(scores.heads("K"), rel=1e-4, abs=1e-5)
        assert pytest.approx(W, rel=1e-4, abs=1e-5) == QKCircuit.from_model(model, **where).W


def test_a_model_in_training_mode_answers_as_in_eval_mode():
    model = bridge(gpt2())
    wanted = direct_attribution(model, PROMPT, 7, 8).contributions
    model.train()
    model.original_model.train()
    assert (direct_attribution(model, PROMPT, 7, 8).contributions == wanted).all()
    assert model.original_model.training


def test_coarse_precision_says_that_it_checks_little():
    model = bridge(hugging_face_model("Llama").to(torch.bfloat16), dtype=torch.bfloat16)
    found = direct_attribution(model, PROMPT, 7, 8)
    assert "not really checked" in found.statement
    assert abs(found.remainders[0]) < 0.1 * abs(found.contributions).sum()


def test_a_model_without_attention_has_layers_as_parts():
    from hooked_models import MAMBA_FIELDS

    model = bridge(family("Mamba", **MAMBA_FIELDS))
    found = direct_attribution(model, PROMPT, 7, 8)
    assert {part.kind for part in found.parts} == {"embedding", "layer"}
    assert found.contributions.sum() == pytest.approx(found.totals[0], rel=1e-4)


@pytest.mark.slow
def test_experts_are_one_part_and_no_weights():
    fields = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    model = hugging_face_model("Qwen3Moe", **fields)
    model.config._experts_implementation = "eager"
    model = bridge(model)
    found = direct_attribution(model, PROMPT, 7, 8)
    assert {"head", "mlp"} <= {part.kind for part in found.parts}
    with pytest.raises(ModelError, match=r"leave it out of neurons|must have an MLP"):
        direct_attribution(model, PROMPT, 7, neurons=[0])


def test_an_edit_of_the_stream_belongs_to_what_its_layer_adds():
    model = hooked_transformer("LN", n_layers=2, attn_only=False)
    plain = direct_attribution(model, PROMPT, 7, 8)
    model.add_hook("blocks.1.hook_resid_post", lambda value, hook: value * 2)
    found = direct_attribution(model, PROMPT, 7, 8)
    model.reset_hooks()
    assert found.contributions.sum() == pytest.approx(found.totals[0])
    assert found.of("MLP 1") != pytest.approx(plain.of("MLP 1"))


@pytest.mark.parametrize("kind", ["Olmo2", "Exaone4"])
def test_norms_of_what_is_written_leave_the_stream_a_sum(kind):
    model = bridge(hugging_face_model(kind))
    found = direct_attribution(model, PROMPT, 7, 8)
    assert {part.kind for part in found.parts} == {"embedding", "attention", "mlp"}
    assert found.contributions.sum() == pytest.approx(found.totals[0], rel=1e-5)


def test_a_post_norm_model_is_refused():
    from transformer_lens import HookedEncoder

    cfg = hooked_transformer("LN", n_layers=2, attn_only=False).cfg
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = HookedEncoder(cfg)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    names = {"labels": WORDS}
    with pytest.raises(ModelError, match="post-norm"):
        direct_attribution(model, PROMPT, 7, 8, **names)
    with pytest.raises(ModelError, match="something else acts on queries"):
        composition(model)
    with pytest.raises(ModelError, match="something else acts on queries"):
        QKCircuit.from_model(model, layer=0, head=0, queries=[3], keys=[4], **names)


def test_padding_is_refused():
    model = bridge(hugging_face_model("Llama"))
    with pytest.raises(ModelError, match="leave the padding out"):
        direct_attribution(model, [[1, 3, 4], [5, 3, 4]], 7)
