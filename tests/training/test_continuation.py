"""Limits computed by annealing, against the closed form and the solver."""

import itertools
import math

import numpy as np
import pytest

from ocr_interp import FactRecallTask, certify, solve
from ocr_interp.errors import ConfigError, SolverError
from ocr_interp.maps import maps
from ocr_interp.training.continuation import _SmoothHinges, compute_limit


@pytest.mark.slow
@pytest.mark.parametrize("ov", ["factorized", "non_factorized"])
@pytest.mark.parametrize("sizes", [(2, 1, 1), (3, 1, 3), (3, 2, 1)])
def test_reaches_the_closed_form(ov, sizes):
    task = FactRecallTask(*sizes)
    predicted = solve(task, maps[ov].norm)
    found = compute_limit(task, ov, tolerance=1e-4)
    assert found.certificate.gap <= 1e-4
    assert found.certificate.primal == pytest.approx(predicted.objective, rel=1e-4)
    assert found.stages[-1].beta == pytest.approx(predicted.beta, abs=0.01)
    again = certify(found.W, task, maps[ov].norm, weights=predicted.weights)
    assert again.primal == pytest.approx(found.certificate.primal, rel=1e-12)


@pytest.mark.slow
def test_factors_are_balanced_and_multiply_to_W():
    found = compute_limit(FactRecallTask(3, 1, 2), tolerance=1e-3)
    W_V, W_O = found.parameters["W_V"], found.parameters["W_O"]
    np.testing.assert_array_equal(found.W, W_V @ W_O)
    difference = W_V.T @ W_V - W_O @ W_O.T
    assert np.linalg.norm(difference) < 1e-3 * np.linalg.norm(found.W)


@pytest.mark.slow
def test_unbalanced_task_against_the_solver():
    task = FactRecallTask.from_mapping([0, 0, 0, 1, 1, 2], [0, 1, 2], [True, False, False, True, False, True])
    solved = solve(task, "nuclear", tolerance=1e-6)
    found = compute_limit(task, tolerance=1e-4)
    assert found.certificate.primal == pytest.approx(solved.objective, rel=2e-4)


def test_gap_falls_and_time_runs():
    stages = compute_limit(FactRecallTask(3, 1, 1), "non_factorized").stages
    assert all(a.seconds < b.seconds and a.sharpness < b.sharpness for a, b in itertools.pairwise(stages))
    assert stages[-1].gap < 0.1 * stages[0].gap


@pytest.mark.parametrize("linear_map", [maps["non_factorized"](), maps["factorized"](d_head=4)])
def test_gradient_against_differences(linear_map):
    from ocr_interp.theory.problem import max_margin_problem

    objective = _SmoothHinges(max_margin_problem(FactRecallTask(2, 1, 1)), linear_map)
    theta = np.random.default_rng(0).standard_normal(objective.size)
    gradient = objective(theta, 3.0, 2.0)[1]
    for k in range(0, objective.size, 5):
        step = np.zeros(objective.size)
        step[k] = 1e-6
        slope = (objective(theta + step, 3.0, 2.0)[0] - objective(theta - step, 3.0, 2.0)[0]) / 2e-6
        assert gradient[k] == pytest.approx(slope, abs=1e-6)


@pytest.mark.slow
def test_a_head_that_is_too_narrow_says_how_far_it_came():
    with pytest.raises(SolverError, match=r"certified gap .* required 0.001: raise d_head \(d_head=1\)"):
        compute_limit(FactRecallTask(3, 1, 1), d_head=1, max_sharpness=64)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"ov": "full"}, "ov must be one of"), ({"tolerance": 0}, "tolerance"), ({"d_head": 0}, "d_head")],
)
def test_bad_input(change, words):
    with pytest.raises(ConfigError, match=words):
        compute_limit(FactRecallTask(2, 1, 1), **change)


def test_without_any_implication_the_margin_is_zero():
    found = compute_limit(FactRecallTask(3, 0, 2), tolerance=1e-3)
    assert math.isnan(found.stages[-1].beta)
    assert found.certificate.held_out_margins == pytest.approx(0, abs=1e-2)
