"""Data: exact counts, the paper's distribution, and expectations against brute force."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from ocr_interp.data import (
    MAX_EXHAUSTIVE_EXAMPLES,
    STEPS_PER_CHUNK,
    NoisyBatches,
    exhaustive,
    noisy_examples,
    population,
    token_counts,
)
from ocr_interp.devices import resolve_device, seeded_generator
from ocr_interp.errors import ConfigError, UnknownNameError
from ocr_interp.task import FACT, SPLITS, TRAINED_SPLITS, FactRecallTask

PAPER = FactRecallTask(20, 1, 3)


def count(task, sequence):
    """Counts of the input tokens of one sequence, by hand."""
    return [list(sequence).count(token) for token in range(task.n_inputs)]


def rows_with_weights(batch):
    """(counts, target, split) -> weight, as a dictionary."""
    rows = {}
    columns = (batch.counts.tolist(), batch.target.tolist(), batch.split.tolist(), batch.weight.tolist())
    for counts, target, split, weight in zip(*columns, strict=True):
        key = (tuple(counts), target, split)
        assert key not in rows, "the same example twice"
        rows[key] = weight
    return rows


def brute_force(task, splits):
    """Every noise sequence of every triple, merged by its counts: (counts, target, split) -> probability."""
    rows = {}
    triples = task.triples.of_split(*splits)
    draws = list(itertools.product(task.noise_tokens, repeat=task.seq_len - 3))
    for s, r, a, k in zip(triples.subject, triples.relation, triples.answer, triples.split, strict=True):
        for noise in draws:
            sequence = [s, task.relation_tokens[r], *noise, task.eos_token]
            key = (tuple(map(float, count(task, sequence))), task.n_inputs + int(a), int(k))
            rows[key] = rows.get(key, 0.0) + 1 / len(draws) / len(triples)
    return rows


def assert_uniform(observed, expected):
    """Chi-square at the one-in-a-million level; the seeds are fixed, so the verdict is too."""
    observed, expected = np.asarray(observed, float), np.asarray(expected, float)
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert statistic < chi2.isf(1e-6, len(observed) - 1)


# --- noise-free and exhaustive -----------------------------------------------------------------------


def test_population_is_every_triple_once_without_noise(tiny_task):
    batch = population(tiny_task, dtype=torch.float64)
    triples = tiny_task.triples
    assert len(batch) == len(triples) == 18
    for k in range(len(batch)):
        relation = tiny_task.labels.index("r1" if triples.relation[k] == FACT else "r2")
        sequence = [int(triples.subject[k]), relation, tiny_task.eos_token]
        assert batch.counts[k].tolist() == count(tiny_task, sequence)
        letter = "b" if triples.relation[k] == FACT else "c"
        assert tiny_task.labels[int(batch.target[k])] == f"{letter}{triples.subject[k] // 3}"
    assert batch.weight.tolist() == [1 / 18] * 18
    assert batch.split.tolist() == triples.split.tolist()


def test_population_of_some_splits_or_none(tiny_task):
    assert set(population(tiny_task, TRAINED_SPLITS).split.tolist()) == {0, 1, 2}
    control = FactRecallTask(3, 0, 2)
    empty = population(control, ["training_fact"])
    assert len(empty) == 0
    assert empty.counts.shape == (0, control.n_inputs)
    with pytest.raises(UnknownNameError, match="unknown split 'held_out'"):
        population(tiny_task, ["held_out"])


@pytest.mark.parametrize("splits", [SPLITS, TRAINED_SPLITS])
@pytest.mark.parametrize("name", ["tiny", "mapped"])
def test_exhaustive_is_every_noise_sequence_with_its_probability(name, splits, tiny_task, mapped_task):
    task = tiny_task if name == "tiny" else mapped_task
    got, expected = (
        rows_with_weights(exhaustive(task, splits, dtype=torch.float64)),
        brute_force(task, splits),
    )
    assert got.keys() == expected.keys()
    for key, weight in expected.items():
        assert got[key] == pytest.approx(weight, rel=1e-13)
    assert sum(got.values()) == pytest.approx(1, abs=1e-13)


def test_exhaustive_loss_is_the_mean_over_all_sequences():
    task = FactRecallTask(2, 1, 1, n_noise=3, seq_len=6)
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(task.n_inputs, task.d_vocab, generator=generator, dtype=torch.float64)
    batch = exhaustive(task, dtype=torch.float64)
    losses = torch.nn.functional.cross_entropy(batch.counts @ W, batch.target, reduction="none")
    total, n = 0.0, 0
    for s, r, a in zip(task.triples.subject, task.triples.relation, task.triples.answer, strict=True):
        for noise in itertools.product(task.noise_tokens, repeat=3):
            logits = W[[int(s), task.relation_tokens[r], *noise, task.eos_token]].sum(0)
            total -= math.log(math.exp(logits[task.n_inputs + a]) / logits.exp().sum())
            n += 1
    assert n == 8 * 27
    assert float((losses * batch.weight).sum()) == pytest.approx(total / n, rel=1e-12)


def test_exhaustive_without_noise_is_the_population():
    task = FactRecallTask(3, 1, 1, n_noise=0, seq_len=3)
    assert rows_with_weights(exhaustive(task)) == rows_with_weights(population(task))


def test_exhaustive_refuses_what_would_not_fit():
    # 5 noise tokens in 45 places: C(49, 4) multisets x 200 triples
    task = FactRecallTask(20, 1, 4, seq_len=48)
    examples = math.comb(49, 4) * 200
    assert examples > MAX_EXHAUSTIVE_EXAMPLES
    with pytest.raises(
        ConfigError, match=rf"at most {MAX_EXHAUSTIVE_EXAMPLES:,} examples, got {examples:,}.*noisy"
    ):
        exhaustive(task)


# --- noisy batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 1, STEPS_PER_CHUNK - 1, STEPS_PER_CHUNK, 100])
def test_counts_are_those_of_the_sequences(step):
    batches = NoisyBatches(PAPER, 252, seed=5)
    tokens, batch = batches.tokens(step), batches.batch(step)
    assert tokens.shape == (252, 16)
    assert batch.counts.tolist() == [count(PAPER, sequence) for sequence in tokens.tolist()]
    assert torch.equal(token_counts(PAPER, tokens), batch.counts)


def test_sequences_have_the_papers_form_and_the_right_answer():
    batches = NoisyBatches(PAPER, 252, seed=1)
    for step in (0, 77):
        batch = batches.batch(step)
        columns = (batches.tokens(step).tolist(), batch.target.tolist(), batch.split.tolist())
        for sequence, target, split in zip(*columns, strict=True):
            assert sequence[-1] == 87
            subjects = [t for t in sequence if t < 80]
            relations = [t for t in sequence if t in (80, 81)]
            assert len(subjects) == len(relations) == 1
            assert sequence.index(subjects[0]) < sequence.index(relations[0])
            assert all(82 <= t <= 86 for t in sequence if t not in (*subjects, *relations, 87))
            implied, held_out = relations[0] == 81, subjects[0] % 4 > 0
            assert target == 88 + 20 * implied + subjects[0] // 4
            assert SPLITS[split] == ("held_out" if held_out else "training") + (
                "_implication" if implied else "_fact"
            )
            assert not (held_out and implied)


def test_batch_holds_as_many_of_each_trained_split():
    batches = NoisyBatches(PAPER, 252, seed=3)
    for step in (0, 5, 40):
        batch = batches.batch(step)
        assert torch.bincount(batch.split, minlength=4).tolist() == [84, 84, 84, 0]
        assert torch.allclose(batch.weight, torch.full((252,), 1 / 252))


@pytest.mark.parametrize(
    ("m_train", "m_test", "composition"), [(0, 2, [0, 0, 12, 0]), (2, 0, [6, 6, 0, 0]), (1, 1, [4, 4, 4, 0])]
)
def test_absent_splits_leave_their_places_to_the_others(m_train, m_test, composition):
    batch = NoisyBatches(FactRecallTask(3, m_train, m_test), 12, seed=0).batch(0)
    assert torch.bincount(batch.split, minlength=4).tolist() == composition


def test_a_batch_depends_on_seed_and_step_alone():
    one, other = NoisyBatches(PAPER, 252, seed=7), NoisyBatches(PAPER, 252, seed=7)
    steps = [0, 1, 31, 32, 33, 90, 500]
    forward = {s: (one.batch(s).counts.clone(), one.tokens(s), one.batch(s).target) for s in steps}
    for step in [500, 32, 0, 90, 33, 31, 1, 0]:
        tokens, batch = other.tokens(step), other.batch(step)
        assert torch.equal(batch.counts, forward[step][0])
        assert torch.equal(tokens, forward[step][1])
        assert torch.equal(batch.target, forward[step][2])
    reseeded = NoisyBatches(PAPER, 252, seed=8)
    assert not torch.equal(reseeded.batch(0).counts, forward[0][0])
    assert not torch.equal(forward[1][0], forward[0][0])


def test_dtypes_share_their_draws():
    single = NoisyBatches(PAPER, 252, seed=7).batch(3)
    double = NoisyBatches(PAPER, 252, seed=7, dtype=torch.float64).batch(3)
    assert torch.equal(single.counts.double(), double.counts)
    assert double.weight.dtype == torch.float64


def test_noise_tokens_are_uniform_and_independent():
    batches = NoisyBatches(PAPER, 252, seed=11)
    tokens = torch.cat([batches.tokens(step) for step in range(64)])
    noise = tokens[(tokens >= 82) & (tokens <= 86)].view(-1, 13).numpy() - 82
    n = len(noise)
    assert n == 64 * 252
    assert_uniform(np.bincount(noise.ravel(), minlength=5), [n * 13 / 5] * 5)
    for first, second in ((0, 1), (3, 12)):
        pairs = np.bincount(noise[:, first] * 5 + noise[:, second], minlength=25)
        assert_uniform(pairs, [n / 25] * 25)


def test_subject_and_relation_places_follow_the_papers_law():
    """Subject uniform over the places 0..T-3, relation uniform behind it and before EOS."""
    batches = NoisyBatches(PAPER, 252, seed=13)
    tokens = torch.cat([batches.tokens(step) for step in range(64)]).numpy()
    subject = (tokens < 80).argmax(1)
    relation = ((tokens == 80) | (tokens == 81)).argmax(1)
    probability = {(i, j): 1 / 14 / (14 - i) for i in range(14) for j in range(i + 1, 15)}
    assert sum(probability.values()) == pytest.approx(1)
    observed = dict.fromkeys(probability, 0)
    for place in zip(subject.tolist(), relation.tolist(), strict=True):
        observed[place] += 1  # a place outside the law is a KeyError
    expected = np.array(list(probability.values())) * len(tokens)
    assert_uniform(list(observed.values()), expected)


def test_triples_of_a_split_are_drawn_uniformly_with_replacement():
    batches = NoisyBatches(PAPER, 252, seed=17)
    drawn = [batches.batch(step) for step in range(64)]
    counts, split = torch.cat([b.counts for b in drawn]), torch.cat([b.split for b in drawn])
    for name in TRAINED_SPLITS:
        chosen = counts[split == SPLITS.index(name)][:, :80].sum(0).numpy()
        held_out = np.arange(80) % 4 > 0
        expected = held_out if name == "held_out_fact" else ~held_out
        assert (chosen[~expected] == 0).all()
        assert_uniform(chosen[expected], [64 * 84 / expected.sum()] * expected.sum())
    assert any(len(set(map(tuple, b.counts[:84, :80].tolist()))) < 84 for b in drawn)


@pytest.mark.parametrize(
    ("task", "size", "message"),
    [
        (PAPER, 250, r"batch_size must be a multiple of 3, .*got 250: try 249"),
        (PAPER, 1, r"batch_size must be a multiple of 3, .*got 1: try 3"),
        (FactRecallTask(3, 1, 0), 7, r"batch_size must be a multiple of 2, .*got 7: try 6"),
        (PAPER, 0, r"batch_size must be >= 1, got 0"),
    ],
)
def test_bad_batch_sizes(task, size, message):
    with pytest.raises(ConfigError, match=message):
        NoisyBatches(task, size, seed=0)


# --- evaluation examples, counting, randomness -----------------------------------------------------------


def test_noisy_examples_are_the_given_triples_with_noise(mapped_task):
    triples = mapped_task.triples
    tokens, batch = noisy_examples(mapped_task, triples, seed=4, dtype=torch.float64)
    assert batch.counts.tolist() == [count(mapped_task, sequence) for sequence in tokens.tolist()]
    assert batch.counts[:, :5].argmax(1).tolist() == triples.subject.tolist()
    assert batch.counts[:, 5:7].argmax(1).tolist() == triples.relation.tolist()
    assert (batch.target - mapped_task.n_inputs).tolist() == triples.answer.tolist()
    again, _ = noisy_examples(mapped_task, triples, seed=4)
    other, _ = noisy_examples(mapped_task, triples, seed=5)
    assert torch.equal(tokens, again)
    assert not torch.equal(tokens, other)


def test_token_counts_refuse_what_is_no_sequence(tiny_task):
    good = torch.tensor([[0, 9, 11, 12, 13]])
    assert tiny_task.eos_token == 13
    assert token_counts(tiny_task, good).tolist() == [count(tiny_task, good[0].tolist())]
    with pytest.raises(ConfigError, match=r"tokens must be inputs, 0\.\.13"):
        token_counts(tiny_task, torch.tensor([[0, 9, 14, 12, 13]]))
    with pytest.raises(ConfigError, match=r"tokens must be inputs, 0\.\.13"):
        token_counts(tiny_task, torch.tensor([[-1, 9, 11, 12, 13]]))
    with pytest.raises(ConfigError, match=r"must end with EOS \(token 13\)"):
        token_counts(tiny_task, torch.tensor([[0, 9, 13, 12, 11]]))


def test_keys_of_different_randomness_never_share_a_stream():
    """Above all (seed, stream) of the start against (seed, stream, step) of the data."""
    keys = [(1,), (1, 0), (1, 0, 0), (1, 1), (1, 1, 0), (0, 1), (2**32,), (0, 1, 5), (2**32, 5)]
    first = {key: float(torch.rand((), generator=seeded_generator("cpu", *key)).double()) for key in keys}
    assert len(set(first.values())) == len(keys), first
    assert first == {
        key: float(torch.rand((), generator=seeded_generator("cpu", *key)).double()) for key in keys
    }


@pytest.mark.parametrize("name", ["gpu", "", "cud", "meta", "cpu:x"])
def test_unknown_devices_raise(name):
    with pytest.raises(ConfigError, match=rf"device must be 'auto' or one of \[.*'cpu'\], got '{name}'"):
        resolve_device(name)


def test_auto_finds_a_device_that_works():
    assert float(torch.ones(2, device=resolve_device("auto")).sum()) == 2
    assert resolve_device("cpu").type == "cpu"
