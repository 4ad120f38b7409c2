"""Ranks and intervals against cases counted by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ocr_interp.errors import ConfigError, ModelError, UnknownNameError
from ocr_interp.llm.measuring.intervals import clustered_difference, clustered_interval
from ocr_interp.llm.measuring.measure import Measurement, Questions, measure, ranks
from ocr_interp.task import SPLITS


def test_ranks_count_what_is_above_and_half_of_what_is_level():
    logits = torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 2.0], [0.0, 0.0, 0.0], [-1.0, 5.0, -torch.inf]])
    assert ranks(logits, torch.tensor([1, 0, 2, 0])).tolist() == [2.0, 1.5, 1.0, 1.0]


def knows(questions, shift):
    """A "language model" that gives every answer 8 times the odds, or the candidate `shift` after it."""
    answers = {e.prompt: e.candidates[(e.target + shift) % len(e.candidates)] for e in questions.encoded}

    def logits_of(batch):
        logits = torch.zeros(len(batch.row), 3_000)
        for k, (row, position) in enumerate(zip(batch.row, batch.position, strict=True)):
            logits[k, answers[tuple(batch.tokens[row, : position + 1].tolist())]] = np.log(8.0)
        return logits

    return logits_of


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_a_model_that_knows_and_one_that_errs(facts, tokenizer, batch_size):
    questions = Questions(facts, tokenizer, 0, batch_size)
    right = questions.ask(knows(questions, 0), "cpu")
    wrong = questions.ask(knows(questions, 1), "cpu")
    assert [SPLITS[k] for k in right.split] == [SPLITS[e.split] for e in facts.test_examples]
    assert right.fact.tolist() == [e.fact for e in facts.test_examples]
    for split in SPLITS:
        # Three candidates: the right one has 8 of 10; else 1 of 10, level with the third: rank 1.5.
        assert right.mean(split, "rank") == 0
        assert right.mean(split, "top1") == 1
        assert right.mean(split, "logprob") == pytest.approx(np.log(0.8))
        assert wrong.mean(split, "rank") == 1.5
        assert wrong.mean(split, "top1") == 0
        assert wrong.mean(split, "logprob") == pytest.approx(np.log(0.1))


def test_a_random_model_is_at_chance(facts, make_model):
    found = measure(make_model(), facts, device="cpu")
    assert found.rank.mean() == pytest.approx(1.0, abs=0.35)  # of three candidates
    again = measure(make_model(), facts, device="cpu", batch_size=3)
    np.testing.assert_array_equal(found.rank, again.rank)
    np.testing.assert_allclose(found.logprob, again.logprob, atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_answers_that_are_not_finite_have_no_rank(bad, facts, make_model):
    lm = make_model()  # nothing is above NaN: it would stand first
    lm.model.get_output_embeddings().weight.data.fill_(bad)
    with pytest.raises(ModelError, match=r"logits of the candidates are not finite.*lower lr"):
        measure(lm, facts, device="cpu")


def test_a_measurement_survives_json(facts, make_model):
    found = measure(make_model(), facts, device="cpu")
    again = Measurement.from_dict(found.to_dict())
    np.testing.assert_array_equal(found.rank, again.rank)
    np.testing.assert_allclose(found.logprob, again.logprob, atol=1e-4)


def held_out(fact, rank):
    n = len(rank)
    whole = {"split": np.full(n, 3), "fact": np.array(fact), "template": np.zeros(n, dtype=int)}
    return Measurement(**whole, rank=np.array(rank, dtype=float), logprob=np.zeros(n))


def test_an_empty_split_has_no_mean_and_no_interval():
    found = held_out([0, 1], [0, 1])
    assert np.isnan(found.mean("training_fact", "rank"))
    with pytest.raises(ConfigError, match="no example of split 'training_fact'"):
        clustered_interval([found], "training_fact")
    with pytest.raises(UnknownNameError, match="did you mean 'training_fact'"):
        clustered_interval([found], "train_fact")


def test_an_interval_is_a_point_where_all_are_alike_and_spans_the_pairs_where_they_differ():
    alike = clustered_interval([held_out([0, 0, 1, 1], [2, 2, 2, 2])], "held_out_implication")
    assert (alike.mean, alike.low, alike.high, alike.n_clusters) == (2, 2, 2, 2)
    apart = clustered_interval([held_out([0, 0, 1, 1], [0, 0, 4, 4])], "held_out_implication", draws=500)
    assert (apart.mean, apart.low, apart.high) == (2, 0, 4)


def test_names_of_one_pair_that_share_their_luck_do_not_count_as_many():
    rng = np.random.default_rng(0)
    fact = np.repeat(np.arange(20), 50)
    shared = rng.normal(size=20)[fact]  # all luck is the pair's
    own = rng.normal(size=1_000)  # all luck is the name's
    widths = []
    for rank in (shared, own):
        found = clustered_interval([held_out(fact, rank)], "held_out_implication", draws=800)
        widths.append((found.high - found.low) / 3.92)
    assert widths[0] == pytest.approx(1 / np.sqrt(20), rel=0.35)
    # Two-stage draws of independent names count their variance once for names, once for pairs.
    assert widths[1] == pytest.approx(np.sqrt(2) / np.sqrt(1_000), rel=0.25)


def test_clusters_of_different_sizes_count_by_their_examples():
    rng = np.random.default_rng(3)
    fact, rank = np.repeat([0, 1, 2], [2, 30, 8]), rng.integers(0, 5, size=40).astype(float)
    found = clustered_interval([held_out(fact, rank)], "held_out_implication", draws=2_000)
    assert found.mean == rank.mean()
    clusters, means = [rank[fact == k] for k in range(3)], []
    for _ in range(2_000):  # one by one
        chosen = rng.integers(3, size=3)
        means.append(np.concatenate([rng.choice(clusters[k], len(clusters[k])) for k in chosen]).mean())
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("n_runs", "least", "most"), [(1, 0.8, 0.92), (3, 0.88, 0.97)])
def test_how_often_an_interval_holds_the_truth(n_runs, least, most):
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):  # pairs differ (Beta(2, 2)), 16 names each, five candidates: the true mean is 2
        level = rng.beta(2, 2, size=(n_runs, 5)).repeat(16, axis=1)
        runs = [held_out(np.arange(5).repeat(16), rank) for rank in rng.binomial(4, level)]
        found = clustered_interval(runs, "held_out_implication", draws=300)
        hits += found.low <= 2 <= found.high
    assert least < hits / 400 < most  # nominal 0.95: too narrow, as its docstring says


def test_several_runs_are_clusters_of_their_own():
    runs = [held_out([0, 1], [0, 1]), held_out([0, 1], [2, 3])]
    assert clustered_interval(runs, "held_out_implication", draws=50).n_clusters == 4


def test_a_difference_compares_every_example_with_itself():
    hard = held_out([0, 0, 1, 1], [4, 4, 0, 0])
    easier = held_out([0, 0, 1, 1], [3, 3, -1, -1])
    found = clustered_difference([easier], [hard], "held_out_implication", draws=200)
    assert (found.mean, found.low, found.high, found.n_clusters) == (-1, -1, -1, 2)
    apart = clustered_interval([hard], "held_out_implication", draws=200)
    assert apart.high - apart.low == 4  # the pairs differ by more than the treatment


def test_what_is_scored_otherwise_is_not_compared():
    by_token = held_out([0, 1], [0, 1])
    whole = replace(by_token, scoring={"fact": "first_token", "implication": "whole_answer"})
    further = replace(by_token, scoring={"fact": "first_token", "implication": "until_distinct"})
    assert clustered_interval([by_token, further], "held_out_implication", draws=20).n_clusters == 4
    with pytest.raises(ConfigError, match=r"implications .* different things \(first_token, whole_answer\)"):
        clustered_interval([by_token, whole], "held_out_implication")
    with pytest.raises(ConfigError, match="different things"):
        clustered_difference([whole], [further], "held_out_implication")


def test_a_difference_refuses_what_was_not_asked_the_same():
    one, other = held_out([0, 0, 1, 1], [0, 0, 0, 0]), held_out([0, 1, 1, 1], [0, 0, 0, 0])
    with pytest.raises(ConfigError, match=r"others\[0\] must be of one fact set: their fact differs"):
        clustered_difference([one], [other], "held_out_implication")
    with pytest.raises(ConfigError, match="must be as many, got 1 and 2"):
        clustered_difference([one], [one, one], "held_out_implication")
    with pytest.raises(UnknownNameError, match="held_out_implication"):
        clustered_difference([one], [one], "held_out_implications")
