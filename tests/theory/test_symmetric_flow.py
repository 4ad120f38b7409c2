"""The reduced flow: beside plain gradient descent at full size, its Jacobian, its limits."""

import math

import numpy as np
import pytest

from ocr_interp import FactRecallTask
from ocr_interp.errors import ConfigError
from ocr_interp.theory import SymmetricFactors, saddle_solution, symmetric_flow
from ocr_interp.theory.certificate import held_out_beta
from ocr_interp.theory.problem import max_margin_problem
from ocr_interp.theory.saddle.flow import _Flow

TASK = FactRecallTask(5, 1, 3, n_noise=0, seq_len=3)


def plain_descent(task, W_V, W_O, lr, steps):
    """Gradient descent on the mean cross-entropy, written out."""
    problem = max_margin_problem(task)
    x, example = problem.x.toarray(), np.arange(len(problem.correct))
    for _ in range(steps):
        logits = x @ W_V @ W_O
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        p[example, problem.correct] -= 1
        G = -x.T @ p / len(example)
        W_V, W_O = W_V + lr * G @ W_O.T, W_O + lr * W_V.T @ G
    return W_V, W_O


@pytest.mark.slow
def test_it_is_gradient_descent_at_full_size():
    """Plain descent with two small rates, extrapolated to a rate of 0, against the flow at the same time."""
    start = SymmetricFactors.normal(np.random.default_rng(0), 0.3)
    W_V, W_O = start.at_full_size(TASK)
    ends = [np.matmul(*plain_descent(TASK, W_V, W_O, lr, round(40 / lr))) for lr in (0.02, 0.01, 0.005)]
    twice = 2 * ends[1] - ends[0], 2 * ends[2] - ends[1]
    expected = (4 * twice[1] - twice[0]) / 3
    path = symmetric_flow(TASK, start, log10_margin=3, tolerance=1e-10)
    log_time = math.log(40)
    beta = np.interp(log_time, path.log_time[1:], path.beta[1:])
    margin = 10 ** np.interp(log_time, path.log_time[1:], path.log10_margin[1:])
    assert beta == pytest.approx(held_out_beta(expected, TASK).projection, abs=1e-4)
    smallest = max_margin_problem(TASK).constraint_margins(expected).min()
    assert margin == pytest.approx(smallest, rel=1e-3)


def test_the_vector_field_is_the_gradient_at_full_size():
    start = SymmetricFactors.normal(np.random.default_rng(1), 0.5)
    W_V, W_O = start.at_full_size(TASK)
    moved_V, moved_O = plain_descent(TASK, W_V, W_O, 1e-6, 1)
    flow = _Flow((5, 1, 3), start, 1e5)
    vector = start.as_vector()
    length = np.linalg.norm(vector)
    y = np.r_[vector / length, math.log(length)]
    slope = flow.slope(0.0, y)
    direction = (slope[:-1] + slope[-1] * y[:-1]) * length * math.exp(flow.state(y).log_residual)
    expected_V, expected_O = start.with_vector(vector + 1e-6 * direction).at_full_size(TASK)
    np.testing.assert_allclose(moved_V, expected_V, atol=1e-13)
    np.testing.assert_allclose(moved_O, expected_O, atol=1e-13)


@pytest.mark.parametrize("log_size", [0.5, 3.0])
def test_its_jacobian_is_its_derivative(log_size):
    start = SymmetricFactors.isotropic(1.0)
    flow = _Flow((5, 1, 3), start, 1e5)
    y = np.random.default_rng(2).standard_normal(flow.cut[-1].stop + 1)
    y[:-1] /= np.linalg.norm(y[:-1])
    y[-1] = log_size
    steps = 1e-6 * np.eye(len(y))
    numeric = np.array([(flow.slope(0, y + s) - flow.slope(0, y - s)) / 2e-6 for s in steps]).T
    np.testing.assert_allclose(
        flow.jacobian(0, y)[:, :-1], numeric[:, :-1], atol=2e-5 * np.abs(numeric).max()
    )


@pytest.mark.slow
def test_a_tiny_start_stays_at_the_saddle_and_leaves_it_at_the_predicted_rate():
    task = FactRecallTask(20, 1, 3, n_noise=0, seq_len=3)
    saddle = saddle_solution(task)
    path = symmetric_flow(task, SymmetricFactors.isotropic(1e-9), log10_margin=8)
    at = path.at_log10_margin([6, 8])
    assert at["beta"][1] == pytest.approx(saddle.beta, abs=1e-4)
    assert at["gap"][1] == pytest.approx(saddle.kappa, rel=0.01)
    rate = math.log10(at["second_mode"][1] / at["second_mode"][0]) / 2
    assert rate == pytest.approx(saddle.kappa, rel=0.02)


@pytest.mark.slow
def test_the_missing_mode_begins_smaller_by_the_predicted_power():
    task = FactRecallTask(20, 1, 3, n_noise=0, seq_len=3)
    found = [
        symmetric_flow(task, SymmetricFactors.isotropic(size), log10_margin=2).at_log10_margin([1])[
            "second_mode"
        ]
        for size in (1e-4, 1e-6)
    ]
    power = math.log10(found[0][0] / found[1][0]) / 2
    assert power == pytest.approx(saddle_solution(task).start_exponent, rel=0.02)


@pytest.mark.slow
def test_in_the_end_it_is_the_max_margin_solution():
    task = FactRecallTask(20, 1, 3, n_noise=0, seq_len=3)
    path = symmetric_flow(task, SymmetricFactors.isotropic(0.1))
    assert path.log10_margin[-1] == pytest.approx(100, abs=0.5)
    assert path.beta[-1] == pytest.approx(math.sqrt(1 / 3), abs=1e-3)
    assert abs(path.gap[-1]) < 1e-3


def test_what_it_refuses():
    start = SymmetricFactors.isotropic(0.1)
    with pytest.raises(ConfigError, match="balanced"):
        symmetric_flow(FactRecallTask.from_mapping([0, 0, 1], [0, 1], [True, False, True]), start)
    with pytest.raises(ConfigError, match="zero throughout"):
        symmetric_flow(TASK, start.with_vector(np.zeros(len(start.as_vector()))))
    with pytest.raises(ConfigError, match="symmetric factors must be"):
        SymmetricFactors(np.ones((3, 2)), np.ones((2, 2)), np.ones((4, 1)), np.ones((1, 2)))
    with pytest.raises(ConfigError, match="size"):
        SymmetricFactors.isotropic(0.0)
