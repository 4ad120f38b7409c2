"""Updates for a training loop of one's own: wrapped, trained, saved, loaded, merged, refused."""

import copy
import json

import pytest
import torch
from small_facts import SMALL
from ten_families import FITTING, IDS, families, tiny
from transformers import AutoModelForCausalLM, LlamaConfig

from ocr_interp.errors import ConfigError, ModelError, RunError, UnknownNameError
from ocr_interp.llm import (
    FinetuneConfig,
    LLMRunConfig,
    finetune,
    load_update,
    merge_update,
    methods,
    save_update,
    wrap,
)


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def trained(model, steps=2):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_the_five_lines_of_the_page(tmp_path):
    config = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = wrap(model, "compacter", reduction_factor=16)
    trained(model)
    save_update(model, tmp_path / "mine")
    again = load_update(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "mine")
    assert torch.equal(logits(again), logits(model))
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "adapter.safetensors",
        "adapter_config.json",
    ]


@pytest.mark.parametrize("method", ["full", "lora", "lokr"])
@pytest.mark.parametrize("name", families())
def test_methods_that_merge_do_so_in_every_family(name, method, tmp_path):
    plain = tiny(name)
    start = logits(plain)
    if (name, method) == ("GPT2LMHeadModel", "lokr"):
        with pytest.raises(ModelError, match="peft cannot put LoKr on the linear maps of GPT2LMHeadModel"):
            wrap(plain, method)
        return
    model = wrap(copy.deepcopy(plain), method, lora_rank=2)
    assert torch.equal(logits(model), start)
    after = logits(trained(model))
    assert (after - start).abs().max() > 1e-4
    save_update(model, tmp_path / "update")
    assert torch.equal(logits(load_update(copy.deepcopy(plain), tmp_path / "update")), after)
    merged = merge_update(model)
    assert {n for n, _ in merged.named_parameters()} == {n for n, _ in plain.named_parameters()}
    torch.testing.assert_close(logits(merged), after, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["attention", "mlp"])
@pytest.mark.parametrize("method", [m for m in methods.names if methods[m].takes_parts])
def test_every_method_takes_parts_and_they_do_not_overlap(method, part):
    model = wrap(tiny("LlamaForCausalLM"), method, train_parts=[part], **FITTING.get(method, {}))
    words = {"attention": "self_attn", "mlp": "mlp"}
    named = [n for n, p in model.named_parameters() if p.requires_grad and "norm" not in n]
    assert all(words[part] in n for n in named if "rule" not in n)
    assert named


def test_dora_and_rslora_are_options_of_lora():
    start = logits(tiny("LlamaForCausalLM"))
    model = wrap(tiny("LlamaForCausalLM"), "lora", lora_rank=2, use_dora=True)
    assert any("magnitude" in n for n, p in model.named_parameters() if p.requires_grad)
    torch.testing.assert_close(logits(model), start, rtol=0, atol=1e-5)
    after = logits(trained(model))
    torch.testing.assert_close(logits(merge_update(model)), after, rtol=0, atol=1e-5)
    scaled = wrap(tiny("LlamaForCausalLM"), "lora", lora_rank=4, use_rslora=True)
    assert scaled.base_model.model.model.layers[0].self_attn.q_proj.scaling["default"] == 8.0


@pytest.mark.slow
def test_the_update_of_a_run_can_be_loaded_as_one(make_model, tmp_path):
    recipe = FinetuneConfig(model="tiny", method="compacter", steps=2, lr=1e-2, device="cpu", batch_size=6)
    run = finetune(LLMRunConfig(SMALL, recipe), tmp_path / "run", lm=make_model(), save_model=True)
    model = load_update(make_model().model, tmp_path / "run" / "adapter")
    assert torch.equal(logits(model), logits(run.lm.model))


def test_what_is_damaged_or_not_there_is_said(tmp_path):
    model = wrap(tiny("LlamaForCausalLM"), "compacter", reduction_factor=6)
    folder = save_update(model, tmp_path / "update")
    with pytest.raises(
        ModelError, match=r"the saved update is of another model than this one: .* there and nothing here"
    ):
        load_update(tiny("LlamaForCausalLM", num_hidden_layers=1), folder)
    with pytest.raises(RunError, match=r"holds no update \(adapter_config.json is missing\)"):
        load_update(tiny("LlamaForCausalLM"), tmp_path)
    with pytest.raises(ModelError, match=r"has no update: pass what llm.wrap"):
        save_update(tiny("LlamaForCausalLM"), tmp_path / "other")
    with pytest.raises(UnknownNameError, match="option 'reduction_facto': did you mean 'reduction_factor'"):
        wrap(tiny("LlamaForCausalLM"), "compacter", reduction_facto=6)
    with pytest.raises(ConfigError, match="did you mean 'compacter'"):
        wrap(tiny("LlamaForCausalLM"), "compactor")
    file = folder / "adapter_config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "lora_rank": 9}))
    with pytest.raises(RunError, match=r"adapter_config.json"):
        load_update(tiny("LlamaForCausalLM"), folder)
    file.write_text(json.dumps(content))
    tensors = folder / "adapter.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-3])
    with pytest.raises(RunError, match=r"adapter.safetensors is damaged"):
        load_update(tiny("LlamaForCausalLM"), folder)
