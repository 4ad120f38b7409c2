"""Fact sets: sizes, pairings, controls, wordings, and the errors of bad ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ocr_interp.errors import ConfigError, UnknownNameError
from ocr_interp.llm.facts.catalogue import fact_sets
from ocr_interp.llm.facts.configuration import CONTROLS, FactConfig
from ocr_interp.llm.facts.drawing import make_facts, with_control
from ocr_interp.llm.facts.fact_set import Templates
from ocr_interp.llm.facts.names import FIRST_NAMES, LAST_NAMES
from ocr_interp.llm.facts.sets.base import FactPool
from ocr_interp.llm.facts.spelling import AnswerFinder
from ocr_interp.task import SPLITS

POOLS = {name: source for name in fact_sets if isinstance(source := fact_sets[name], FactPool)}


def pairing(facts):
    """(subjects by (fact, implication)) of training subjects."""
    table = np.zeros((len(facts.facts), len(facts.implications)), dtype=int)
    for fact, implication, trained in zip(
        facts.subject_fact, facts.subject_implication, facts.trained, strict=True
    ):
        table[fact, implication] += trained
    return table


@pytest.mark.parametrize("data", POOLS)
def test_the_papers_sizes(data):
    facts = make_facts(FactConfig(data=data))
    assert (facts.n_subjects, len(facts.facts), len(facts.implications)) == (100, 5, 5)
    counts = {split: facts.count(split) for split in SPLITS}
    assert counts == dict(zip(SPLITS, (20, 20, 80, 80), strict=True))
    assert len(facts.training_examples) == 100 + 20
    np.testing.assert_array_equal(pairing(facts), 4 * np.eye(5))
    assert facts.task.balanced_sizes == (5, 4, 16)
    assert facts.causal == (data in ("city_language", "profession_workplace"))


def test_a_told_implication_is_the_subjects_own_and_held_out_ones_are_not_told():
    facts = make_facts(FactConfig(seed=3))
    first = facts.training_examples[0]
    assert first.prompt == f"{facts.subjects[0]} lives in"
    assert first.answer == facts.facts[0]
    for example in facts.test_examples:
        assert example.told == (SPLITS[example.split] != "held_out_implication")


def test_causal_pairs_are_true_and_counterfactual_ones_are_not():
    cities = POOLS["city_language"]
    language = dict(zip(cities.facts, cities.implications, strict=True))
    for seed in range(20):
        true = make_facts(FactConfig(seed=seed))
        false = make_facts(FactConfig(data="city_language_counterfactual", seed=seed))
        assert [language[city] for city in true.facts] == list(true.implications)
        assert all(language[c] != i for c, i in zip(false.facts, false.implications, strict=True))
        assert false.subjects == true.subjects
        assert false.facts == true.facts
        assert set(false.implications) == set(true.implications)


def test_the_same_seed_gives_the_same_facts_and_another_redraws_names_and_pairs():
    a, b = make_facts(FactConfig(seed=1)), make_facts(FactConfig(seed=2))
    assert a == make_facts(FactConfig(seed=1))
    assert set(a.subjects) != set(b.subjects)
    assert a.facts != b.facts
    assert a.trained != b.trained


def test_controls_share_names_and_pairs_and_change_what_is_told():
    plain = make_facts(FactConfig())
    told = {}
    for control in CONTROLS[1:]:
        facts = make_facts(FactConfig(control=control))
        assert (facts.subjects, facts.facts, facts.trained) == (plain.subjects, plain.facts, plain.trained)
        told[control] = [e.relation for e in facts.training_examples]
    assert told == {
        "facts_only": [0] * 100,
        "implications_only": [1] * 20,
        "random_implications": [0] * 100 + [1] * 20,
        "strangers": [0] * 80 + [1] * 20,
    }


def test_random_implications_have_no_pairing():
    facts = make_facts(FactConfig(control="random_implications"))
    table = pairing(facts)
    assert table.max() == 1  # four training names of a fact, four different implications
    held_out = np.zeros_like(table)
    for k in np.flatnonzero(~np.array(facts.trained)):
        held_out[facts.subject_fact[k], facts.subject_implication[k]] += 1
    assert held_out.min() == 3
    assert held_out.max() == 4
    with pytest.raises(ConfigError, match="no symbolic task"):
        facts.task  # noqa: B018


def test_strangers_have_no_facts_and_all_answers_equally_often():
    plain = make_facts(FactConfig(n_names=10, share=0.3))
    facts = make_facts(FactConfig(n_names=10, share=0.3, control="strangers"))
    told = [facts.subject_implication[k] for k, of_it in enumerate(facts.implication_told) if of_it]
    assert np.bincount(told).tolist() == [3] * 5
    assert told != [plain.subject_implication[k] for k, of_it in enumerate(plain.implication_told) if of_it]
    assert facts.implication_told == facts.trained
    assert facts.fact_told == tuple(not trained for trained in facts.trained)
    for k in np.flatnonzero(~np.array(facts.trained)):
        assert facts.subject_implication[k] == plain.subject_implication[k], "what is asked stays"
    uneven = make_facts(FactConfig(n_pairs=3, n_names=5, share=0.2, control="strangers", data="sport_music"))
    assert sorted(np.bincount(uneven.subject_implication)) == [5, 5, 5]
    odd = with_control(
        replace(plain, trained=(True,) * 7 + (False,) * 43), "strangers", np.random.default_rng(0)
    )
    assert sorted(np.bincount(odd.subject_implication[:7], minlength=5)) == [1, 1, 1, 2, 2]


def test_what_is_told_of_a_fact_says_nothing_of_its_held_out_names():
    plain, rng, untold = make_facts(FactConfig()), np.random.default_rng(0), []
    for _ in range(30):
        facts = with_control(plain, "random_implications", rng)
        told = pairing(facts)
        every = pairing(replace(facts, trained=(True,) * facts.n_subjects))
        untold.append((every - told)[told == 0].mean())
    # Of 16 held-out names 3.2 have the one implication that none of the four told names has.
    assert np.mean(untold) == pytest.approx(16 / 5, abs=0.15)


def test_training_and_test_wordings_can_differ():
    facts = make_facts(FactConfig(train_templates=(0, 2), test_templates=(3,), n_names=5))
    prompts = {e.prompt.replace(facts.subjects[e.subject], "X") for e in facts.training_examples}
    assert prompts == {"X lives in", "The home of X is in", "X speaks", "The mother tongue of X is"}
    asked = {e.prompt.replace(facts.subjects[e.subject], "X") for e in facts.test_examples}
    assert asked == {"You can visit X in", "You can talk to X in"}
    assert len(facts.training_examples) == 2 * (25 + 5)


def test_share_rounds_to_whole_names_a_pair():
    for share, count in ((0.0, 0), (0.1, 2), (0.125, 3), (0.5, 10), (1.0, 20)):
        assert sum(make_facts(FactConfig(share=share)).trained) == 5 * count
    with pytest.raises(ConfigError, match="rounds to 0"):
        make_facts(FactConfig(share=0.02))


def test_no_made_name_holds_an_answer():
    answers = [answer for pool in POOLS.values() for answer in pool.facts + pool.implications]
    finder = AnswerFinder(answers)
    assert not [name for name in FIRST_NAMES + LAST_NAMES if finder.first_in(name)]


def test_an_answer_in_a_name_is_seen_as_whole_words_only():
    assert AnswerFinder(["red", "brown"]).first_in("Rose Brown") == "brown"
    assert AnswerFinder(["New York"]).first_in("Ann New-York") == "New York"
    assert AnswerFinder(["brown"]).first_in("Rosa Browning") is None
    assert AnswerFinder(["++", "+"]).first_in("Rosa Browning") is None
    assert AnswerFinder(["++", "+"]).first_in("Rosa +1") == "+"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subjects": ("Ann Oslo", "Bob"), "facts": ("Oslo", "Rome")}, "'Ann Oslo' names .* 'Oslo'"),
        ({"subjects": ("Bob", "Bob")}, "subjects must be distinct, got 'Bob'"),
        ({"facts": ("Paris",)}, "facts must be at least 2"),
        ({"implications": ("Jazz", "jazz")}, "'Jazz' and 'jazz', which differ in capitals"),
        ({"facts": ("lives", "Rome")}, "template '{subject} lives in' names the answer 'lives'"),
        ({"implications": ("French ", "German")}, "without blanks"),
        ({"subject_fact": (0, 2)}, r"subject_fact must lie in 0..1, got 2"),
        ({"trained": (True,)}, "trained must have one entry a subject"),
    ],
)
def test_bad_fact_sets_say_what_is_wrong(change, message):
    good = make_facts(FactConfig(n_pairs=2, n_names=1, share=0))
    with pytest.raises(ConfigError, match=message):
        replace(good, **change)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("lives in", "must hold {subject} once"),
        ("{name} lives in", r"got \['name'\]"),
        ("{subject} and {subject}", "once"),
        ("{subject} lives in ", "must not end with a blank"),
        ("{subject lives in", "malformed"),
        ("{subject!r:>9} lives in", r"no other field, got \['subject!r:>9'\]"),
    ],
)
def test_bad_templates_say_what_is_wrong(template, message):
    with pytest.raises(ConfigError, match=message):
        Templates((template,), ("{subject} speaks",))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_pairs": 1}, "n_pairs must be >= 2"),
        ({"share": 1.5}, r"share must be in 0..1"),
        ({"data": "file"}, r"data='file' needs a file, got none: .*--file"),
        ({"data": "popqa"}, r"data='popqa' needs a file"),
        ({"file": Path("a.csv")}, r"file goes with data=.* got data='city_language', file='a.csv': name one"),
        ({"train_templates": (0, 0)}, r"train templates must be distinct, got '{subject} lives in' more"),
        ({"train_templates": (4,)}, r"train_templates must lie in 0..3, the fact's wordings, got 4"),
        ({"n_pairs": 21}, "n_pairs must be <= 20"),
        ({"n_pairs": 20, "n_names": 400}, "at most 6400 names"),
    ],
)
def test_bad_configurations_say_what_is_wrong(values, message):
    with pytest.raises(ConfigError, match=message):
        make_facts(FactConfig(**values))


def test_an_unknown_data_set_names_the_close_ones():
    with pytest.raises(UnknownNameError, match="did you mean 'city_language'"):
        make_facts(FactConfig(data="city_langauge"))


def test_a_configuration_survives_json():
    config = FactConfig(control="facts_only", train_templates=(0, 1), share=1)
    assert FactConfig.from_dict(config.to_dict()) == config
    with pytest.raises(UnknownNameError, match="facts field"):
        FactConfig.from_dict({"dat": "x"})
