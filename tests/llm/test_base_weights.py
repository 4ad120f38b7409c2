"""Which model a saved update is of: digests of the weights that it leaves alone, names and shapes."""

import copy
import json

import pytest
import torch
from ten_families import FITTING, IDS, tiny

from ocr_interp.errors import ModelError
from ocr_interp.llm import load_update, methods, save_update, wrap
from ocr_interp.storage.seals import sealed


def llama(**changes):
    return tiny("LlamaForCausalLM", **changes)


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def wrapped(base, method):
    return wrap(copy.deepcopy(base), method, **FITTING.get(method, {}))


def update_of(base, method, folder):
    """The folder of an update away from its start, and the logits with it."""
    model, generator = wrapped(base, method), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return save_update(model, folder), logits(model)


def require_refused(base, folder, match):
    with pytest.raises(
        ModelError, match=f"is of another model than this one.*{match}.*; load it onto the model"
    ):
        load_update(base, folder)


def names(*wanted):
    return [
        name for name, _ in llama(attention_bias=True).named_parameters() if any(w in name for w in wanted)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora_mixer", "lora"])
def test_one_changed_number_of_any_weight_is_another_model(method, tmp_path):
    base = llama(attention_bias=True)
    folder, expected = update_of(base, method, tmp_path / "update")
    for name, parameter in list(base.named_parameters()):
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.view(-1)[3] += 1e-12
        require_refused(base, folder, rf"the weights are not \(1 of 29: {name}\)")
        with torch.no_grad():
            parameter.copy_(kept)
    assert torch.equal(logits(load_update(base, folder)), expected)


@pytest.mark.slow
@pytest.mark.parametrize("method", list(methods.names))
def test_weights_that_the_update_replaces_are_not_compared(method, tmp_path):
    base = llama()
    folder, expected = update_of(base, method, tmp_path / "update")
    trained = {name for name, p in wrapped(base, method).named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            if name in trained:
                parameter.mul_(2)
    assert torch.equal(logits(load_update(base, folder)), expected)


@pytest.mark.parametrize(
    ("changes", "more", "fewer"),
    [
        ({"attention_bias": True}, r"lacks model.layers.0.self_attn.q_proj.bias", "has model.+bias"),
        ({"num_hidden_layers": 3}, r"lacks model.layers.2.+ and 6 more", r"has model.layers.2.+ and 6 more"),
        (
            {"intermediate_size": 40},
            r"up_proj.weight is \(40, 24\) there and \(32, 24\) here",
            r"\(40, 24\) here",
        ),
    ],
)
def test_other_weights_without_an_update_are_another_model(changes, more, fewer, tmp_path):
    """What is trained has the same names and shapes in both."""
    plain, other = llama(), llama(**changes)
    for base, there, says in ((plain, other, more), (other, plain, fewer)):
        model = wrap(copy.deepcopy(there), "full", train_parts=("embeddings",))
        require_refused(base, save_update(model, tmp_path / "update"), says)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_another_precision_is_no_other_model_and_another_size_is(dtype, tmp_path):
    base = llama()
    folder, expected = update_of(base, "lora_mixer", tmp_path / "update")
    found = logits(load_update(copy.deepcopy(base).to(dtype), folder))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.3)
    with torch.no_grad():
        base.model.layers[1].mlp.up_proj.weight.mul_(1.5)
    require_refused(base.to(dtype), folder, r"\(1 of 21: model.layers.1.mlp.up_proj.weight\)")


@pytest.mark.slow
def test_weights_in_no_plain_numbers_are_not_compared(tmp_path):
    """As of a quantization: whole numbers under the same name, or buffers under others."""
    base = llama()
    for kind in ("numbers", "buffers"):
        coarse = copy.deepcopy(base)
        for layer in coarse.model.layers:
            up = layer.mlp.up_proj
            weight = up.weight.detach()
            if kind == "buffers":
                del up.weight
                up.register_buffer("qweight", (weight * 100).to(torch.int8))
            else:
                up.weight = torch.nn.Parameter((weight * 100).to(torch.int8), requires_grad=False)
            up.forward = lambda x, w=weight: x @ w.T
        for here, there in ((base, coarse), (coarse, base)):
            folder, _ = update_of(there, "lora_mixer", tmp_path / f"{kind} {here is base}")
            load_update(copy.deepcopy(here), folder)


@pytest.mark.slow
def test_updates_of_earlier_versions_are_read_and_compared_by_what_they_have(tmp_path):
    base = llama()
    folder, expected = update_of(base, "lora_mixer", tmp_path / "update")
    file = folder / "adapter_config.json"
    values = json.loads(file.read_text())
    assert values["format_version"] == 1
    assert len(values["base"]) == 16
    del values["seal"], values["base_weights"]
    for kept in (values, {name: value for name, value in values.items() if name != "base"}):
        file.write_text(json.dumps(sealed(kept)))
        assert torch.equal(logits(load_update(copy.deepcopy(base), folder)), expected)
        if "base" in kept:
            require_refused(llama(seed=1), folder, "the weights are not")
