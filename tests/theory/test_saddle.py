"""The saddle: the KKT conditions at full size, its limits, an independent program, and bad input."""

import cvxpy as cp
import numpy as np
import pytest

from ocr_interp import FactRecallTask, solve
from ocr_interp.errors import ConfigError, UnknownNameError
from ocr_interp.theory import certify, held_out_beta, saddle_solution
from ocr_interp.theory.problem import max_margin_problem

BELOW = [(20, 1, 3), (2, 1, 2), (10, 1, 9), (40, 1, 3), (6, 2, 5)]
OTHERS = [(3, 2, 2), (4, 3, 1), (2, 1, 1)]


def noise_free(*sizes: int) -> FactRecallTask:
    return FactRecallTask(*sizes, n_noise=0, seq_len=3)


def full_size(solution):
    """Margins, G of W_OV = diag(1/a) W, W_OV and the scores, from the problem's own constraints."""
    task = solution.task
    problem = max_margin_problem(task, solution.outputs, solution.inputs)
    scores = np.ones(problem.shape[0])
    scores[: task.n_subjects] = solution.scores[np.where(task.subject_trained, 0, 1)]
    scores[task.n_subjects : task.n_subjects + 2] = solution.scores[2:]
    problem.check_weights(solution.weights)
    G = problem.dual_matrix(solution.weights)
    return problem.constraint_margins(solution.W), scores[:, None] * G, solution.W / scores[:, None], scores


@pytest.mark.parametrize("sizes", BELOW + OTHERS)
@pytest.mark.parametrize(
    ("attention", "inputs"),
    [
        ("frozen", "subject_relation"),
        ("frozen", "eos"),
        ("frozen", "noise_eos"),
        ("trained", "subject_relation"),
    ],
)
def test_it_is_a_kkt_point_at_full_size(sizes, attention, inputs):
    solution = saddle_solution(FactRecallTask(*sizes), attention=attention, inputs=inputs)
    margins, G, W_OV, scores = full_size(solution)
    assert margins.min() == pytest.approx(1, abs=1e-11)
    slack = np.where(np.isfinite(margins), margins - 1, 0)
    assert (solution.weights * slack).max() <= 1e-9 * solution.weights.max()
    U, s, Vt = np.linalg.svd(W_OV, full_matrices=False)
    kept = s > 1e-9 * s[0]
    assert kept.sum() == solution.rank == sizes[0]
    np.testing.assert_allclose(G @ Vt[kept].T, U[:, kept], atol=1e-11)
    np.testing.assert_allclose(G.T @ U[:, kept], Vt[kept].T, atol=1e-11)
    if attention == "trained":  # and of the scores: a_k² is the row's part of ⟨G, W_OV⟩
        np.testing.assert_allclose((G * W_OV).sum(axis=1), scores**2, atol=1e-10)
    assert np.linalg.svd(G, compute_uv=False)[0] == pytest.approx(1 + solution.kappa, abs=1e-9)
    assert solution.certificate.is_kkt_point(1e-11)
    assert solution.certificate.dual_norm == pytest.approx(1 + solution.kappa, abs=1e-9)
    assert solution.is_strict_saddle == (sizes[1] < sizes[2])
    assert held_out_beta(solution.W, solution.task).projection == pytest.approx(solution.beta, abs=1e-9)


@pytest.mark.parametrize(
    ("sizes", "beta"),
    [
        ((20, 1, 3), 0.7858),
        ((40, 1, 3), 0.7822),
        ((100, 1, 3), 0.7748),
        ((10, 1, 20), 0.526),
        ((10, 2, 3), 0.912),
    ],
)
def test_beta_of_the_table(sizes, beta):
    assert saddle_solution(noise_free(*sizes)).beta == pytest.approx(beta, abs=5e-4)


@pytest.mark.parametrize(("attention", "power"), [("frozen", 1 / 4), ("trained", 1 / 3)])
def test_beta_tends_to_a_power_of_the_ratio(attention, power):
    solution = saddle_solution(noise_free(1_000_000, 2, 7), attention=attention)
    assert solution.beta == pytest.approx((2 / 7) ** power, rel=1e-3)
    assert solution.certificate.is_kkt_point()


def test_norm_and_rank_beside_the_max_margin_solution():
    saddle, best = saddle_solution(noise_free(20, 1, 3)), solve(noise_free(20, 1, 3))
    assert saddle.objective / best.objective - 1 == pytest.approx(0.00318, abs=1e-5)
    assert (saddle.rank, best.rank) == (20, 39)
    assert saddle.kappa == pytest.approx(0.1385, abs=1e-4)
    proof = certify(saddle.W, saddle.task, weights=saddle.weights)
    assert proof.gap == pytest.approx(saddle.kappa, abs=1e-9)
    assert saddle_solution(noise_free(5, 2, 2)).objective == pytest.approx(
        solve(noise_free(5, 2, 2)).objective
    )


def test_the_missing_mode_lowers_the_norm():
    """Walking along the mode of G that W lacks and scaling back to margin 1 lowers ‖θ‖² to second order."""
    solution = saddle_solution(noise_free(6, 1, 3))
    _, G, W, _ = full_size(solution)
    U, _, Vt = np.linalg.svd(G)
    problem = max_margin_problem(solution.task)

    def norm_at_margin_one(step: float) -> float:
        moved = W + step**2 * np.outer(U[:, 0], Vt[0])
        # Only the weighted margin counts to this order; the relation rows re-balance the single margins.
        weighted = (
            solution.weights * np.where(np.isfinite(m := problem.constraint_margins(moved)), m, 0)
        ).sum()
        return float(np.linalg.svd(moved, compute_uv=False).sum() * solution.weights.sum() / weighted)

    gain = norm_at_margin_one(0.0) - norm_at_margin_one(1e-3)
    assert gain == pytest.approx(1e-6 * solution.kappa, rel=1e-2)


@pytest.mark.slow
def test_cvxpy_finds_the_same_matrix_among_the_modes_and_no_better_multipliers():
    solution = saddle_solution(noise_free(3, 1, 4))
    problem = max_margin_problem(solution.task)
    margins, _, W, _ = full_size(solution)
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    kept = s > 1e-9 * s[0]
    U, Vt = U[:, kept], Vt[kept]
    x, example = problem.x.toarray(), np.arange(len(problem.correct))
    core = cp.Variable((kept.sum(), kept.sum()))
    logits = x @ U @ core @ Vt
    constraints = []
    for k in example:
        wrong = [j for j in range(problem.shape[1]) if j != problem.correct[k]]
        constraints.append(logits[k, problem.correct[k]] - logits[k, wrong] >= 1)
    found = cp.Problem(cp.Minimize(cp.norm(core, "nuc")), constraints)
    found.solve(solver="CLARABEL")
    assert found.value == pytest.approx(solution.objective, rel=1e-6)
    np.testing.assert_allclose(U @ core.value @ Vt, W, atol=1e-4)

    tight = np.isfinite(margins) & (margins < 1 + 1e-9)
    mu = cp.Variable(margins.shape, nonneg=True)
    row_sums = cp.sum(mu, axis=1)
    indicator = np.zeros(margins.shape)
    indicator[example, problem.correct] = 1
    G = x.T @ (cp.multiply(indicator, cp.reshape(row_sums, (len(example), 1), order="C")) - mu)
    zero = cp.multiply(mu, (~tight).astype(float)) == 0
    stationary = [zero, G @ Vt.T == U, G.T @ U == Vt.T]
    smallest = cp.Problem(cp.Minimize(cp.sigma_max(G)), stationary)
    smallest.solve(solver="CLARABEL")
    assert smallest.value == pytest.approx(1 + solution.kappa, abs=1e-5)


def test_geometry_is_that_of_its_matrix():
    solution = saddle_solution(noise_free(4, 1, 3))
    inputs, outputs = solution.input_embeddings(), solution.output_embeddings()
    np.testing.assert_allclose(inputs @ outputs.T, solution.W, atol=1e-12)
    # Rank one: the training and the held-out subjects of a pair differ by their constant part alone.
    assert solution.cosines.train_held_out_same_pair > 0.99
    assert "strict saddle" in solution.summary()


@pytest.mark.parametrize(
    ("task", "options", "says"),
    [
        (FactRecallTask.from_mapping([0, 0, 1], [0, 1], [True, False, True]), {}, "balanced"),
        (noise_free(3, 0, 2), {}, "m_train >= 1"),
        (noise_free(3, 2, 0), {}, "m_test >= 1"),
        (noise_free(3, 1, 2), {"attention": "uniform"}, "attention"),
        (noise_free(3, 1, 2), {"attention": "trained", "inputs": "eos"}, "frozen"),
        (noise_free(2, 1, 2), {"outputs": "vocabulary"}, "answers"),
    ],
)
def test_what_it_refuses(task, options, says):
    with pytest.raises((ConfigError, UnknownNameError), match=says):
        saddle_solution(task, **options)
