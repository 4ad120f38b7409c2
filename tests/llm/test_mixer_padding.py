"""Padding is in no mean of a router of sequences and in no statistic, and is known or the pass is refused."""

import inspect

import pytest
import torch
from small_facts import SMALL
from ten_families import families, tiny

from ocr_interp.errors import ConfigError, ModelError
from ocr_interp.llm import FinetuneConfig, LanguageModel, LLMRunConfig, finetune, wrap
from ocr_interp.llm.layers.passes import TokensRead

# A name that transformers 5 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`")

LENGTHS, PADS = (6, 3), 2
SHORT, LONG = torch.tensor([9, 10, 11]), torch.tensor([3, 4, 5, 6, 7, 8])


def mixture(name="LlamaForCausalLM", *, router="sequence", **options):
    """In float32: in float64 padding alone on its row of an eager attention is NaN in transformers."""
    model = wrap(
        tiny(name).float(), "lora_mixer", router=router, lora_rank=2, n_experts=3, top_k=2, **options
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def padded(side, more=0):
    """Both texts in one batch, with `more` columns of padding: tokens, mask, positions."""
    width = len(LONG) + more
    ids, mask = torch.full((2, width), 20), torch.zeros(2, width, dtype=torch.long)
    for row, text in enumerate((LONG, SHORT)):
        place = slice(width - len(text), width) if side == "left" else slice(len(text))
        ids[row, place], mask[row, place] = text, 1
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)


def of_text(values, mask):
    """The entries of each text without padding."""
    return [values[row][mask[row] == 1] for row in range(2)]


def alone(model, **given):
    with torch.no_grad():
        return [model(input_ids=t[None], use_cache=False, **given).logits[0] for t in (LONG, SHORT)]


def together(model, side, more=PADS, change=lambda mask: mask, **given):
    ids, mask, positions = padded(side, more)
    if "position_ids" in inspect.signature(model.forward).parameters:
        given["position_ids"] = positions
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=change(mask), use_cache=False, **given).logits
    return of_text(found, mask)


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("router", ["sequence", "token"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", families("MambaForCausalLM", "BloomForCausalLM", "FalconForCausalLM"))
def test_a_padded_text_is_routed_as_it_is_alone(name, side, router):
    model = mixture(name, router=router)
    assert_same(together(model, side), alone(model))


def square(mask):
    """[batch, 1, query, key]: what each token may read, itself where that is nothing."""
    every = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool)
    return (mask[:, None, None, :] == 1) & every.tril() | torch.eye(len(every), dtype=torch.bool)


def additive(least):
    return lambda mask: torch.zeros(square(mask).shape, dtype=torch.float32).masked_fill(~square(mask), least)


MASKS = {
    "bool": lambda mask: mask == 1,
    "float": lambda mask: mask.float(),
    "square": square,
    "least": additive(torch.finfo(torch.float32).min),
    "-1e9": additive(-1e9),
}


@pytest.mark.parametrize("kind", MASKS)
def test_every_mask_of_transformers_says_what_is_padding(kind):
    model = mixture()
    if kind == "square":  # eager attention adds masks, True as 1
        model.set_attn_implementation("sdpa")
    assert_same(together(model, "left", change=MASKS[kind]), alone(model))


def test_a_mask_of_ones_changes_no_bit():
    for model in (mixture(), mixture().to(torch.bfloat16)):
        ids = torch.arange(60).view(2, 30) % 32
        with torch.no_grad():
            found = [
                model(input_ids=ids, use_cache=False, **given).logits
                for given in ({}, {"attention_mask": torch.ones_like(ids)})
            ]
        assert torch.equal(*found)


def test_arguments_by_place_are_seen():
    model = mixture()
    ids, mask, positions = padded("left", PADS)
    with torch.no_grad():
        found = model(ids, mask, positions, use_cache=False).logits
    assert_same(of_text(found, mask), alone(model))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("router", ["sequence", "token"])
def test_training_on_a_padded_batch_is_training_on_its_texts(router, checkpointing):
    weights = {"balance": 0.0, "entropy": 0.2, "label_loss": 0.5}  # means over tokens alone

    def gradients(batches, labels):
        model = mixture(router=router).train()
        mixer = model.lora_mixer
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        for (ids, mask, positions), own in zip(batches, labels, strict=True):
            mixer.route(own, training=True)
            out = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
            loss = out[mask == 1].square().sum()
            (loss + mask.sum() * mixer.loss(own, mask, weights)).backward()
        return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}

    texts = [(t[None], torch.ones_like(t)[None], torch.arange(len(t))[None]) for t in (LONG, SHORT)]
    for labels in ([None, None], [[1], [2]]):
        expected = gradients(texts, labels)
        for side in ("left", "right"):
            found = gradients([padded(side, PADS)], [None if labels[0] is None else [1, 2]])
            for name, gradient in expected.items():
                torch.testing.assert_close(
                    found[name], gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max())
                )


def test_the_statistics_and_the_loss_of_a_padded_batch_are_those_of_its_tokens():
    model, weights = mixture(), {"balance": 1.0, "entropy": 0.3, "label_loss": 0.0}
    mixer, found = model.lora_mixer, {}
    for side, more in (("left", 0), ("left", 4), ("right", 0), ("right", 4)):
        ids, mask, positions = padded(side, more)
        mixer.route(None, training=True)
        model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
        loss = float(mixer.loss(None, mask == 1, weights).detach())
        found[side, more] = [loss, *mixer.counted().values()]
    first = found["left", 0]
    for values in found.values():
        assert values == pytest.approx(first, rel=1e-5, nan_ok=True)


def test_generated_texts_do_not_depend_on_padding():
    model = mixture()
    asked = {
        "max_new_tokens": 4,
        "do_sample": False,
        "eos_token_id": None,
        "pad_token_id": 20,
        "use_cache": False,
    }
    ids, mask, _ = padded("left", PADS)
    found = model.generate(ids, attention_mask=mask, **asked)[:, ids.shape[1] :]
    for row, text in enumerate((LONG, SHORT)):
        expected = model.generate(text[None], attention_mask=torch.ones_like(text)[None], **asked)
        assert torch.equal(found[row], expected[0, len(text) :])
    with pytest.raises(ModelError, match="pass use_cache=False"):
        model.generate(ids, attention_mask=mask, **{**asked, "use_cache": True})


def test_padding_that_is_no_number_is_in_no_mean():
    x = torch.randn(2, 4, 3)
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]]) == 1
    causal = torch.ones(4, 4, dtype=torch.bool).tril()
    spoilt = x.masked_fill(~mask[..., None], torch.nan)
    for kind in (mask, mask[:, None] & causal):
        found = TokensRead((2, 4), kind).mean(spoilt)
        assert found[0, :2].eq(0).all()
        torch.testing.assert_close(found[0, 3], x[0, 2:].mean(0))
        torch.testing.assert_close(found[1, 2], x[1, :3].mean(0))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"attention_mask": torch.ones(2, 7)},
            r"\[2, 6\] with 0 for padding, .* got \[2, 7\] of torch.float32",
        ),
        ({"attention_mask": torch.ones(3, 6)}, r"got \[3, 6\]"),
        ({"attention_mask": torch.ones(2, 4, 6, 6) == 1}, r"got \[2, 4, 6, 6\] of torch.bool"),
        ({"attention_mask": torch.ones(2, 1, 6, 6)}, r"True and False or of 0 and -inf, got"),
        ({"attention_mask": {"full_attention": None}}, "got a dict: pass such a mask, none where there is"),
        ({"position_ids": torch.tensor([[0, 0, 0, 1, 2, 3]] * 2)}, "must go up by 1 .* pass attention_mask"),
        ({"position_ids": torch.tensor([[0, 1, 2, 0, 1, 2]] * 2)}, "padding or of another text"),
    ],
)
def test_what_does_not_say_what_is_padding_is_refused(given, says):
    ids = torch.arange(3, 15).view(2, 6)
    with pytest.raises(
        ModelError, match=rf"router='sequence' needs to know which tokens .*{says}.*router='token'"
    ):
        mixture()(input_ids=ids, use_cache=False, **given)


def test_a_part_of_the_model_does_not_know_what_is_padding():
    model = mixture()
    ids, mask, _ = padded("right")
    expected = alone(model)

    def part():
        with pytest.raises(ModelError, match=r"got a pass of a part of it: call the model"):
            model.model(input_ids=ids, attention_mask=mask, use_cache=False)

    part()
    model(input_ids=ids, attention_mask=mask, use_cache=False)
    part()
    with pytest.raises(IndexError):  # a pass that ends early
        model(input_ids=ids + 100, attention_mask=mask, use_cache=False)
    part()
    ids_alone = model(inputs_embeds=model.get_input_embeddings()(LONG[None]), use_cache=False).logits[0]
    torch.testing.assert_close(ids_alone, expected[0], rtol=0, atol=1e-4)
    steady = mixture(router="token")
    with torch.no_grad():
        assert steady.model(input_ids=ids, attention_mask=mask).last_hidden_state.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("router", ["sequence", "token"])
@pytest.mark.parametrize("hard_share", [0.0, 0.5])
def test_a_history_does_not_depend_on_the_token_of_padding(router, hard_share, make_model, monkeypatch):
    options = {"router": router, "hard_share": hard_share, "label_loss": 1.0 if hard_share else 0.0}
    config = FinetuneConfig(
        model="tiny",
        method="lora_mixer",
        method_options=options,
        lr=1e-2,
        steps=4,
        log_every=2,
        batch_size=6,
        device="cpu",
    )
    rows = []
    for pad in (0, 7):
        monkeypatch.setattr(LanguageModel, "pad", property(lambda self, pad=pad: pad))
        rows.append(finetune(LLMRunConfig(SMALL, config), lm=make_model()).history)
    assert rows[0].equals(rows[1])


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (
            torch.tensor([0, 2]),
            r"whole numbers from 0 to 1, .* got 2: name experts by their number, or pass None",
        ),
        ([0, -1], "got -1: name"),
        ((0, 2**40), "got 1099511627776"),
        (torch.tensor([0.0, 1.0]), "got values of torch.float32"),
        (torch.tensor([True, False]), "got values of torch.bool"),
        (["fact", "implication"], r"got \['fact', 'implication'\]"),
        ("fact", "got 'fact'"),
        (1, r"got the shape \(\)"),
        ([[0, 1]], r"got the shape \(1, 2\)"),
        ([], "got "),
        ([0, None], r"got \[0, None\]"),
        ([10**30, 0], "got "),
    ],
)
def test_labels_that_are_no_experts_are_refused(labels, says):
    mixer = wrap(tiny("LlamaForCausalLM"), "lora_mixer").lora_mixer
    for training in (True, False):
        with pytest.raises(ConfigError, match=f"labels must be the expert of each sequence, .*{says}"):
            mixer.route(labels, training=training)
    with pytest.raises(ConfigError, match="from 0 to 0, such as"):
        wrap(tiny("LlamaForCausalLM"), "lora_mixer", n_experts=1).lora_mixer.route([1], training=False)


def test_labels_are_tensors_or_lists_and_one_for_each_row():
    model, ids = mixture(router="token"), torch.arange(3, 15).view(2, 6)
    mixer, outputs = model.lora_mixer, []
    for labels in ([2, 0], (2, 0), torch.tensor([2, 0]), torch.tensor([2, 0], dtype=torch.int8)):
        mixer.route(labels, training=False)
        with torch.no_grad():
            outputs.append(model(input_ids=ids, use_cache=False).logits)
    assert all(torch.equal(one, outputs[0]) for one in outputs)
    mixer.route([0, 1, 2], training=False)
    with pytest.raises(ConfigError, match="the expert of each of 2 sequences, got 3: pass one for every row"):
        model(ids, use_cache=False)
    weights = {"balance": 0.0, "entropy": 0.0, "label_loss": 1.0}
    for labels, real, says in (
        (
            [0, 1],
            torch.ones(2, 5) == 1,
            r"each of the 12 tokens .* got the shape \(2, 5\): pass the attention_mask",
        ),
        ([0], torch.ones(2, 6) == 1, "each of 2 sequences, got 1: pass what route"),
        ([0, 3], torch.ones(2, 6) == 1, "from 0 to 2, .* got 3"),
    ):
        mixer.route([0, 1], training=True)
        model(input_ids=ids, use_cache=False)
        with pytest.raises(ConfigError, match=says):
            mixer.loss(labels, real, weights)
