"""What each geometry predicts for β (analyses/optimizers/predictions.py, exact.py), by oracles."""

import numpy as np
import pytest

from analyses.optimizers import exact, predictions
from ocr_interp import FactRecallTask, held_out_beta, solve
from ocr_interp.theory.problem import max_margin_problem

SIZES = [(4, 2, 6), (4, 4, 4), (4, 6, 2)]


def task_of(sizes):
    return FactRecallTask(*sizes, n_noise=0, seq_len=3)


@pytest.mark.parametrize("sizes", [(10, 1, 3), (4, 6, 2)])
def test_smallest_schatten_norms_are_those_of_the_closed_form(sizes):
    for norm in ("nuclear", "frobenius", "spectral"):
        expected = solve(task_of(sizes), norm).objective
        assert predictions.smallest_norm(sizes, norm) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("sizes", SIZES)
def test_ranges_shrink_to_the_closed_form_where_the_minimiser_decides(sizes):
    _, a, b = sizes
    nuclear, frobenius, spectral = (
        predictions.beta_range(sizes, norm) for norm in ("nuclear", "frobenius", "spectral")
    )
    assert (nuclear.low, nuclear.high) == pytest.approx((min((a / b) ** 0.5, 1),) * 2, abs=0.02)
    assert (frobenius.low, frobenius.high) == pytest.approx((0, 0), abs=0.02)
    assert (spectral.low, spectral.high) == pytest.approx(
        (predictions.muon_fixed_point(sizes), -min(a / b, 1)), abs=0.02
    )


def test_with_many_pairs_the_spectral_norm_does_not_decide_the_sign():
    found = predictions.beta_range((10, 1, 3), "spectral")
    assert found.low < -1
    assert found.high > 1


def test_the_ends_of_a_range_are_attained_by_matrices_near_the_optimum():
    """By hand at n = 10: the pair block of (1, 1; 1, y) has a norm below √n for y = 1 and y = -1."""
    sizes = (10, 1, 3)
    for norm, y in (("spectral", 1.0), ("spectral", -1.0), ("entry", 1.0), ("entry", -1.0)):
        W = solve(task_of(sizes), "frobenius").W.copy()
        task = task_of(sizes)
        for subject in np.flatnonzero(~task.subject_trained):
            W[subject, 10:] = y * (np.eye(10)[task.subject_fact[subject]] - 0.1)
        assert held_out_beta(W, task).projection == pytest.approx(y)
        assert max_margin_problem(task).constraint_margins(W).min() == pytest.approx(1)
        size = np.linalg.norm(W, 2) if norm == "spectral" else np.abs(W - _shift(W)).max()
        assert size == pytest.approx(predictions.smallest_norm(sizes, norm), rel=1e-6)


def _shift(W):
    """A row's mid-range, for subjects and kind by kind: it changes no same-type margin."""
    shift = np.zeros_like(W)
    for columns in (slice(0, 10), slice(10, 20)):
        block = W[:40, columns]
        shift[:40, columns] = (block.max(1, keepdims=True) + block.min(1, keepdims=True)) / 2
    return shift


def test_gamma_2_is_that_of_the_whole_matrix():
    """The same program without symmetry, on all rows and columns of the smallest task."""
    cp = pytest.importorskip("cvxpy")
    task = task_of((3, 1, 1))
    problem = max_margin_problem(task)
    rows, columns = problem.shape
    whole, t = cp.Variable((rows + columns, rows + columns), PSD=True), cp.Variable()
    logits = problem.x.toarray() @ whole[:rows, rows:]
    margins = [
        logits[k, right] - logits[k, wrong] >= 1
        for k, right in enumerate(problem.correct)
        for wrong in range(columns)
        if wrong != right
    ]
    cp.Problem(cp.Minimize(t), [cp.diag(whole) <= t, *margins]).solve(
        solver="CLARABEL", tol_gap_abs=1e-7, tol_gap_rel=1e-7, tol_feas=1e-7
    )
    assert predictions.smallest_norm((3, 1, 1), "gamma_2") == pytest.approx(float(t.value), rel=1e-5)


@pytest.mark.parametrize("sizes", [*SIZES, (10, 1, 3), (5, 3, 2)])
def test_one_exact_orthogonal_step_from_zero_has_the_beta_of_the_formula(sizes):
    path = exact.orthogonal_path(sizes, "exact", 1, 0.01, 1)
    assert path.beta == pytest.approx([predictions.muon_first_step(sizes)])


@pytest.mark.parametrize("sizes", SIZES)
def test_fixed_point_is_a_polar_factor_that_reproduces_itself(sizes):
    """What lags makes the gradient; the polar factor by a decomposition, not by the formula."""
    _, a, b = sizes
    f, h, i = (1.0, 1.0, 1e-9) if a <= b else (1.0, 1e-9, 1.0)
    U, _, Vh = np.linalg.svd([[a**0.5 * f, a**0.5 * i], [b**0.5 * h, 0.0]])
    x = U @ Vh / np.sqrt([[a], [b]])
    assert x[1, 1] / x[0, 1] == pytest.approx(predictions.muon_fixed_point(sizes), rel=1e-6)
    lagging = [x[0, 0], x[1, 0]] if a <= b else [x[0, 0], x[0, 1]]
    assert lagging == pytest.approx([min(x[0, 0], x[0, 1], x[1, 0])] * 2)


def test_direction_is_the_gradient_of_the_cross_entropy():
    task = task_of((3, 1, 2))
    problem = max_margin_problem(task)
    W = np.random.default_rng(0).standard_normal(problem.shape)

    def loss(V):
        logits = problem.x @ V
        correct = logits[np.arange(len(problem.correct)), problem.correct]
        return float((np.logaddexp.reduce(logits, axis=1) - correct).sum())

    down, step = exact.descent_direction(problem, W), 1e-6
    numeric = np.zeros_like(W)
    for index in np.ndindex(*W.shape):
        up = W.copy()
        up[index] += step
        numeric[index] = (loss(W) - loss(up)) / step
    assert np.vdot(down, numeric) / np.linalg.norm(down) / np.linalg.norm(numeric) > 1 - 1e-9


def test_the_shipped_iteration_leaves_singular_values_away_from_one():
    matrix = np.random.default_rng(1).standard_normal((6, 4))
    values = np.linalg.svd(exact.orthogonalised(matrix, "newton_schulz"), compute_uv=False)
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert np.ptp(values) > 0.01
    assert np.linalg.svd(exact.orthogonalised(matrix, "exact"), compute_uv=False) == pytest.approx(np.ones(4))
