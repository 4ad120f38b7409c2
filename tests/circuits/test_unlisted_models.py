"""Kinds of failure that random models found: each on the model that showed it and on another one."""

import hooked_models
import pytest
import torch
from hooked_models import bridge, family, hugging_face_model

from ocr_interp.ablation import Mean, Path, Site, Zero, ablated
from ocr_interp.circuits.attribution.of_model import attribute_model
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import InterventionNeverFiredError, ModelError
from ocr_interp.hooked.probes import probe_head

PROMPT = [3, 4, 5, 3, 9]
TOKENS = torch.tensor([PROMPT])
READ = {"layer": 1, "head": 1, "inputs": range(2, 8), "outputs": [10, 11, 12]}
SHAPE = {
    "n_layers": 2,
    "n_heads": 4,
    "d_model": 12,
    "d_head": 3,
    "n_ctx": 8,
    "d_vocab": 32,
    "attn_only": True,
}


def lens(**fields):
    import warnings

    from transformer_lens import HookedTransformer, HookedTransformerConfig

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cfg = HookedTransformerConfig(**SHAPE, **fields, dtype=torch.float64, device="cpu", seed=0)
        return HookedTransformer(cfg).eval()


@pytest.mark.parametrize("norm", ["LN", "RMSPre"])
@pytest.mark.parametrize("kv_heads", [None, 2])
def test_a_scale_for_every_head_is_no_scale_for_every_position(norm, kv_heads):
    """With split inputs ln1 runs on a copy of the stream for each head."""
    model = lens(normalization_type=norm, use_split_qkv_input=True, n_key_value_heads=kv_heads)
    probe = probe_head(model, 1, 3)
    assert max(step.error for step in probe.steps().values()) < 1e-12


def test_a_probe_leaves_no_memory_of_its_longer_prompt():
    model = lens(normalization_type="LN", positional_embedding_type="alibi")
    short = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        first = model(short)
        probe_head(model, 1, 2)
        attribute_model(model, [*PROMPT, 6], 7, 8, layer=1, head=2)
        assert torch.equal(model(short), first)


@pytest.mark.parametrize("kind", ["NanoChat", "OPT"])
def test_a_reference_on_a_path_without_a_pattern_says_so(kind):
    model = bridge(hugging_face_model(kind, attn_implementation="sdpa"))
    with (
        pytest.raises(InterventionNeverFiredError, match=r"on the reference must come by .*hook_pattern"),
        ablated(model, Mean(TOKENS).at(Path((3,), layer=1, head=2))),
    ):
        model(TOKENS)


def test_a_reference_at_a_hook_that_is_off_says_so():
    model = hooked_models.hooked_transformer("LN")
    with (
        pytest.raises(
            InterventionNeverFiredError, match=r"hook_result, got nothing there: .*use_attn_result"
        ),
        ablated(model, Mean(TOKENS).at(Site("blocks.0.attn.hook_result"))),
    ):
        model(TOKENS)


@pytest.mark.slow
def test_where_the_pattern_is_hidden_first_tokens_tell_a_gate():
    model = bridge(hugging_face_model("OPT", attn_implementation="sdpa"))
    checks = OVCircuit.from_model(model, **READ).provenance.checks
    assert any(said.startswith("v = z of a first token: to") for said in checks)
    fields = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 32}
    for attention in ("sdpa", "eager"):
        grouped = {"head_dim": 4, "num_key_value_heads": 2, "attn_implementation": attention}
        inner = family("Laguna", **fields, **grouped).float()  # its experts run in no float64
        gated = bridge(inner, torch.float32)
        with pytest.raises(ModelError, match=r"the OV circuit .* got a difference of 0\.\d+ of its size"):
            OVCircuit.from_model(gated, **READ)


def test_in_bfloat16_a_hidden_pattern_is_not_checked_and_the_result_says_so():
    model = bridge(hugging_face_model("OPT", attn_implementation="sdpa").bfloat16(), torch.bfloat16)
    provenance = OVCircuit.from_model(model, **READ).provenance
    assert any(said.startswith("v = z of a first token: not checked") for said in provenance.checks)
    assert any("does not tell a gate near 1 from none" in flag for flag in provenance.flags)
    seen = bridge(hugging_face_model("OPT", attn_implementation="eager").bfloat16(), torch.bfloat16)
    assert not any("gate near 1" in flag for flag in OVCircuit.from_model(seen, **READ).provenance.flags)


def test_models_whose_layers_the_bridge_reads_none_of_are_told_so():
    fields = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 6, "intermediate_size": 32}
    recurrent = {"lru_width": None, "block_types": ["recurrent", "recurrent", "attention"]}
    model = bridge(family("RecurrentGemma", **fields, **recurrent, head_dim=4, num_key_value_heads=2))
    none = "got no attention: no layer of this bridge has it"
    with pytest.raises(ModelError, match=none):
        OVCircuit.from_model(model, **READ)
    with pytest.raises(ModelError, match=none):
        attribute_model(model, PROMPT, 7, 8, layer=2, head=1)
    hybrid = {"hybrid_override_pattern": "M*-", "mamba_num_heads": 2, "mamba_head_dim": 4, "n_groups": 1}
    model = bridge(
        family("NemotronH", **fields, **hybrid, head_dim=4, num_key_value_heads=2, ssm_state_size=4)
    )
    with pytest.raises(ModelError, match="no layer of this bridge has it"):
        OVCircuit.from_model(model, **READ)


def test_a_bridge_that_does_not_come_by_the_stream_is_not_called_fused():
    model = bridge(family("OpenAIGPT", architecture="OpenAIGPTLMHeadModel", n_embd=24, n_head=6, n_layer=2))
    for ask in (
        lambda: attribute_model(model, PROMPT, 7, 8, layer=0, head=2),
        lambda: OVCircuit.from_model(model, **READ),
    ):
        with pytest.raises(ModelError, match="without ln1: the model is post-norm"):
            ask()
    with ablated(model, Zero().at(Site.at("z", layer=0, heads=[2]))):
        model(TOKENS)
