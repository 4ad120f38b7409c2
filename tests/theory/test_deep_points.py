"""Stationary points of a product of several matrices, against grids, scipy on whole factors, and descent."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, nnls

from ocr_interp.errors import ConfigError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import deep_point, held_out_beta, pair_completions, saddle_solution, solve
from ocr_interp.theory.problem import max_margin_problem
from ocr_interp.training.long_descent import long_descent

SMALL = FactRecallTask(5, 1, 2, n_noise=0, seq_len=3)


def value(beta, m_train, m_test, depth):
    block = np.ones((*np.shape(beta), 2, 2))
    block[..., 1, 1] = beta
    values = np.linalg.svd(block * np.sqrt([[m_train], [m_test]]), compute_uv=False)
    return (values ** (2 / depth)).sum(axis=-1)


@pytest.mark.parametrize(
    ("m_test", "depth", "lowest"),
    [(32, 3, 1.0), (33, 3, 0.50), (49, 3, 0.40), (99, 3, 0.29), (3, 3, 1.0), (99, 4, 1.0), (399, 4, 1.0)],
)
def test_the_lowest_completion_is_that_of_a_grid(m_test, depth, lowest):
    points = pair_completions(1, m_test, depth)
    grid = np.linspace(-1, 2, 12_001)
    values = value(grid, 1, m_test, depth)
    best = next(p for p in points if p.is_lowest)
    assert best.beta == pytest.approx(lowest, abs=0.005)
    assert best.beta == pytest.approx(grid[values.argmin()], abs=5e-4)
    assert best.value <= values.min() + 1e-12


@pytest.mark.parametrize(
    ("m_train", "m_test", "depth"), [(1, 32, 3), (1, 399, 4), (2, 5, 3), (3, 1, 3), (1, 3, 2)]
)
def test_the_stationary_completions_are_all_that_a_grid_has(m_train, m_test, depth):
    points = pair_completions(m_train, m_test, depth)
    grid = np.linspace(-2, 3, 20_002)
    values = value(grid, m_train, m_test, depth)
    middle = values[1:-1]
    low = grid[1:-1][(middle < values[:-2]) & (middle < values[2:])]
    high = grid[1:-1][(middle > values[:-2]) & (middle > values[2:])]
    np.testing.assert_allclose([p.beta for p in points if p.is_stable], low, atol=5e-4)
    np.testing.assert_allclose([p.beta for p in points if not p.is_stable], high, atol=5e-4)
    for point in points:
        assert point.value == pytest.approx(value(point.beta, m_train, m_test, depth), rel=1e-7)


def test_two_factors_have_the_points_that_are_known():
    assert deep_point(SMALL, 2).beta == saddle_solution(SMALL).beta
    assert deep_point(SMALL, 2).objective == pytest.approx(saddle_solution(SMALL).objective)
    assert not deep_point(SMALL, 2).keeps_its_modes
    (only,) = pair_completions(1, 3, 2)
    assert only.beta == pytest.approx(3**-0.5, rel=1e-9)
    assert only.is_kkt
    assert [p.beta for p in pair_completions(2, 2, 2)] == [1.0]


def test_the_lowest_pair_block_has_rank_one_whatever_the_depth():
    """A completion with told coefficients 1 is no KKT point for m_train < m_test: the told fact may grow."""
    for depth in (3, 4):
        points = pair_completions(1, 9, depth)
        assert not any(p.is_kkt for p in points)
        assert min(p.value for p in points) > (1 + 9**0.5) ** (2 / depth)
        many = deep_point(FactRecallTask(10**6, 1, 9, n_noise=0, seq_len=3), depth)
        assert many.beta == pytest.approx(9**-0.25, abs=2e-3)
    assert [p.is_kkt for p in pair_completions(3, 1, 3)] == [True]


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_it_is_a_kkt_point_at_full_size(depth):
    """Multipliers >= 0 on tight margins with G V = p U S^(p-1), Gᵀ U = p V S^(p-1): no symmetry is used."""
    point, problem = deep_point(SMALL, depth), max_margin_problem(SMALL)
    margins = problem.constraint_margins(point.W)
    assert margins.min() == pytest.approx(1, abs=1e-9)
    U, s, Vt = np.linalg.svd(point.W, full_matrices=False)
    kept = s > 1e-9
    power, U, s, V = 2 / depth, U[:, kept], s[kept], Vt[kept].T
    assert point.objective == pytest.approx((s**power).sum(), rel=1e-9)
    columns = []
    for example, output in zip(*np.nonzero(margins < 1 + 1e-9), strict=True):
        one = np.zeros_like(margins)
        one[example, output] = 1
        A = problem.dual_matrix(one)
        columns.append(np.concatenate([(A @ V).ravel(), (A.T @ U).ravel()]))
    wanted = np.concatenate([(power * U * s ** (power - 1)).ravel(), (power * V * s ** (power - 1)).ravel()])
    _, residual = nnls(np.stack(columns, axis=1), wanted)
    assert residual < 1e-7 * np.linalg.norm(wanted)


class Penalised:
    """(1/L) Σ ‖W_l‖² plus a penalty on margins below 1, of whole factors as one vector."""

    def __init__(self, task, depth, width):
        self.problem, self.depth = max_margin_problem(task), depth
        n_in, n_out = self.problem.shape
        widths = [n_in, *[width] * (depth - 1), n_out]
        self.shapes = list(pairwise(widths))
        self.size = sum(rows * columns for rows, columns in self.shapes)

    def factors(self, theta):
        ends = np.cumsum([0, *[r * c for r, c in self.shapes]])
        return [theta[i:j].reshape(s) for i, j, s in zip(ends[:-1], ends[1:], self.shapes, strict=True)]

    def __call__(self, theta, weight):
        factors = self.factors(theta)
        W = np.linalg.multi_dot(factors)
        lacks = np.maximum(1 - self.problem.constraint_margins(W), 0)
        grad_W = -2 * weight * self.problem.dual_matrix(lacks)
        grads = []
        for k, factor in enumerate(factors):
            left = np.linalg.multi_dot([np.eye(len(W)), *factors[:k], np.eye(factor.shape[0])])
            right = np.linalg.multi_dot([np.eye(factor.shape[1]), *factors[k + 1 :], np.eye(W.shape[1])])
            grads.append(left.T @ grad_W @ right.T + 2 * factor / self.depth)
        objective = (theta @ theta) / self.depth + weight * (lacks**2).sum()
        return objective, np.concatenate([g.ravel() for g in grads])

    def minimum(self, theta):
        for weight in (1e1, 1e2, 1e3, 1e4, 1e5):
            options = {"maxiter": 3_000, "maxfun": 6_000, "ftol": 1e-13, "gtol": 1e-9}
            theta = minimize(self, theta, (weight,), jac=True, method="L-BFGS-B", options=options).x
        return np.linalg.multi_dot(self.factors(theta))


def balanced(W, depth, width):
    """Factors of W with equal singular values in each."""
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    U, s, Vt = U[:, :width], s[:width] ** (1 / depth), Vt[:width]
    return [U * s, *[np.diag(s)] * (depth - 2), s[:, None] * Vt]


def measured(W, depth):
    """Σ σ^(2/L) at margin 1."""
    margin = max_margin_problem(SMALL).constraint_margins(W).min()
    return ((np.linalg.svd(W, compute_uv=False) / margin) ** (2 / depth)).sum()


def near(point, depth, rng, size=0.02):
    at_it = np.concatenate([f.ravel() for f in balanced(point.W, depth, 10)])
    return at_it + size * rng.standard_normal(len(at_it))


@pytest.mark.slow
def test_scipy_on_whole_factors_keeps_its_modes_with_three_factors_and_not_with_two():
    """Of three factors it stays at rank n, and 0.03 % lower by breaking the symmetry; two go to `solve`."""
    rng = np.random.default_rng(0)
    two, three = deep_point(SMALL, 2), deep_point(SMALL, 3)
    found = Penalised(SMALL, 2, 10).minimum(near(two, 2, rng))
    assert measured(found, 2) == pytest.approx(solve(SMALL).objective, rel=1e-3)
    assert np.linalg.svd(found, compute_uv=False)[5] > 0.1
    assert three.keeps_its_modes
    found = Penalised(SMALL, 3, 10).minimum(near(three, 3, rng))
    assert 0.9995 * three.objective < measured(found, 3) < three.objective
    assert np.linalg.svd(found, compute_uv=False)[5] < 1e-6
    assert held_out_beta(found, SMALL).projection == pytest.approx(0.8207, abs=1e-3)


@pytest.mark.slow
def test_scipy_finds_lower_points_of_fewer_modes_with_four_factors():
    """So it is a KKT point and no more: fewer modes than the five of the symmetric matrix cost less."""
    rng, program = np.random.default_rng(0), Penalised(SMALL, 4, 10)
    starts = [0.5 * rng.standard_normal(program.size) for _ in range(3)]
    found = min((program.minimum(start) for start in starts), key=lambda W: measured(W, 4))
    assert measured(found, 4) < 0.97 * deep_point(SMALL, 4).objective
    assert int((np.linalg.svd(found, compute_uv=False) > 1e-4).sum()) < 5


@pytest.mark.slow
def test_descent_goes_there_from_a_symmetric_start():
    """Factors with the singular directions of the first gradient: symmetric under permuting pairs."""
    problem, point = max_margin_problem(SMALL), deep_point(SMALL, 3)
    first = problem.dual_matrix((problem.constraint_margins(np.zeros(problem.shape)) < 1).astype(float))
    factors = balanced(1e-2 * first / np.linalg.norm(first), 3, 10)
    start = {f"W_{k}": torch.from_numpy(np.ascontiguousarray(f)) for k, f in enumerate(factors, 1)}
    found = long_descent(SMALL, "deep", start=start, log10_time=30)
    assert found.beta_at(5) < found.beta_at(10) < found.beta < point.beta
    assert found.beta == pytest.approx(point.beta, abs=0.025)
    values = np.linalg.svd(found.W, compute_uv=False) / found.history["margin"].iloc[-1]
    wanted = np.repeat([b.value for b in point.spectrum], [b.multiplicity for b in point.spectrum])
    np.testing.assert_allclose(values[:5], wanted, rtol=0.02)
    assert values[5] < 1e-3


def test_bad_input_is_refused():
    with pytest.raises(ConfigError, match="depth must be >= 2, got 1"):
        deep_point(SMALL, 1)
    with pytest.raises(ConfigError, match="m_train must be >= 1, got 0"):
        pair_completions(0, 3, 3)
    with pytest.raises(ConfigError, match="the saddle needs a balanced task"):
        deep_point(FactRecallTask.from_mapping([0, 0, 1], [0, 1], [True, False, True]), 3)
