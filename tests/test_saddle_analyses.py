"""The studies of the saddle and of prior knowledge: their measurements by hand, and claims that can fail."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from analyses.prior import frozen_features, recall_law
from analyses.prior.maps import FrozenFeatures, answer_features
from analyses.prior.stages import N, Pretrained, new_task, outcome
from analyses.saddle import escape, law, several_implications
from analyses.saddle.escape_criteria import PREDICTED
from ocr_interp.theory import saddle_solution
from ocr_interp.training.long_descent import long_descent


def lookup(answer_of: list[int]) -> np.ndarray:
    """Own facts 2, these implications 1, nothing else: subjects, r1, r2 by answers."""
    task = new_task("mislead")
    W = np.zeros((task.n_subjects + 2, 2 * N))
    subjects = np.arange(task.n_subjects)
    W[subjects, task.subject_fact] = 2.0
    W[subjects, N + np.array(answer_of)] = 1.0
    return W


def test_outcomes_of_matrices_by_hand():
    task = new_task("mislead")
    told = outcome(lookup([(f + 1) % N for f in task.subject_fact]), task)
    assert (told.task_rank, told.first) == (0.0, (1.0, 0.0, 0.0))
    assert told.deduction == pytest.approx(1.0)
    recalled = outcome(lookup(list(task.subject_fact)), task)
    assert (recalled.pretrained_rank, recalled.first) == (0.0, (0.0, 1.0, 0.0))
    assert (recalled.fact, recalled.recall) == (2.0, pytest.approx(0.5))
    other = outcome(lookup([(f + 5) % N for f in task.subject_fact]), task)
    assert other.first == (0.0, 0.0, 1.0)
    assert other.recall == pytest.approx(-1 / (N - 1) / 2)


def test_the_law_of_recall_by_hand():
    """One feature per pair, p² = 4, c_i half of it: at f = 0 nothing has grown, at f = √8 |b|² doubled."""
    W_O = torch.cat([2 * torch.eye(N), torch.eye(N)], dim=1).double()
    before = Pretrained("factorized", {"W_V": torch.ones(1, N), "W_O": W_O}, math.nan)
    assert before.feature_ratio() == pytest.approx(0.5)
    assert before.recall(0.0, new=4) == pytest.approx(0.5)
    # |b|²/p² = 2 where |v|² = p²/4, so f² = p²/4 · 2 p² = 8
    assert before.recall(math.sqrt(8), new=4) == pytest.approx(0.5 / math.sqrt(2))


def test_a_new_map_gives_its_product_and_gradients():
    features = answer_features(3, 0.6, 10.0)
    parts = features[:-1, :3].T @ features[:-1, 3:]
    torch.testing.assert_close(parts, 0.6 * torch.eye(3, dtype=torch.float64))
    task = frozen_features.FactRecallTask(2, 1, 1, n_noise=0, seq_len=3)
    short = FrozenFeatures(features=answer_features(2, 0.3, 10.0))
    assert long_descent(task, short, log10_time=2).history["margin"].iloc[-1] > 0


def test_laws_of_frozen_features():
    assert frozen_features.law(0.0, True) == pytest.approx((1 / 3) ** 0.25)
    assert frozen_features.law(0.9, False) == 0.9
    assert frozen_features.law(0.6, True) == pytest.approx(0.857, abs=5e-4)


def test_saddle_claims_can_hold_and_fail():
    saddle = saddle_solution(law.noise_free((10, 1, 3)))
    trained = saddle_solution(law.noise_free((5, 1, 4)), attention="trained")
    good = [
        law.Point(10, 1, 3, "frozen", saddle.beta - 0.01, saddle.beta, 0.577, saddle.kappa, saddle.kappa),
        law.Point(5, 1, 4, "trained", trained.beta, trained.beta, 0.5, trained.kappa, math.nan),
    ]
    assert all(claim.holds for claim in law.claims(good))
    bad = [
        dataclasses.replace(good[0], beta=0.577, flow_gap=0.0),
        dataclasses.replace(good[1], beta=0.45),
    ]
    assert not any(claim.holds for claim in law.claims(bad))


def test_recall_claims_can_hold_and_fail():
    late = recall_law.PRETRAINING_TIMES[-1]
    good = [recall_law.Point(told, late, recall_law.FACT_TIMES[0], 0.9, 0.9, 0.8, 0.8) for told in (1, 5)] + [
        recall_law.Point(6, late, recall_law.FACT_TIMES[0], 1.0, math.nan, 0.8, 0.8)
    ]
    assert all(claim.holds for claim in recall_law.claims(good))
    bad = [dataclasses.replace(p, measured=0.5, ratio=0.5) for p in good]
    assert not any(claim.holds for claim in recall_law.claims(bad))


@pytest.mark.parametrize("good", [True, False])
def test_escape_claims_can_hold_and_fail(good):
    moved = {"stays": 0.0 if good else 0.3, "leaves": -0.3 if good else 0.0}
    measured = {
        name: escape.RulePath([0, 1], [[0.7, 0.7 + moved[kind]]], [0.0], [0.0])
        for name, kind in PREDICTED.items()
    }
    assert {claim.holds for claim in escape.claims(measured)} == {good}
    assert set(escape.RULES) == set(PREDICTED)


def test_several_implications_are_judged_by_their_numbers():
    """One full program on the law; claims that hold of exact numbers and fail of others."""
    program = several_implications.solved((2, 1, 2), 2)
    assert program.law == 0.5
    assert program.beta == pytest.approx(0.5, abs=2e-4)
    assert abs(program.norm_off) < 1e-5

    def descents(shift: float, *, falls: bool):
        return tuple(
            several_implications.Descended(
                sizes, k, entries, ((0.9 - 0.1 * k if falls else 0.8) + shift,), 0.9 - 0.1 * k, 0.1, 0.3
            )
            for sizes in several_implications.DESCENDED
            for k in several_implications.IMPLIED
            for entries in several_implications.STARTS
        )

    def holds(found):
        return [claim.holds for claim in several_implications.claims(found)]

    Measured = several_implications.Measured
    assert holds(Measured((program,), descents(0.0, falls=True))) == [True, True, True]
    off = dataclasses.replace(program, beta=0.51)
    assert holds(Measured((off,), descents(0.03, falls=True))) == [False, False, True]
    assert holds(Measured((program,), descents(0.0, falls=False))) == [True, False, False]
