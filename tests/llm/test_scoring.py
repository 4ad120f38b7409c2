"""Whole answers against transformers' own loss and against cases counted by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from ocr_interp.errors import ConfigError, ModelError
from ocr_interp.llm import encoding
from ocr_interp.llm.encoding import AnswerTokens, encode
from ocr_interp.llm.facts.fact_set import FactSet, Templates
from ocr_interp.llm.measuring.measure import Measurement, Questions, measure
from ocr_interp.llm.measuring.scoring import answer_tree, describe_scoring, tree_scores
from ocr_interp.llm.models.forward import logits_of
from ocr_interp.llm.models.loading import LanguageModel
from ocr_interp.llm.models.tiny import tiny_model, tiny_tokenizer

YEARS = ("1735", "1743", "1751", "1758", "1913", "1917", "2001")


def facts_of(answers, others=("red", "blue"), wordings=("{subject} was born in", "{subject} likes")):
    """One subject an answer, all told; the other relation takes turns."""
    n = len(answers)
    flags = (True,) * n
    born, likes = (Templates((w,), (w,)) for w in wordings)
    return FactSet(
        name="own",
        causal=None,
        subjects=tuple(f"Person{k}" for k in range(n)),
        facts=tuple(answers),
        implications=tuple(others),
        subject_fact=tuple(range(n)),
        subject_implication=tuple(k % len(others) for k in range(n)),
        trained=flags,
        fact_told=flags,
        implication_told=flags,
        fact_templates=born,
        implication_templates=likes,
    )


def byte_model(**changes):
    """A model that reads bytes: every year begins with a blank and a digit that others share."""
    return tiny_model("llama", tiny_tokenizer([], vocab_size=257), **changes)


def by_hand(lm, example, answer, upto=None):
    """Sum of the tokens' log-probabilities, from transformers' own loss; `upto` counts the tokens."""
    prompt = lm.tokenizer(example.prompt, add_special_tokens=False).input_ids
    whole = lm.tokenizer(f"{example.prompt} {answer}", add_special_tokens=False).input_ids
    whole = whole[: None if upto is None else len(prompt) + upto]
    labels = [-100] * len(prompt) + whole[len(prompt) :]
    with torch.no_grad():
        out = lm.model(input_ids=torch.tensor([whole]), labels=torch.tensor([labels]))
    return -float(out.loss) * (len(whole) - len(prompt))


@pytest.mark.parametrize(
    ("scoring", "upto"),
    [
        ("whole_answer", dict.fromkeys(YEARS, 5)),
        # " 1735" is told apart by " 173", " 1751" only by its last digit.
        ("until_distinct", {"1735": 4, "1743": 4, "1751": 5, "1758": 5, "1913": 5, "1917": 5, "2001": 2}),
    ],
)
def test_years_are_ranked_as_transformers_own_loss_ranks_them(scoring, upto):
    lm, facts = byte_model(), facts_of(YEARS)
    found = measure(lm, facts, device="cpu", scoring=scoring)
    assert found.scoring["fact"] == scoring
    for k, example in enumerate(facts.test_examples[: len(YEARS)]):
        scores = torch.tensor([by_hand(lm, example, year, upto[year]) for year in YEARS])
        assert found.rank[k] == int((scores > scores[example.target]).sum())
        assert found.logprob[k] == pytest.approx(float(scores.log_softmax(0)[example.target]), abs=1e-5)


def test_a_batch_of_one_and_a_large_one_agree():
    lm, facts = byte_model(), facts_of(YEARS)
    one, many = (measure(lm, facts, device="cpu", batch_size=size) for size in (1, 64))
    np.testing.assert_array_equal(one.rank, many.rank)
    np.testing.assert_allclose(one.logprob, many.logprob, atol=1e-5)


def test_the_first_token_stays_where_it_tells_all_answers_apart(facts, make_model):
    lm = make_model()
    found = measure(lm, facts, device="cpu")
    assert found.scoring == {"fact": "first_token", "implication": "first_token"}
    assert describe_scoring(found.scoring) == "answers are ranked by the first token"
    first = measure(lm, facts, device="cpu", scoring="first_token")
    np.testing.assert_array_equal(found.logprob, first.logprob)
    # Cut where answers differ, the tree is the first token: the same ranks by another way.
    tree = measure(lm, facts, device="cpu", scoring="until_distinct")
    np.testing.assert_array_equal(found.rank, tree.rank)
    np.testing.assert_allclose(found.logprob, tree.logprob, atol=1e-5)
    assert tree.scoring["fact"] == "until_distinct"


def test_each_relation_has_its_own_scoring():
    tokenizer = tiny_tokenizer(["x red", "x blue"] * 5)
    found = measure(tiny_model("llama", tokenizer), facts_of(YEARS), device="cpu")
    assert found.scoring == {"fact": "until_distinct", "implication": "first_token"}
    said = (
        "answers are ranked facts by the tokens up to where answers differ, implications by the first token"
    )
    assert describe_scoring(found.scoring) == said
    again = Measurement.from_dict(found.to_dict())
    assert again.scoring == found.scoring
    old = {name: value for name, value in found.to_dict().items() if name != "scoring"}
    assert Measurement.from_dict(old).scoring == {"fact": "first_token", "implication": "first_token"}


def test_the_first_token_alone_is_refused_with_all_that_share_it():
    facts = facts_of(("Bangkok", "Bangalore", "Oslo", "Osaka", "Rome"))
    tokenizer = tiny_tokenizer(["a Bang", "a Os", "a Rome"] * 9)
    with pytest.raises(ConfigError, match=r"'Bangkok' and 'Bangalore' begin .*' Bang'; 'Oslo' and 'Osaka' "):
        Questions(facts, tokenizer, 0, scoring="first_token")
    assert Questions(facts, tokenizer, 0).scoring["fact"] == "until_distinct"


def _says(*probabilities):
    """A "model": at every place the same probabilities of the tokens 0, 1, 2, ..."""

    def logits(batch):
        return torch.tensor(probabilities).log().repeat(len(batch.row), 1)

    return logits


def test_an_answer_that_begins_another_is_scored_as_ending_there(facts, tokenizer):
    """By hand: answers a = [0], b = [0, 1], c = [2], and p(0), p(1), p(2) = 0.5, 0.3, 0.2 at every place."""
    answers = AnswerTokens(((0,), (0, 1), (2,)))
    (one,) = encode(tokenizer, facts.test_examples[:1])
    for scoring in ("whole_answer", "until_distinct"):
        tree = answer_tree(answers, scoring)
        scores = tree_scores(_says(0.5, 0.3, 0.2), [one], tree, 0, "cpu", 4)
        np.testing.assert_allclose(np.exp(scores), [[0.5 * 0.7, 0.5 * 0.3, 0.2]], rtol=1e-6)
    # A model that always goes on says b, and a all but never.
    scores = tree_scores(_says(1e-9, 1.0 - 2e-9, 1e-9), [one], tree, 0, "cpu", 4)
    assert scores[0, 1] - scores[0, 0] == pytest.approx(np.log(0.5e9), rel=1e-4)


def test_the_tree_is_followed_only_as_far_as_needed():
    answers = AnswerTokens(((1, 2, 3), (1, 2, 4), (5, 6, 7)))
    whole = answer_tree(answers, "whole_answer").rows()
    assert list(whole) == [(1, 2), (5, 6)]
    assert [len(nodes) for nodes in whole.values()] == [3, 2]  # the root is read once
    cut = answer_tree(answers, "until_distinct")
    assert list(cut.rows()) == [(1, 2)]
    assert [cut.nodes[k].path for k in cut.leaf] == [(1, 2, 3), (1, 2, 4), (5,)]
    assert len(cut.nodes) == 6


@pytest.mark.parametrize("scoring", ["until_distinct", "whole_answer"])
def test_answers_that_are_not_finite_have_no_rank(scoring):
    lm = byte_model()
    lm.model.get_output_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        measure(lm, facts_of(YEARS), device="cpu", scoring=scoring)


def test_no_blank_stands_before_answers_of_scripts_without_blanks():
    places = ("\u6771\u4eac", "\u5927\u962a", "\u4eac\u90fd")
    wordings = ("{subject}\u306e\u51fa\u8eab\u5730\u306f", "{subject}\u306e\u8272\u306f")
    facts = facts_of(places, ("\u8d64", "\u9752"), wordings)
    tokenizer = tiny_tokenizer([])
    for one in encode(tokenizer, facts.test_examples):
        assert tokenizer.decode([*one.prompt, *one.answer]) == one.example.sentence
        assert one.example.sentence == one.example.prompt + one.example.answer
    found = measure(tiny_model("llama", tokenizer), facts, device="cpu")
    # The first bytes differ, but a byte is no character: three of them are scored.
    assert found.scoring["fact"] == "until_distinct"
    answers = Questions(facts, tokenizer, 0).encoded[0].answers
    assert len(set(answers.first)) == len(places)
    tree = answer_tree(answers, "until_distinct")
    assert {tokenizer.decode(tree.nodes[k].path) for k in tree.leaf} == {place[0] for place in places}


def test_a_token_across_prompt_and_answer_is_the_answers_where_no_blank_parts_them():
    """With the token "AB" for the end of the prompt and the start of one answer, both answers begin at A."""
    A, B, C = "\u306f", "\u6771", "\u5927"
    vocab = {c: k for k, c in enumerate(("x", A, B, C, A + B))}
    own = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab, [(A, B)])))
    facts = facts_of((B, C), (B, C), ("{subject}" + A, "x{subject}" + A))
    facts = replace(facts, subjects=("x", "xx"))
    one = encode(own, facts.test_examples)[0]
    assert (one.prompt, one.answers.tokens) == ((0,), ((4,), (1, 3)))


def test_a_prompt_of_many_that_merges_otherwise_has_tokens_of_its_own(monkeypatch):
    A, B, C = "\u306f", "\u6771", "\u5927"
    vocab = {c: k for k, c in enumerate(("x", A, B, C, A + B))}
    own = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab, [(A, B)])))
    facts = facts_of((B, C), (B, C), ("xx{subject}", "x{subject}"))
    facts = replace(facts, subjects=("xxxx", "xxx" + A))
    small = encode(own, facts.test_examples)
    assert [one.answers.tokens for one in small[:2]] == [((2,), (3,)), ((4,), (1, 3))]
    monkeypatch.setattr(encoding, "PAIRS_TOGETHER", 1)
    assert encode(own, facts.test_examples) == small


def test_what_the_tokenizer_reads_alike_is_refused_with_all_spellings():
    own = tiny_tokenizer(["x"])
    own._tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    facts = facts_of(("Rome", "Pari\u0161", "Paris", "Osl\u00f6", "Oslo"))
    message = r"'Pari\\u0161' and 'Paris'; 'Osl\\xf6' and 'Oslo'"
    with pytest.raises(ConfigError, match=message):
        encode(own, facts.test_examples)
    facts = replace(facts_of(YEARS[:4]), subjects=("Jos\u00e9", "Jose", "Zo\u00eb", "Zoe"))
    with pytest.raises(ConfigError, match=r"names as the same tokens: 'Jos\\xe9 was born in' and 'Jose was"):
        encode(own, facts.test_examples)


def test_a_wording_that_brings_its_own_bos_has_one():
    own = tiny_tokenizer(["x a b"] * 5)
    own.add_special_tokens({"bos_token": "<bos>"})
    own._tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", own.bos_token_id)]
    )
    for wordings in (
        ("<bos>{subject} was born in", "<bos>{subject} likes"),
        ("{subject} in", "{subject} likes"),
    ):
        for one in encode(own, facts_of(YEARS, wordings=wordings).test_examples):
            assert one.prompt.count(own.bos_token_id) == 1
            assert one.prompt[0] == own.bos_token_id


def metaspace_tokenizer():
    """A tokenizer of the kind of Llama 2: a blank is part of the word, and one is put in front of a text."""
    letters = "\u2581abcdefghijklmnopqrstuvwxyzPR0123456789"
    own = Tokenizer(models.BPE({c: k for k, c in enumerate(letters)}, []))
    own.pre_tokenizer = pre_tokenizers.Metaspace()
    own.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=own)


def test_a_metaspace_tokenizer_scores_years():
    tokenizer = metaspace_tokenizer()
    lm = LanguageModel("gpt2", _gpt2(64, len(tokenizer)), tokenizer)
    facts = facts_of(YEARS)
    found = measure(lm, facts, device="cpu", scoring="whole_answer")
    for k, example in enumerate(facts.test_examples[: len(YEARS)]):
        scores = torch.tensor([by_hand(lm, example, year) for year in YEARS])
        assert found.rank[k] == int((scores > scores[example.target]).sum())


def _gpt2(n_positions, vocab_size):
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": vocab_size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config(n_positions=n_positions, **sizes)).eval()


@pytest.mark.parametrize("learned", [True, False])
def test_a_prompt_longer_than_the_positions_is_refused_with_both_numbers(learned):
    tokenizer = tiny_tokenizer([], vocab_size=257)
    long = len("Person0 was born in 1735") - 1  # the last token is predicted, not read
    for limit, fits in ((long, True), (long - 1, False)):
        model = (
            _gpt2(limit, len(tokenizer))
            if learned
            else tiny_model("llama", tokenizer, max_position_embeddings=limit).model
        )
        lm = LanguageModel("own", model, tokenizer)
        if fits:
            measure(lm, facts_of(YEARS[:4]), device="cpu", scoring="whole_answer")
            continue
        with pytest.raises(ConfigError, match=rf"positions \({limit}\): the longest, '.*', needs {long}"):
            measure(lm, facts_of(YEARS[:4]), device="cpu", scoring="whole_answer")


def test_many_prompts_share_the_tokens_of_their_answers(monkeypatch):
    facts, tokenizer = facts_of(YEARS), tiny_tokenizer(["x was born in", "17", "19"] * 5)
    small = encode(tokenizer, facts.test_examples)
    monkeypatch.setattr(encoding, "PAIRS_TOGETHER", 0)
    large = encode(tokenizer, facts.test_examples)
    assert small == large
    assert len({id(one.answers) for one in large}) == 2  # one object a relation


def test_many_prompts_whose_ends_merge_with_answers_are_refused(monkeypatch):
    monkeypatch.setattr(encoding, "PAIRS_TOGETHER", 0)  # so that none may have tokens of its own
    melting = tiny_tokenizer(["no x"] * 9)
    melting._tokenizer.normalizer = normalizers.Replace("n 1913", "q")
    with pytest.raises(ConfigError, match=r"reads 'Person.* was born in' otherwise when '1913' follows"):
        encode(melting, facts_of(YEARS).test_examples)


def test_a_scoring_that_is_not_known_is_refused():
    with pytest.raises(ConfigError, match="scoring must be one of 'auto', 'first_token'"):
        Questions(facts_of(YEARS), tiny_tokenizer([], vocab_size=257), 0, scoring="first")


def test_scores_do_not_depend_on_the_model_being_wrapped():
    lm, facts = byte_model(), facts_of(YEARS)
    questions = Questions(facts, lm.tokenizer, lm.pad, 7)
    np.testing.assert_array_equal(
        questions.ask(logits_of(lm), "cpu").rank, measure(lm, facts, device="cpu", batch_size=7).rank
    )
