"""Certificates of any weights: bounds that hold, shapes that are allowed, errors that help."""

import time

import numpy as np
import pytest

from ocr_interp.errors import ConfigError, WeightsError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import solve
from ocr_interp.theory.certificate import certify, cosine_with, held_out_beta
from ocr_interp.theory.problem import max_margin_problem
from ocr_interp.theory.residuals import residual_weights

TASK = FactRecallTask(5, 1, 3)
NORMS = ("nuclear", "frobenius", "spectral")


def descended(task, steps):
    """Full-batch gradient descent on the task's cross-entropy from zero."""
    problem = max_margin_problem(task)
    W = np.zeros(problem.shape)
    for _ in range(steps):
        h = problem.constraint_margins(W)
        odds = np.exp(-h)
        W = W + 0.5 * problem.dual_matrix(odds / (1 + odds.sum(axis=1, keepdims=True)))
    return W


@pytest.mark.parametrize("norm", NORMS)
def test_bounds_hold_for_any_weights(norm):
    optimum = solve(TASK, norm).objective
    rng = np.random.default_rng(0)
    for noise in (0.0, 0.1, 0.3):
        W = solve(TASK, norm).W + noise * rng.normal(size=(22, 10))
        certificate = certify(W, TASK, norm)
        assert certificate.dual <= optimum * (1 + 1e-12)
        assert certificate.primal >= optimum * (1 - 1e-12)
        random = rng.random((len(TASK.training_triples), 10))
        random[np.arange(len(random)), max_margin_problem(TASK).correct] = 0
        assert certify(W, TASK, norm, random).dual <= optimum


def test_scale_of_weights_changes_no_bound_of_given_weights():
    solution = solve(TASK)
    small, large = (certify(s * solution.W, TASK, weights=solution.weights) for s in (1e-3, 1e3))
    assert small.primal == pytest.approx(large.primal)
    assert small.gap == pytest.approx(large.gap, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "size",
    [1e-300, 1e-3, 1e300, *(pytest.param(s, marks=pytest.mark.slow) for s in (1e-200, 1e-155, 1e155, 1e200))],
)
def test_certificates_are_right_at_any_scale(norm, size):
    """Of a solution with noise, scaled to a largest entry of `size`; squares of it are 0 or infinite."""
    W = solve(TASK, norm).W + 0.02 * np.random.default_rng(0).normal(size=(22, 10))
    W, dual = W / np.abs(W).max(), solve(TASK, norm).weights
    expected = certify(W, TASK, norm)
    got = certify(size * W, TASK, norm)
    assert got.primal == pytest.approx(expected.primal, rel=1e-12)
    assert 0 < got.dual <= got.primal
    assert got.dual == pytest.approx(expected.dual, rel=1e-3)
    assert got.min_margin == pytest.approx(size * expected.min_margin, rel=1e-12)
    for factor in (1e-300, 1e300):
        given = certify(size * W, TASK, norm, factor * dual)
        assert given.gap == pytest.approx(certify(W, TASK, norm, dual).gap, abs=1e-12)
    assert certify(size * W, TASK, norm, refine=True).gap <= got.gap
    assert certify(size * W, TASK, norm, scale=1e10).dual > 0
    assert held_out_beta(size * W, TASK).margin == pytest.approx(held_out_beta(W, TASK).margin, rel=1e-12)
    assert cosine_with(size * W, solve(TASK)) == pytest.approx(cosine_with(W, solve(TASK)), rel=1e-12)


@pytest.mark.parametrize("size", [5e-324, 1e-301, 1.1e300, 1e308])
def test_larger_and_smaller_scales_are_refused(size):
    W = solve(TASK).W
    with pytest.raises(WeightsError, match=r"between 1e-300 and 1e\+300, got .*multiply W"):
        certify(size * (W / np.abs(W).max()), TASK)


def test_training_closes_its_own_gap():
    """Full-batch gradient descent on the non-factorized model approaches the Frobenius solution."""
    gaps = [certify(descended(TASK, steps), TASK, "frobenius").gap for steps in (30, 300, 3000)]
    assert gaps[0] > gaps[1] > gaps[2] > 0


def test_scale_one_is_always_tried_and_saturated_residuals_are_safe():
    W = 1e4 * solve(TASK).W
    searched, fixed = certify(W, TASK), certify(W, TASK, scale=1.0)
    assert fixed.scale == 1.0
    assert np.isfinite(fixed.dual)
    assert searched.dual >= fixed.dual > 0


def test_residuals_are_softmax_probabilities():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(4, 3))
    margins = logits[:, :1] - logits
    margins[:, 0] = np.inf
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probabilities[:, 0] = 0
    np.testing.assert_allclose(residual_weights(margins, 1.0), probabilities / probabilities.max())


def test_negative_margin_gives_the_dual_bound_alone():
    certificate = certify(-solve(TASK).W, TASK)
    assert certificate.primal == certificate.gap == np.inf
    assert "no primal bound" in certificate.message
    assert 0 < certificate.dual <= solve(TASK).objective
    assert "no primal bound" in certificate.summary()


@pytest.mark.parametrize("inputs", ["subject_relation", "eos", "noise_eos"])
@pytest.mark.parametrize("outputs", ["answers", "vocabulary"])
def test_rows_and_columns_that_the_problem_lacks_are_left_out(inputs, outputs):
    solution = solve(TASK, outputs=outputs, inputs=inputs)
    full = np.random.default_rng(0).normal(size=(TASK.d_vocab, TASK.d_vocab))
    rows, columns = solution.W.shape
    first = TASK.n_inputs if outputs == "answers" else 0
    full[:rows, first : first + columns] = solution.W
    expected = certify(solution.W, TASK, outputs=outputs, inputs=inputs)
    got = certify(full, TASK, outputs=outputs, inputs=inputs)
    assert (got.primal, got.dual) == (pytest.approx(expected.primal), pytest.approx(expected.dual))


def test_wrong_weights_say_what_is_allowed():
    W = solve(TASK).W
    with pytest.raises(WeightsError, match=r"22 or 28 or 38 rows .* 10 or 38 columns .* got \(10, 22\)"):
        certify(W.T, TASK)
    with pytest.raises(WeightsError, match="zero throughout"):
        certify(np.zeros_like(W), TASK)
    with pytest.raises(WeightsError, match="finite"):
        certify(np.where(W > 1, np.nan, W) * np.inf, TASK)
    with pytest.raises(WeightsError, match=r"\(25, 10\)"):
        certify(W, TASK, weights=np.ones((3, 10)))
    good = solve(TASK).weights
    for bad in (-good, 0 * good, good + np.nan, good + 1.0):
        with pytest.raises(WeightsError, match="dual weights must be"):
            certify(W, TASK, weights=bad)
    with pytest.raises(ConfigError, match="outputs"):
        certify(W, TASK, outputs="all")
    with pytest.raises(ConfigError, match="scale"):
        certify(W, TASK, scale=0.0)


def test_cosine_and_beta():
    nuclear, frobenius = solve(TASK), solve(TASK, "frobenius")
    assert cosine_with(3 * nuclear.W, nuclear) == pytest.approx(1)
    assert 0.9 < cosine_with(nuclear.W, frobenius) < 1
    assert held_out_beta(nuclear.W, TASK).projection == pytest.approx(np.sqrt(1 / 3))
    assert held_out_beta(frobenius.W, TASK).margin == pytest.approx(0, abs=1e-12)
    assert np.isnan(held_out_beta(solve(FactRecallTask(3, 2, 0)).W, FactRecallTask(3, 2, 0)).margin)


def test_beta_projection_is_a_mean_and_margin_a_worst_case():
    W = solve(TASK).W.copy()
    W[1, 5] += 0.3  # one held-out subject of pair 0 prefers c0 more
    measured, predicted = held_out_beta(W, TASK), np.sqrt(1 / 3)
    assert measured.projection == pytest.approx(predicted + 0.3 / 15)
    assert measured.margin == pytest.approx(predicted)


def test_fast_enough_for_every_logged_step():
    task = FactRecallTask(20, 1, 3)
    W = solve(task).W
    certify(W, task)
    start = time.perf_counter()
    for _ in range(5):
        certify(W, task)
    assert (time.perf_counter() - start) / 5 < 0.05  # measured: 1 ms, 0.2 ms at a fixed scale


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("sizes", [(5, 1, 3), (4, 3, 1), (6, 2, 2)])
def test_refined_residuals_are_tight_at_the_limit(norm, sizes):
    task = FactRecallTask(*sizes)
    solution = solve(task, norm)
    plain, refined = certify(solution.W, task, norm), certify(solution.W, task, norm, refine=True)
    assert refined.dual <= solution.objective * (1 + 1e-12)
    assert refined.gap < 1e-3
    assert plain.gap > 5 * refined.gap
