"""What is said of the routing holds where a model runs in more than one pass: generation, checkpointing."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from ten_families import IDS, tiny

from ocr_interp.errors import ConfigError, ModelError
from ocr_interp.llm import load_update, save_update, wrap

# Names that transformers 5 has deprecated; peft 0.21 uses the first.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`", "ignore:`gradient_checkpointing_enable`"
)

LABELS = torch.tensor([1, 0])


def drawn(model, size=0.5):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model


def mixture(name="LlamaForCausalLM", **options):
    return drawn(wrap(tiny(name), "lora_mixer", lora_rank=2, **options)).eval()


def logits(model, ids=IDS, **given):
    with torch.no_grad():
        return model(input_ids=ids, **{"use_cache": False, **given}).logits


def in_two_passes(model, ids=IDS):
    """Logits of the last token, after the others in a pass of their own."""
    with torch.no_grad():
        first = model(input_ids=ids[:, :-1], use_cache=True)
        return model(input_ids=ids[:, -1:], past_key_values=first.past_key_values, use_cache=True).logits[
            :, -1
        ]


def test_labels_hold_while_a_text_goes_on_from_its_cache():
    model = mixture(hard_share=1.0)
    model.lora_mixer.route(LABELS, training=False)
    expected = logits(model)[:, -1]
    by_routers = logits(model)[:, -1]
    assert (expected - by_routers).abs().max() > 1e-3  # a pass of its own is not routed as the one before
    model.lora_mixer.route(LABELS, training=False)
    torch.testing.assert_close(in_two_passes(model), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(in_two_passes(model), by_routers, rtol=0, atol=1e-12)
    ids = IDS
    for _ in range(3):
        model.lora_mixer.route(LABELS, training=False)
        ids = torch.cat([ids, logits(model, ids)[:, -1].argmax(-1, keepdim=True)], 1)
    model.lora_mixer.route(LABELS, training=False)
    asked = {"attention_mask": torch.ones_like(IDS), "eos_token_id": None}
    assert torch.equal(model.generate(IDS, max_new_tokens=3, do_sample=False, **asked), ids)


def test_a_router_of_sequences_does_not_answer_from_a_cache_that_it_cannot_read():
    with pytest.raises(
        ModelError, match=r"those before this pass are in the cache alone: pass use_cache=False"
    ):
        in_two_passes(mixture(router="sequence"))
    model = mixture()
    torch.testing.assert_close(in_two_passes(model), logits(model)[:, -1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("labels", "scored"), [(None, True), (LABELS, True), (LABELS, False)])
def test_gradient_checkpointing_changes_no_gradient(labels, scored):
    real, weights = (
        torch.ones_like(IDS, dtype=torch.bool),
        {"balance": 0.1, "entropy": 0.1, "label_loss": 0.5},
    )

    def gradients(**checkpointing):
        model = mixture().train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=checkpointing)
            model.enable_input_require_grads()
        model.lora_mixer.route(labels, training=True, scored=scored)
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
        (loss + model.lora_mixer.loss(labels, real, weights)).backward()
        return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}

    expected = gradients()
    found = gradients(use_reentrant=False)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-12)
    if scored:
        with pytest.raises(ModelError, match="use_reentrant=True loses the gradients of the routers"):
            gradients(use_reentrant=True)
    else:
        found = gradients(use_reentrant=True)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["DeepseekV2ForCausalLM"])
def test_rows_are_independent_where_a_map_has_more_axes(name):
    """Keys and values of a latent space have an axis of heads: [batch, 1, pos, width]."""
    model = mixture(name, hard_share=1.0)
    model.lora_mixer.route(LABELS, training=False)
    both = logits(model)
    for row in (0, 1):
        model.lora_mixer.route(LABELS[row : row + 1], training=False)
        torch.testing.assert_close(logits(model, IDS[row : row + 1])[0], both[row], rtol=0, atol=1e-12)


def test_labels_are_not_put_on_some_of_the_tokens():
    model = mixture()
    update = model.lora_mixer.updates[0]
    seen = []

    def some(module, args, output):
        with pytest.raises(ModelError, match=r"given \(4, 24\), which is not the 2 x 6 tokens of the pass"):
            update.mixed(args[0].flatten(0, 1)[:4])
        seen.append(module)

    model.model.layers[1].mlp.gate_proj.register_forward_hook(some)
    model.lora_mixer.route(LABELS, training=False)
    logits(model)
    assert seen
    model.lora_mixer.route(torch.tensor([0, 1, 0]), training=False)
    with pytest.raises(ConfigError, match="the expert of each of 2 sequences, got 3"):
        logits(model)


def test_an_update_beside_one_of_peft_is_refused():
    model = get_peft_model(tiny("LlamaForCausalLM"), LoraConfig(r=2, target_modules=["q_proj"]))
    for method in ("full", "lora", "compacter", "lora_mixer"):
        with pytest.raises(ModelError, match=r"has an update of peft already: .*merge_and_unload"):
            wrap(model, method)


@pytest.mark.parametrize("method", ["compacter", "lora_mixer", "lora"])
def test_an_update_is_not_put_beside_other_weights_of_the_same_shapes(method, tmp_path):
    options = {"reduction_factor": 6} if method == "compacter" else {}
    model = drawn(wrap(tiny("LlamaForCausalLM"), method, **options))
    save_update(model, tmp_path / "update")
    with pytest.raises(ModelError, match=r"is of another model than this one: names and shapes are the same"):
        load_update(tiny("LlamaForCausalLM", seed=1), tmp_path / "update")
    rounded = load_update(tiny("LlamaForCausalLM").to(torch.bfloat16), tmp_path / "update")
    assert torch.isfinite(logits(rounded)).all()


def test_a_branch_that_gives_a_list_takes_an_adapter():
    """The first GPT's attention gives one."""
    plain = tiny("OpenAIGPTLMHeadModel")
    with torch.no_grad():
        start = plain(input_ids=IDS).logits
        found = wrap(plain, "compacter", reduction_factor=6)(input_ids=IDS).logits
    torch.testing.assert_close(found, start, rtol=0, atol=1e-3)
    assert not torch.equal(found, start)


def test_parts_are_a_list_and_a_missing_one_says_what_to_do():
    with pytest.raises(ConfigError, match=r"must be a list of parts, such as \('attention',\), got 'mlp'"):
        wrap(tiny("LlamaForCausalLM"), "lora", train_parts="mlp")
    with pytest.raises(ConfigError, match="there is 'attention': name what it has in train_parts"):
        wrap(tiny("MambaForCausalLM"), "compacter", reduction_factor=6)
    wrap(tiny("MambaForCausalLM"), "compacter", reduction_factor=6, train_parts=["attention"])


def test_routers_of_a_models_own_experts_are_not_updated():
    """They choose by their output: nothing that is added to it would be seen."""
    with pytest.raises(ConfigError, match="has none in part 'mlp' but a router of its own experts"):
        wrap(tiny("MixtralForCausalLM"), "lora_mixer", train_parts=["attention", "mlp"])
    model = wrap(tiny("Glm4MoeForCausalLM"), "lora_mixer", train_parts=["mlp"])
    assert not any("mlp/gate" in path and "gate_proj" not in path for path in model.lora_mixer.maps)
    model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if p.requires_grad and ".B" in n)
