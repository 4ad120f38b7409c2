"""A model that was given is as it was after a refusal, whatever was refused, and takes the right update."""

import copy
import os
import signal

import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_facts import SMALL
from ten_families import FITTING, IDS, tiny

from ocr_interp.errors import ConfigError, ModelError, OcrInterpError, RunError
from ocr_interp.llm import (
    Adapter,
    FinetuneConfig,
    LLMRunConfig,
    finetune,
    load_finetuned,
    load_update,
    merge_update,
    methods,
    save_update,
    wrap,
)
from ocr_interp.llm.models.unchanged import unchanged_if_refused
from ocr_interp.storage.tensors import read_any_tensors, write_tensors

# peft 0.21 uses a name that transformers 5 has deprecated, and says what it saves.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`", "ignore:.*save_embedding_layers"
)

every_method = pytest.mark.parametrize(
    "method", [pytest.param(m, marks=() if m == "lora_mixer" else pytest.mark.slow) for m in methods.names]
)


def llama(**changes):
    return tiny("LlamaForCausalLM", **changes)


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def drawn(model, size=0.3):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model


def as_it_is(model):
    """Modules, hooks, attributes, parameters with their precision and what is trained; and the logits."""

    def plain(value):
        return list(value) if isinstance(value, dict | set) else value

    modules = {
        path: (type(module), {name: plain(value) for name, value in vars(module).items()})
        for path, module in model.named_modules()
    }
    parameters = {
        name: (id(p), p.requires_grad, p.dtype, p.device, p.data_ptr(), id(p.grad))
        for name, p in model.named_parameters()
    }
    return modules, parameters, dict(vars(model.config)), logits(model).tolist()


def refused(model, call, error, match):
    """Requires that a call is refused and leaves nothing behind in the model."""
    before = as_it_is(model)
    with pytest.raises(error, match=match):
        call()
    assert as_it_is(model) == before


def update_of(base, method, folder):
    """The folder of an update away from its start, and the logits with it."""
    model = drawn(wrap(copy.deepcopy(base), method, **FITTING.get(method, {})))
    return save_update(model, folder), logits(model)


@every_method
def test_a_refused_update_leaves_nothing_behind_and_the_right_one_is_taken(method, tmp_path):
    base = llama()
    base.model.layers[0].mlp.eval()
    base.lm_head.requires_grad_(False)
    base.get_input_embeddings().weight.grad = torch.ones_like(base.get_input_embeddings().weight)
    right, expected = update_of(base, method, tmp_path / "right")
    for k, changes in enumerate(
        ({"hidden_size": 48}, {"num_hidden_layers": 1}, {"num_hidden_layers": 3}, {"vocab_size": 50})
    ):
        other, _ = update_of(llama(**changes), method, tmp_path / f"other {k}")
        refused(
            base, lambda other=other: load_update(base, other), ModelError, "is of another model than this"
        )
    if method != "full":  # its update is the whole model
        other, _ = update_of(llama(seed=1), method, tmp_path / "seed")
        refused(base, lambda: load_update(base, other), ModelError, "the weights are not")
    refused(base, lambda: load_update(base, tmp_path), RunError, "holds no update")
    for k, name in enumerate(("adapter.safetensors", "adapter_config.json")):
        for what in ("cut", "gone"):
            folder, _ = update_of(base, method, tmp_path / f"damaged {k} {what}")
            content = (folder / name).read_bytes()
            (folder / name).unlink() if what == "gone" else (folder / name).write_bytes(content[:-9])
            refused(base, lambda folder=folder: load_update(base, folder), RunError, "damaged|missing")
    assert torch.equal(logits(load_update(base, right)), expected)


@every_method
def test_an_update_that_breaks_while_it_is_put_on_is_taken_off(method, tmp_path, monkeypatch):
    """Whatever stops it at the last moment, Ctrl-C too."""
    from ocr_interp.llm import wrapping

    base = llama()
    folder, expected = update_of(base, method, tmp_path / "update")
    with monkeypatch.context() as patch:
        for error in (MemoryError, KeyboardInterrupt):

            def stop(*args, error=error):
                raise error("stop")

            patch.setattr(wrapping, "put_update", stop)
            refused(base, lambda: load_update(base, folder), error, "stop")
    assert torch.equal(logits(load_update(base, folder)), expected)


BAD = [
    ("full", {"train_parts": ("qkv",)}, "has no part 'qkv'"),
    ("lora", {"train_parts": ("qkv",)}, "has no part 'qkv'"),
    ("lokr", {"lora_alpha": 1.5}, "lora_alpha must be a whole number"),
    ("compacter", {"reduction_factor": 7}, "phm_dim must divide the width"),
    ("compacter_plus", {"phm_dim": 5}, "phm_dim must divide the width"),
    ("phm_adapter", {"train_parts": ("ov",)}, "has no part 'ov'"),
    ("lora_mixer", {"layers": "0-5"}, "layers must lie in"),
    ("lora_mixer", {"experts_from": "nothing", "n_experts": 1}, "must be a folder that peft has saved"),
]


@pytest.mark.parametrize(("method", "options", "says"), BAD)
def test_what_wrap_refuses_leaves_nothing_behind(method, options, says):
    base = llama()
    refused(base, lambda: wrap(base, method, **options), OcrInterpError, says)
    model = wrap(base, method, **FITTING.get(method, {}))
    assert any(p.requires_grad for p in model.parameters())


def test_experts_of_another_width_are_taken_off_again(tmp_path):
    """They are refused when the mixture stands in the model already."""
    given = get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    given.save_pretrained(tmp_path / "expert")
    base = llama(hidden_size=12, head_dim=2)
    options = {"experts_from": str(tmp_path / "expert"), "n_experts": 1}
    refused(base, lambda: wrap(base, "lora_mixer", **options), ModelError, "is of another model: .* 12")
    wrap(base, "lora_mixer")


def test_what_peft_refuses_half_way_is_taken_off_again():
    base = tiny("GPT2LMHeadModel")
    refused(base, lambda: wrap(base, "lokr"), ModelError, "peft cannot put LoKr on the linear maps")
    wrap(base, "lora", lora_rank=2)


class Breaks(Adapter):
    """Fails when all else is done."""

    label = "breaks"

    def attach(self, model, recipe):
        model.requires_grad_(False)
        model.train().config.use_cache = False
        model.register_forward_hook(lambda *_: None)
        for layer in model.model.layers:
            layer.mlp = torch.nn.Sequential(layer.mlp)
            layer.mlp.register_parameter("gate", torch.nn.Parameter(torch.zeros(1)))
            layer.register_buffer("seen", torch.zeros(1))
        model.half()
        model.mine = {"steps": 0}
        raise RuntimeError("no room for the last one")


def test_a_method_of_ones_own_that_fails_is_taken_off_again():
    base = llama()
    base.model.layers[1].eval()
    handles = [base.register_forward_hook(lambda *_: None)]
    with methods.registered("breaks", Breaks()):
        refused(base, lambda: wrap(base, "breaks"), ModelError, "RuntimeError: no room for the last one")
    handles[0].remove()
    assert not base._forward_hooks
    wrap(base, "lora")


def test_asking_for_parts_leaves_the_mode_of_every_module():
    base = llama().train()
    base.model.layers[0].mlp.eval()
    wrap(base, "lora_mixer")
    assert base.training
    assert not base.model.layers[0].mlp.training


def recipe(**values):
    given = {"model": "tiny", "lr": 1e-2, "steps": 2, "log_every": 2, "batch_size": 6, "device": "cpu"}
    return FinetuneConfig(**{**given, **values})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"optimizer": "muon", "train_parts": ("norms",)}, "muon"),
        ({"method": "compacter", "method_options": {"phm_dim": 7}}, "phm_dim must divide"),
        ({"method": "lora_mixer", "method_options": {"n_experts": 4}}, "gets no example by its label"),
    ],
)
def test_a_run_that_cannot_begin_leaves_the_model_in_its_precision(values, says, make_model):
    lm = make_model()
    lm.model.train()
    config = LLMRunConfig(SMALL, recipe(dtype="bfloat16", **values))
    refused(lm.model, lambda: finetune(config, lm=lm), ConfigError, says)


@pytest.mark.slow
def test_a_run_of_another_model_leaves_the_model_that_was_given(make_model, tmp_path):
    config = LLMRunConfig(SMALL, recipe(method="lora_mixer", log_every=1))

    def stop(row):
        if row["step"] == 1:
            os.kill(os.getpid(), signal.SIGINT)

    assert finetune(config, tmp_path / "run", lm=make_model(), on_log=stop).status == "interrupted"
    other = make_model()
    with torch.no_grad():
        other.model.model.layers[0].mlp.up_proj.weight[0, 0] += 1
    refused(other.model, lambda: finetune(config, tmp_path / "run", lm=other), RunError, "changed: weights")
    run = finetune(config, tmp_path / "run", lm=make_model(), save_model=True)
    assert run.status == "finished"
    refused(other.model, lambda: load_finetuned(tmp_path / "run", other), RunError, "changed: weights")
    fresh = make_model()
    expected = logits(load_finetuned(tmp_path / "run", fresh).model)
    refused(fresh.model, lambda: load_finetuned(tmp_path / "run", fresh), OcrInterpError, "changed: weights")
    assert torch.equal(logits(fresh.model), expected)


@pytest.mark.slow
def test_a_damaged_update_of_a_run_leaves_the_model_that_was_given(make_model, tmp_path):
    """Files that are whole, of an update of another shape: only putting it on shows that."""
    config = LLMRunConfig(SMALL, recipe(method="lora_mixer", steps=0))
    finetune(config, tmp_path / "run", lm=make_model(), save_model=True)
    file = tmp_path / "run" / "adapter" / "adapter.safetensors"
    tensors, metadata = read_any_tensors(file, "")
    tensors.pop(next(name for name in tensors if name.endswith("A.0")))
    metadata.pop("digest")
    write_tensors(file, tensors, metadata)
    base = make_model()
    refused(
        base.model,
        lambda: load_finetuned(tmp_path / "run", base),
        OcrInterpError,
        "nothing there and .* here",
    )


def test_the_block_may_change_what_it_likes_if_nothing_is_refused():
    base = llama()
    with unchanged_if_refused(base):
        base.half()
    assert next(base.parameters()).dtype == torch.float16
    with unchanged_if_refused("no model"):
        pass


def test_merging_all_weights_gives_a_plain_model():
    model = merge_update(wrap(llama(), "full"))
    assert torch.equal(logits(wrap(model, "lora")), logits(llama()))
