"""Which of peft's folders can be experts of a mixture, and that a saved mixture does not need them."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from ten_families import IDS, tiny

from ocr_interp.errors import ConfigError, ModelError
from ocr_interp.llm import FinetuneConfig, load_update, save_update, wrap

# peft 0.21 uses a name that transformers 5 has deprecated, and says what it saves.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`", "ignore:.*save_embedding_layers"
)

MAPS = ["q_proj", "k_proj", "v_proj", "o_proj"]


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def peft_folder(path, base="", **options):
    """A LoRA away from its start, saved by peft; gives its logits."""
    plain = tiny("LlamaForCausalLM")
    chosen = {"r": 2, "target_modules": MAPS, "task_type": "CAUSAL_LM", **options}
    model = get_peft_model(plain, LoraConfig(**chosen))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(path)
    change_config(path, base_model_name_or_path=base)
    return logits(model)


def change_config(path, **changes):
    file = path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def change_tensors(path, change):
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def mixed(*folders, model=None, **options):
    given = {"experts_from": ",".join(map(str, folders)), "n_experts": len(folders)}
    return wrap(model or tiny("LlamaForCausalLM"), "lora_mixer", **{**given, **options})


@pytest.mark.parametrize(
    "options", [{"use_rslora": True}, {"layers_to_transform": [0]}, {"target_modules": [*MAPS, "lm_head"]}]
)
def test_a_plain_lora_is_its_expert(options, tmp_path):
    expected = peft_folder(tmp_path / "a", **options)
    model = mixed(tmp_path / "a")
    model.lora_mixer.route(torch.zeros(2, dtype=torch.long), training=False)
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"target_modules": [*MAPS, "embed_tokens"]}, "A and B of linear maps alone .*lora_embedding_A"),
        ({"trainable_token_indices": [3, 4]}, "a plain LoRA .* got trainable_token_indices"),
        ({"alora_invocation_tokens": [5]}, "a plain LoRA .* got alora_invocation_tokens"),
        ({"bias": "lora_only"}, "got bias='lora_only', which trains biases of the model too"),
    ],
)
def test_what_is_more_than_a_and_b_is_refused_and_not_left_out(options, says, tmp_path):
    peft_folder(tmp_path / "a", **options)
    with pytest.raises(ModelError, match=says):
        mixed(tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa', which changes the model's own weights"),
        ({"r": 8}, r"r is 8 in its adapter_config.json, .* has A of shape \(2, 24\)"),
        ({"r": None}, "must say the rank r and lora_alpha of its LoRA, got r None"),
        ({"of_next_year": {"x": 1}}, "a plain LoRA .* got of_next_year"),
    ],
)
def test_a_configuration_that_is_of_something_else_is_refused(changes, says, tmp_path):
    peft_folder(tmp_path / "a")
    change_config(tmp_path / "a", **changes)
    with pytest.raises(ModelError, match=says):
        mixed(tmp_path / "a")


def test_a_damaged_lora_is_refused(tmp_path):
    cases = {
        "lora_A": (lambda t: t.pop(next(n for n in t if "lora_A" in n)), r"it has no .*lora_A\.weight"),
        "lora_B": (lambda t: t.pop(next(n for n in t if "lora_B" in n)), r"it has no .*lora_B\.weight"),
        "nothing": (lambda t: t.clear(), "it holds no matrix of a LoRA"),
        "infinite": (lambda t: next(iter(t.values())).fill_(float("inf")), "values that are not finite"),
    }
    peft_folder(tmp_path / "whole")
    for name, (change, says) in cases.items():
        shutil.copytree(tmp_path / "whole", tmp_path / name)
        change_tensors(tmp_path / name, change)
        with pytest.raises(ModelError, match=says):
            mixed(tmp_path / name)


def test_loras_of_another_model_by_its_name_are_refused(tmp_path):
    peft_folder(tmp_path / "a", base="owner/One")
    peft_folder(tmp_path / "b", base="elsewhere/models/two")
    with pytest.raises(
        ModelError, match=r"of one model, .*a is of 'owner/One' and .*b of 'elsewhere/models/two'"
    ):
        mixed(tmp_path / "a", tmp_path / "b")
    model = tiny("LlamaForCausalLM")
    model.name_or_path = "runs/models/two"
    with pytest.raises(
        ModelError, match=r"trained on another model, 'owner/One' .* than 'runs/models/two': .*if"
    ):
        mixed(tmp_path / "a", model=model)
    assert mixed(tmp_path / "b", model=model)
    model = tiny("LlamaForCausalLM")
    model.name_or_path = "cache/models--owner--one/snapshots/0a1b"
    assert mixed(tmp_path / "a", model=model)


@pytest.mark.parametrize("options", [{}, {"train": "router", "hard_share": 0.0}, {"anchor": 0.1}])
def test_a_saved_mixture_comes_back_when_the_folders_are_gone(options, tmp_path):
    peft_folder(tmp_path / "a")
    peft_folder(tmp_path / "b", r=4)
    model = mixed(tmp_path / "a", tmp_path / "b", **options)
    save_update(model, tmp_path / "update")
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "b").rename(tmp_path / "c")
    again = load_update(tiny("LlamaForCausalLM"), tmp_path / "update")
    assert torch.equal(logits(again), logits(model))
    with pytest.raises(ModelError, match="must be a folder that peft has saved"):
        mixed(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"experts_from": ", ,"}, "experts_from must name folders, got ', ,'"),
        ({"hard_share": 0.0, "label_loss": 1.0}, "label_loss is of the hard stage"),
        ({"hard_share": 1.0, "entropy": -0.1}, "entropy is of the soft stage"),
        ({"layers": 0.5}, r"must be a text, got 0\.5"),
    ],
)
def test_options_without_effect_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        FinetuneConfig(method="lora_mixer", method_options=options)


def test_one_layer_is_a_text_of_digits_which_the_command_line_reads_as_a_number():
    given = FinetuneConfig(method="lora_mixer", method_options={"layers": 0})
    assert dict(given.method_options) == {"layers": "0"}
