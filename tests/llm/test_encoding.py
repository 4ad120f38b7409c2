"""Tokens: what stands in front, what collides, and that padding does not matter."""

from dataclasses import replace

import pytest
import torch
from small_facts import ONE_FAST
from tokenizers import normalizers, processors

from ocr_interp.errors import ConfigError
from ocr_interp.llm.encoding import TokenBatch, encode, special_prefix, training_batch
from ocr_interp.llm.models.forward import answer_logits
from ocr_interp.llm.models.tiny import tiny_tokenizer


def test_an_answer_is_what_follows_its_prompt(facts, tokenizer):
    for example, encoded in zip(facts.test_examples, encode(tokenizer, facts.test_examples), strict=True):
        assert tokenizer.decode(encoded.prompt) == example.prompt
        assert tokenizer.decode(encoded.answer) == f" {example.answer}"
        assert encoded.candidates[encoded.target] == encoded.answer[0]
        assert len(set(encoded.candidates)) == len(example.candidates)


def test_a_bos_token_is_put_in_front_only_by_tokenizers_that_do_so(facts):
    own = tiny_tokenizer(["x a b c"] * 5)
    own.add_special_tokens({"bos_token": "<bos>"})
    assert own.bos_token_id is not None
    assert special_prefix(own) == ()  # it has one and does not use it
    own._tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", own.bos_token_id)]
    )
    assert special_prefix(own) == (own.bos_token_id,)
    (encoded,) = encode(own, [replace(facts.test_examples[0], candidates=("a", "b", "c"))])
    assert encoded.prompt[0] == own.bos_token_id
    assert encoded.prompt.count(own.bos_token_id) == 1
    assert own.bos_token_id not in (*encoded.answer, *encoded.candidates)


def test_a_prompt_that_melts_into_its_answer_is_refused(facts, tokenizer):
    melting = tiny_tokenizer(["no x"] * 9)
    melting._tokenizer.normalizer = normalizers.Replace("o x", "q")
    with pytest.raises(ConfigError, match="end the template with a word"):
        encode(melting, [replace(facts.test_examples[0], prompt="no", candidates=("x", "y"), target=0)])


def test_the_batch_reads_all_but_the_last_answer_token(facts, tokenizer):
    encoded = encode(tokenizer, facts.training_examples)
    long = replace(encoded[0], prompt=(5, 6), answer=(7, 8, 9))
    short = replace(encoded[0], prompt=(1,), answer=(2,))
    batch = training_batch([long, short], 0, "cpu")
    assert batch.tokens.tolist() == [[5, 6, 7, 8], [1, 0, 0, 0]]
    assert (batch.row.tolist(), batch.position.tolist()) == ([0, 0, 0, 1], [1, 2, 3, 0])
    assert batch.target.tolist() == [7, 8, 9, 2]


@pytest.mark.parametrize("family", ONE_FAST)
def test_logits_at_answers_are_those_of_the_whole_model_whatever_pads(family, facts, tokenizer, make_model):
    model = make_model(family).model
    encoded = encode(tokenizer, facts.training_examples)[::3]
    with torch.no_grad():
        for pad in (0, 17):
            batch = training_batch(encoded, pad, "cpu")
            logits = answer_logits(model, batch)
            place = 0
            for example in encoded:  # one by one, without padding
                tokens = torch.tensor([[*example.prompt, *example.answer[:-1]]])
                whole = model(input_ids=tokens).logits[0, len(example.prompt) - 1 :]
                torch.testing.assert_close(logits[place : place + len(example.answer)], whole)
                place += len(example.answer)
        assert place == len(logits)


@pytest.mark.parametrize("family", ONE_FAST)
def test_loss_and_gradients_are_those_of_transformers_own_masked_loss(family, facts, tokenizer, make_model):
    ours, theirs = make_model(family).model, make_model(family).model
    encoded = encode(tokenizer, facts.training_examples)[:6]
    batch = training_batch(encoded, 0, "cpu")
    logits = answer_logits(ours, batch)
    loss = torch.nn.functional.cross_entropy(logits, batch.target)
    loss.backward()
    length = max(len(e.prompt) + len(e.answer) for e in encoded)
    rows = [[*e.prompt, *e.answer] for e in encoded]
    labels = [[-100] * len(e.prompt) + [*e.answer] for e in encoded]
    expected = theirs(
        input_ids=torch.tensor([row + [0] * (length - len(row)) for row in rows]),
        attention_mask=torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows]),
        labels=torch.tensor([row + [-100] * (length - len(row)) for row in labels]),
    ).loss
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=2e-6, rtol=1e-4)


def test_the_model_is_as_before_after_an_error(facts, tokenizer, make_model):
    model = make_model().model
    bad = TokenBatch(*(torch.tensor(v) for v in ([[1, 2]], [5], [0], [1])), ())
    with pytest.raises(IndexError):
        answer_logits(model, bad)
    assert not model.get_output_embeddings()._forward_pre_hooks
