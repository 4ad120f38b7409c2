"""The study of mitigations: claims that hold and fail, options that are filled in, who follows whom."""

import dataclasses

import numpy as np
import pytest

from analyses.mitigation import pareto
from analyses.mitigation.criteria import ADDED, COSINE, SEEDS, SETTINGS, VARIANTS
from ocr_interp import FactRecallTask
from ocr_interp.mitigation import Aim, mitigate
from ocr_interp.mitigation.methods.counter_examples import CounterExamples
from ocr_interp.mitigation.methods.routed import Routed

ACCURACY = {"deduced": 1.0, "silent": 0.1, "": 0.5}
BETAS = {
    "nothing": (0.6, 0.6),
    "experts, read": (0.7, 0.0),
    "experts, write": (0.6, 0.6),
    "penalty, all subjects": (0.4, 0.0),
    "counter-examples, 1 a pair": (0.5, 0.3),
    "penalty, 1 subject a pair": (0.5, 0.3),
    "without the tail": (0.65, 0.65),
    "large start": (0.2, 0.2),
    "known features": (COSINE, 0.0),
}


def as_predicted():
    """What the predictions say, in every setting and seed."""
    found = {}
    for setting in SETTINGS:
        of = found[setting.name] = {}
        for label, variant in (VARIANTS | ADDED).items():
            wanted, unwanted = BETAS.get(label, (0.5, 0.5))
            values = {
                "wanted_accuracy": ACCURACY[variant.wanted],
                "unwanted_accuracy": ACCURACY[variant.unwanted],
                "wanted_beta": wanted,
                "unwanted_beta": unwanted,
                "after_unwanted_accuracy": 1.0,
                "told_accuracy": 0.5,
            }
            of[label] = pareto.Measurements(
                setting.name,
                label,
                variant.control,
                "nothing",
                0.1,
                0.3,
                {name: [value] * len(SEEDS) for name, value in values.items()},
            )
    return found


def changed(found, label, **values):
    """The same with other values of one method, in the last setting alone."""
    last = SETTINGS[-1].name
    each = found[last][label]
    lists = {name: [value] * len(SEEDS) for name, value in values.items()}
    other = dataclasses.replace(each, values=each.values | lists)
    return {**found, last: {**found[last], label: other}}


def test_claims_hold_where_all_is_as_predicted():
    assert all(claim.holds for claim in pareto.claims(as_predicted()))


@pytest.mark.parametrize(
    ("label", "values", "fails"),
    [
        ("experts, read", {"unwanted_accuracy": 0.31}, {"experts_read_unwanted", "selective"}),
        ("experts, read", {"wanted_beta": 0.59}, {"reading_apart_deduces_more"}),
        ("penalty, all subjects", {"wanted_beta": 0.61}, {"a_penalty_deduces_less"}),
        ("penalty, 1 subject a pair", {"unwanted_beta": 0.04}, {"penalty_1_subject_a_pair_dilutes"}),
        ("known features", {"unwanted_beta": 0.11}, {"known_features_law"}),
        ("large start", {"wanted_beta": 0.35}, {"large_start_alike"}),
        ("large start", {"wanted_beta": 0.51, "unwanted_beta": 0.51}, {"large_start_deduces_less"}),
        ("without the top", {"told_accuracy": 0.95}, {"top_block_costs_what_is_told"}),
        ("own matrix", {"after_unwanted_accuracy": 0.4}, {"own_matrix_returns"}),
    ],
)
def test_a_claim_fails_by_one_setting(label, values, fails):
    found = pareto.claims(changed(as_predicted(), label, **values))
    assert {claim.id for claim in found if not claim.holds} == {f"mitigation_{name}" for name in fails}


def test_names_of_relations_are_filled_in():
    aim = Aim.of(pareto.task_of(SETTINGS[-1]), SETTINGS[-1].unwanted)
    method = pareto.method_of(VARIANTS["experts {unwanted, r1}"], aim)
    assert method == Routed(experts="r1+r3+r4|r2")
    assert all(pareto.method_of(variant, aim) for variant in (VARIANTS | ADDED).values())


def test_who_answers_as_the_counter_example_follows_it():
    task = FactRecallTask(3, 1, 3, n_noise=0, seq_len=3, implied_relations=2)
    method = CounterExamples()
    found = mitigate(task, "r3", method, margin=1.0, entries=0.2, go_on=False)
    aim = found.aim
    told = method.told(aim, 0)
    given = told.select(told.answer != task.right_answer[told.relation, told.subject])
    W = np.zeros_like(found.W)
    answer_of_pair = dict(zip(task.subject_fact[given.subject], given.answer, strict=True))
    for subject, fact in enumerate(task.subject_fact):
        W[2, subject, answer_of_pair[fact]] = 1.0
    assert pareto.follows(dataclasses.replace(found, W=W)) == 1.0
    W[2, 1:4] = 0.0
    W[2, 1:4, task.answer_of_fact[2, 0]] = 1.0  # untold subjects of the first pair are right
    assert pareto.follows(dataclasses.replace(found, W=W)) == pytest.approx(2 / 3)
    assert pareto.follows(mitigate(task, "r3", margin=1.0, entries=0.2, go_on=False)) == 0.0
