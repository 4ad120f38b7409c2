"""The task: sizes, labels, splits and the rule, by hand; bad input, by its message."""

import json

import numpy as np
import pytest

from ocr_interp.errors import ConfigError, OcrInterpError, UnknownNameError
from ocr_interp.task import FACT, IMPLICATION, SPLITS, TRAINED_SPLITS, FactRecallTask


def as_tuples(task, triples):
    """(subject, relation, answer label, split) of every triple."""
    answers = task.labels[task.n_inputs :]
    columns = (triples.subject, triples.relation, triples.answer, triples.split)
    return [(int(s), int(r), answers[a], SPLITS[k]) for s, r, a, k in zip(*columns, strict=True)]


def rule(fact_of_subject, implication_of_fact, trained):
    """The triples as the issue says them, from a plain mapping."""
    expected = []
    for s, fact in enumerate(fact_of_subject):
        where = "training" if trained[s] else "held_out"
        expected.append((s, FACT, f"b{fact}", f"{where}_fact"))
        expected.append((s, IMPLICATION, f"c{implication_of_fact[fact]}", f"{where}_implication"))
    return sorted(expected)


def test_paper_task_has_the_papers_sizes():
    task = FactRecallTask(20, 1, 3)
    assert task.n_subjects == 80
    assert task.n_facts == task.n_implications == 20
    assert task.n_answers == 40
    assert task.n_inputs == 2 + 80 + 5 + 1
    assert task.d_vocab == 2 + 20 + 20 + 80 + 5 + 1 == 128
    assert task.seq_len == 16
    assert task == FactRecallTask()
    sizes = {name: len(task.triples.of_split(name)) for name in SPLITS}
    assert sizes == {
        "training_fact": 20,
        "training_implication": 20,
        "held_out_fact": 60,
        "held_out_implication": 60,
    }
    assert len(task.training_triples) == 100
    assert set(task.training_triples.split) == {SPLITS.index(name) for name in TRAINED_SPLITS}


def test_labels_stand_at_their_token_ids():
    task = FactRecallTask(20, 1, 3)
    assert len(task.labels) == len(set(task.labels)) == 128
    by_hand = {"s0": 0, "s79": 79, "r1": 80, "r2": 81, "noise0": 82, "noise4": 86, "EOS": 87, "b0": 88}
    by_hand |= {"b19": 107, "c0": 108, "c3": 111, "c19": 127}
    for label, token in by_hand.items():
        assert task.labels[token] == label
        assert task.token(label) == token
    assert task.relation_tokens == (80, 81)
    assert list(task.noise_tokens) == [82, 83, 84, 85, 86]
    assert task.eos_token == 87
    assert list(task.answer_tokens) == list(range(88, 128))
    assert task.tokens("s7", "r1", "EOS").tolist() == [7, 80, 87]


@pytest.mark.parametrize(("n", "m_train", "m_test"), [(20, 1, 3), (2, 1, 0), (3, 0, 2), (4, 2, 1)])
def test_triples_of_a_balanced_task_follow_the_rule(n, m_train, m_test):
    task = FactRecallTask(n, m_train, m_test)
    m = m_train + m_test
    facts = [i for i in range(n) for _ in range(m)]
    trained = [k < m_train for _ in range(n) for k in range(m)]
    assert sorted(as_tuples(task, task.triples)) == rule(facts, list(range(n)), trained)
    assert len(task.triples) == 2 * n * m
    assert task.balanced_sizes == (n, m_train, m_test)


def test_training_set_never_holds_a_held_out_implication():
    task = FactRecallTask(4, 2, 3)
    told = as_tuples(task, task.training_triples)
    held_out = {s for s in range(task.n_subjects) if s % 5 >= 2}
    assert {s for s, relation, _, _ in told if relation == IMPLICATION}.isdisjoint(held_out)
    assert {s for s, relation, _, _ in told if relation == FACT} == set(range(20))


def test_mapping_follows_the_rule(mapped_task):
    triples = sorted(as_tuples(mapped_task, mapped_task.triples))
    assert triples == rule([2, 0, 1, 0, 2], [1, 0, 1], [True, False, True, True, False])
    assert (mapped_task.n_facts, mapped_task.n_implications, mapped_task.n_subjects) == (3, 2, 5)
    assert mapped_task.d_vocab == 5 + 2 + 2 + 1 + 3 + 2
    assert mapped_task.labels[-5:] == ("b0", "b1", "b2", "c0", "c1")
    assert mapped_task.balanced_sizes is None


@pytest.mark.parametrize(
    ("facts", "implications", "trained", "balanced"),
    [
        ([0, 0, 1, 1], [0, 1], [True, False, True, False], (2, 1, 1)),
        ([1, 0, 0, 1], [1, 0], [True, False, True, False], (2, 1, 1)),  # another order, another pairing
        ([0, 1, 2], [0, 1, 2], [False] * 3, (3, 0, 1)),
        ([0, 0, 1], [0, 1], [True, False, True], None),  # unequal sizes
        ([0, 0, 1, 1], [0, 1], [True, True, True, False], None),  # unequal split
        ([0, 1, 2], [0, 1, 1], [True] * 3, None),  # two facts, one implication
    ],
)
def test_balanced_sizes_of_a_mapping(facts, implications, trained, balanced):
    assert FactRecallTask.from_mapping(facts, implications, trained).balanced_sizes == balanced


def test_mapping_that_is_balanced_has_the_balanced_tasks_triples():
    balanced = FactRecallTask(3, 1, 1)
    mapped = FactRecallTask.from_mapping([0, 0, 1, 1, 2, 2], [0, 1, 2], [True, False] * 3)
    assert as_tuples(balanced, balanced.triples) == as_tuples(mapped, mapped.triples)
    assert balanced.labels == mapped.labels


def test_mapping_of_numpy_values_equals_that_of_plain_ones(unchecked):
    plain = unchecked.FactRecallTask.from_mapping([0, 1, 1], [0, 1], [True, False, True])
    arrays = unchecked.FactRecallTask.from_mapping(
        np.array([0, 1, 1]), np.array([0, 1], dtype=np.int32), np.array([True, False, True])
    )
    assert plain == arrays
    assert hash(plain) == hash(arrays)
    assert json.loads(json.dumps(arrays.to_dict())) == json.loads(json.dumps(plain.to_dict()))


@pytest.mark.parametrize("kind", ["balanced", "mapped"])
def test_round_trip_through_json(kind, tiny_task, mapped_task):
    task = tiny_task if kind == "balanced" else mapped_task
    again = FactRecallTask.from_dict(json.loads(json.dumps(task.to_dict())))
    assert again == task
    assert again.labels == task.labels
    assert as_tuples(again, again.triples) == as_tuples(task, task.triples)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_pairs": 1}, r"n_pairs must be >= 2, got 1"),
        ({"n_pairs": 0}, r"n_pairs must be >= 2, got 0"),
        ({"n_pairs": -3}, r"n_pairs must be >= 2, got -3"),
        ({"n_pairs": 2.5}, r"n_pairs must be a whole number >= 2, got 2\.5"),
        ({"n_pairs": "20"}, r"n_pairs must be a whole number >= 2, got '20'"),
        ({"n_pairs": True}, r"n_pairs must be a whole number >= 2, got True"),
        ({"m_train": -1}, r"m_train must be >= 0, got -1"),
        ({"m_train": 0.5}, r"m_train must be a whole number >= 0, got 0\.5"),
        ({"m_test": -2}, r"m_test must be >= 0, got -2"),
        ({"m_test": 1.0}, r"m_test must be a whole number >= 0, got 1\.0"),
        ({"m_test": None}, r"m_test must be a whole number >= 0, got None"),
        ({"m_train": 0, "m_test": 0}, r"m_train \+ m_test must be >= 1, got 0"),
        ({"seq_len": 2}, r"seq_len must be >= 3, got 2"),
        ({"seq_len": 16.5}, r"seq_len must be a whole number >= 3, got 16\.5"),
        ({"n_noise": -1}, r"n_noise must be >= 0, got -1"),
        ({"n_noise": 0.1}, r"n_noise must be a whole number >= 0, got 0\.1"),
        ({"n_noise": 0}, r"n_noise must be >= 1 when seq_len > 3 .*got 0.*seq_len=3"),
        ({"fact_of_subject": (0, 1)}, r"must be given together, got no implication_of_fact, trained"),
    ],
)
def test_bad_counts_name_field_value_and_what_is_allowed(unchecked, fields, message):
    with pytest.raises(ConfigError, match=message):
        unchecked.FactRecallTask(**fields)


@pytest.mark.parametrize(
    ("facts", "implications", "trained", "message"),
    [
        ([0, 1], [0, 1], [True], r"trained must have one entry a subject \(2\), got 1"),
        ([0, 2], [0, 1], [True] * 2, r"fact_of_subject\[1\] must be < 2, got 2"),
        ([0, -1], [0, 1], [True] * 2, r"fact_of_subject\[1\] must be >= 0, got -1"),
        ([0, 1.5], [0, 1], [True] * 2, r"fact_of_subject\[1\] must be a whole number >= 0, got 1\.5"),
        ([0, 0], [0, 1], [True] * 2, r"fact_of_subject must use every index 0\.\.1, got none for \[1\]"),
        ([], [0, 1], [], r"fact_of_subject must use every index"),
        ([0, [0, 1]], [0, 1], [True] * 2, r"fact_of_subject\[1\] must be one fact, got \[0, 1\]"),
        ([0, 1], [0, 0], [True] * 2, r"implication_of_fact must name at least 2 implications, got 1"),
        ([0, 1], [0, 2], [True] * 2, r"implication_of_fact must use every index 0\.\.2, got none for \[1\]"),
        ([0, 1], [0, -1], [True] * 2, r"implication_of_fact\[1\] must be >= 0, got -1"),
        ([0, 1], [0, 1], [True, 1], r"trained\[1\] must be True or False, got 1"),
        ([0, 1], [0, 1], [True, "no"], r"trained\[1\] must be True or False, got 'no'"),
        ([0], [0], [True], r"n_pairs must be >= 2, got 1"),
    ],
)
def test_bad_mappings_name_field_value_and_what_is_allowed(unchecked, facts, implications, trained, message):
    with pytest.raises(ConfigError, match=message):
        unchecked.FactRecallTask.from_mapping(facts, implications, trained)


def test_mapping_beside_counts_is_refused():
    mapping = {"fact_of_subject": (0, 1), "implication_of_fact": (0, 1), "trained": (True, True)}
    with pytest.raises(ConfigError, match=r"m_train=2, m_test=3.*from_mapping"):
        FactRecallTask(n_pairs=2, m_train=2, **mapping)
    with pytest.raises(ConfigError, match=r"n_pairs must be the number of facts .*got n_pairs=3"):
        FactRecallTask(n_pairs=3, m_train=None, m_test=None, **mapping)


@pytest.mark.parametrize("n_pairs", [2, 20])
def test_edges_that_are_allowed(n_pairs):
    assert FactRecallTask(n_pairs, 0, 1).n_subjects == n_pairs
    assert FactRecallTask(n_pairs, 1, 0).n_subjects == n_pairs
    no_noise = FactRecallTask(n_pairs, 1, 1, n_noise=0, seq_len=3)
    assert list(no_noise.noise_tokens) == []
    assert no_noise.labels[no_noise.eos_token] == "EOS"


def test_unknown_names_raise_with_the_close_matches(tiny_task):
    with pytest.raises(UnknownNameError, match=r"unknown token 'eos'.*allowed: 's0'"):
        tiny_task.token("eos")
    with pytest.raises(UnknownNameError, match=r"unknown token 's9': did you mean 's\d'"):
        tiny_task.tokens("s0", "s9")
    with pytest.raises(UnknownNameError, match=r"unknown split 'heldout_fact': did you mean 'held_out_fact'"):
        tiny_task.triples.of_split("heldout_fact")
    with pytest.raises(UnknownNameError, match=r"unknown task field 'n_pair': did you mean 'n_pairs'"):
        FactRecallTask.from_dict({"n_pair": 3})


def test_one_root_catches_every_error_and_is_a_value_error():
    with pytest.raises(OcrInterpError):
        FactRecallTask(n_pairs=1)
    with pytest.raises(ValueError, match="n_pairs"):
        FactRecallTask(n_pairs=1)
