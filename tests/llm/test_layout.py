"""What one watched pass says of a model is what the model does: sums, positions and parts."""

import pytest
import torch
from ten_families import IDS, OTHERS, families, tiny
from transformers import AutoModelForCausalLM, OPTConfig, OPTForCausalLM

from ocr_interp.errors import ConfigError, ModelError, UnknownNameError
from ocr_interp.llm import FinetuneConfig
from ocr_interp.llm.layers.layout import ATTENTION, MLP, layout_of
from ocr_interp.llm.layers.part_names import PARTS, checked_parts
from ocr_interp.llm.layers.parts import maps_by_part, weights_by_part
from ocr_interp.llm.layers.tracing import first_tensor
from ocr_interp.llm.training.trainable import make_trainable, trained_parameters

JOINT = {
    *("GPT2LMHeadModel", "GPTNeoXForCausalLM", "BloomForCausalLM", "FalconForCausalLM"),
    *("Phi3ForCausalLM", "DeepseekV3ForCausalLM", "GPTBigCodeForCausalLM", "MptForCausalLM"),
}
"""Families where one matrix makes values and keys."""


def outputs(model, paths, ids):
    """(input, output) of some modules, and the logits."""
    seen = {}

    def keep(path):
        def hook(module, args, kwargs, output):
            given = next(v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor))
            seen[path] = (given.detach().clone(), first_tensor(output).detach().clone())

        return hook

    handles = [model.get_submodule(p).register_forward_hook(keep(p), with_kwargs=True) for p in paths]
    try:
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return seen, logits


def without(model, paths, ids):
    """Logits with the outputs of some modules set to zero."""

    def zero(module, args, output):
        return 0 * output if isinstance(output, torch.Tensor) else (0 * output[0], *output[1:])

    handles = [model.get_submodule(path).register_forward_hook(zero) for path in paths]
    try:
        with torch.no_grad():
            return model(input_ids=ids, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", families(*OTHERS))
def test_branches_are_what_is_added_and_attention_is_what_moves_between_positions(name):
    model = tiny(name)
    layout = layout_of(model)
    blocks = list(dict.fromkeys(branch.block for branch in layout.branches))
    assert len(blocks) == 2
    places = [branch.output for branch in layout.branches]
    seen, _ = outputs(model, [*blocks, *places], IDS)
    for block in blocks:
        given, left = seen[block]
        added = [seen[b.output][1].view_as(given) for b in layout.branches if b.block == block]
        torch.testing.assert_close(given + sum(added), left, rtol=0, atol=1e-12)
    other = IDS.clone()
    other[:, 0] += 1  # the first token is another: does the last position notice?
    for kind, moved in ((ATTENTION, False), (MLP, True)):
        cut = [branch.output for branch in layout.branches if branch.kind == kind]
        if cut:
            differ = (without(model, cut, IDS) - without(model, cut, other))[:, -1].abs().max()
            assert (float(differ) > 1e-9) == moved, kind


@pytest.mark.parametrize("name", families(*OTHERS))
def test_parts_cover_the_model_once_and_the_roles_are_right(name):
    model = tiny(name)
    layout = layout_of(model)
    parts = weights_by_part(model, layout)
    names = [n for n, _ in model.named_parameters()]
    whole = [n for part in ("attention", "mlp", "norms", "embeddings") for n in parts.get(part, ())]
    assert sorted(whole) == sorted(names)
    for part in parts.keys() & {"qk", "v", "o", "ov", "qkv", "in", "out"}:
        assert parts[part] <= parts["attention"]
    assert all(n.endswith((".weight", ".bias")) or "norm" in n for n in parts.get("norms", ()))
    ends = {"qk": ("q_proj", "k_proj"), "v": ("v_proj",)}
    for part, allowed in ends.items():
        if part in parts and name != "DeepseekV3ForCausalLM":
            assert {path.rpartition(".")[2] for path in maps_by_part(layout)[part]} == set(allowed)
    assert ("qkv" in parts) == (name in JOINT)
    assert ("ov" in parts) != (name in JOINT)


@pytest.mark.parametrize("name", families(*OTHERS))
def test_a_model_without_values_has_the_same_layout(name):
    model = tiny(name)
    with torch.device("meta"):
        shapes = AutoModelForCausalLM.from_config(model.config)
    assert layout_of(shapes) == layout_of(model)


def test_the_watched_pass_leaves_nothing_behind():
    model = tiny("LlamaForCausalLM").train()
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    layout_of(model)
    assert model.training
    assert sum(len(module._forward_hooks) for module in model.modules()) == hooks
    assert all(parameter.grad is None for parameter in model.parameters())


def test_norms_after_the_sum_are_the_stream():
    """OPT-350m normalises what it has added."""
    sizes = {"hidden_size": 24, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 6}
    config = OPTConfig(**sizes, vocab_size=32, do_layer_norm_before=False, word_embed_proj_dim=24)
    layout = layout_of(OPTForCausalLM(config).eval())
    assert [(b.kind, b.output.rpartition(".")[2]) for b in layout.branches] == [
        (ATTENTION, "self_attn"),
        (MLP, "fc2"),
    ] * 2


def test_mamba_has_inputs_and_outputs():
    layout = layout_of(tiny("MambaForCausalLM"))
    parts = maps_by_part(layout)
    assert {part: {p.rpartition(".")[2] for p in parts[part]} for part in ("in", "out")} == {
        "in": {"in_proj"},
        "out": {"out_proj"},
    }
    assert {branch.kind for branch in layout.branches} == {ATTENTION}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("RwkvForCausalLM", "no blocks that add attention, or another mixer"),
        ("DeepseekV4ForCausalLM", "no blocks that add attention, or another mixer"),
        ("T5ForConditionalGeneration", "forward pass fails: .* take method='full' or 'lora'"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(name, message):
    with pytest.raises(ModelError, match=message):
        layout_of(tiny(name))


@pytest.mark.parametrize("name", families())
def test_full_fine_tuning_trains_the_chosen_parts_alone(name):
    model = tiny(name)
    parts = weights_by_part(model, layout_of(model))
    for part, expected in parts.items():
        trained = trained_parameters(make_trainable(model, FinetuneConfig(train_parts=(part,))))
        assert set(trained) == expected, part


def test_parts_are_checked_before_and_with_the_model():
    assert checked_parts(["mlp", "attention", "mlp"]) == ("attention", "mlp")
    with pytest.raises(UnknownNameError, match="unknown part 'atention': did you mean 'attention'"):
        FinetuneConfig(train_parts=("atention",))
    with pytest.raises(ConfigError, match=r"must be a list of parts, such as \('attention',\), got 'mlp'"):
        checked_parts("mlp")
    with pytest.raises(
        ConfigError, match=r"GPT2LMHeadModel has no part 'ov': there are 'attention', .*'qkv'"
    ):
        make_trainable(tiny("GPT2LMHeadModel"), FinetuneConfig(train_parts=("ov",)))
    with pytest.raises(ConfigError, match=r"'lora' updates linear maps, and Llama.* has no part 'norms'"):
        make_trainable(tiny("LlamaForCausalLM"), FinetuneConfig(method="lora", train_parts=("norms",)))
    assert set(PARTS) >= {"attention", "mlp", "ov", "embeddings"}


def test_lora_is_put_on_the_chosen_parts():
    model = make_trainable(
        tiny("LlamaForCausalLM"), FinetuneConfig(method="lora", train_parts=("ov",), lora_rank=2)
    )
    named = {name.split(".")[-4] for name in trained_parameters(model)}
    assert named == {"v_proj", "o_proj"}
