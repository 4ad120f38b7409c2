"""The closed form against the oracle file, its own dual weights, and its definitions."""

import itertools
import json
import time
from pathlib import Path

import numpy as np
import pytest

from ocr_interp.errors import ConfigError, UnknownNameError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import solve, trained_attention_beta_interval
from ocr_interp.theory.certificate import certify, cosine_with, held_out_beta

ORACLES = json.loads((Path(__file__).parents[1] / "oracles" / "max_margin.json").read_text())
SIZES = [(n, a, b) for n, a, b in itertools.product([2, 3, 7], [0, 1, 3], [0, 1, 3]) if a + b]


@pytest.mark.parametrize(
    "oracle", ORACLES["balanced"], ids=lambda o: f"{o['n_pairs']}-{o['m_train']}-{o['m_test']}"
)
def test_agrees_with_the_oracle(oracle):
    task = FactRecallTask(oracle["n_pairs"], oracle["m_train"], oracle["m_test"])
    nuclear, frobenius = solve(task), solve(task, "frobenius")
    assert nuclear.objective == pytest.approx(oracle["nuclear_norm"], rel=1e-5)
    assert frobenius.squared_norm == pytest.approx(oracle["frobenius_norm_squared"], rel=1e-5)
    beta = min(np.sqrt(oracle["m_train"] / oracle["m_test"]), 1.0)
    assert nuclear.held_out_margin == pytest.approx(beta, abs=1e-9)
    assert nuclear.held_out_margin == pytest.approx(oracle["held_out_margin_nuclear"], abs=1e-3)
    assert frobenius.held_out_margin == 0
    measured = certify(nuclear.W, task, weights=nuclear.weights)
    np.testing.assert_allclose(measured.held_out_margins, beta, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["nuclear", "frobenius", "spectral"])
@pytest.mark.parametrize("outputs", ["answers", "vocabulary"])
@pytest.mark.parametrize("inputs", ["subject_relation", "eos", "noise_eos"])
def test_dual_weights_prove_it_optimal(norm, outputs, inputs):
    for sizes in SIZES:
        task = FactRecallTask(*sizes, n_noise=2, seq_len=5)
        solution = solve(task, norm, outputs=outputs, inputs=inputs)
        certificate = certify(solution.W, task, norm, solution.weights, outputs=outputs, inputs=inputs)
        assert certificate.gap == pytest.approx(0, abs=1e-12)
        assert certificate.min_margin == pytest.approx(1, abs=1e-12)
        assert certificate.primal == pytest.approx(solution.objective, rel=1e-12)
        if sizes[2]:
            assert certificate.held_out_margins.min() == pytest.approx(solution.held_out_margin, abs=1e-12)
            overall = certificate.held_out_margins_overall.min()
            assert overall == pytest.approx(solution.held_out_margin_overall, abs=1e-12)


@pytest.mark.parametrize("norm", ["nuclear", "frobenius", "spectral"])
@pytest.mark.parametrize("sizes", SIZES)
def test_spectrum_rank_and_embeddings_are_those_of_the_matrix(norm, sizes):
    solution = solve(FactRecallTask(*sizes), norm)
    values = np.linalg.svd(solution.W, compute_uv=False)
    predicted = np.concatenate([np.full(b.multiplicity, b.value) for b in solution.spectrum])
    np.testing.assert_allclose(values[: solution.rank], predicted, rtol=1e-12)
    np.testing.assert_allclose(values[solution.rank :], 0, atol=1e-12)
    inputs, outputs = solution.input_embeddings(), solution.output_embeddings()
    assert inputs.shape[1] == outputs.shape[1] == solution.rank
    np.testing.assert_allclose(inputs @ outputs.T, solution.W, atol=1e-12)
    np.testing.assert_allclose(inputs.T @ inputs, outputs.T @ outputs, atol=1e-12)  # balanced


def test_formulas_of_the_main_task():
    solution = solve(FactRecallTask(20, 1, 3))
    assert solution.objective == pytest.approx(19 * (1 + np.sqrt(3)) + np.sqrt(20), rel=1e-14)
    assert solution.rank == 39
    assert solution.held_out_margin_own_fact == pytest.approx(1 - 0.95 * (1 - np.sqrt(1 / 3)))
    cosines = solution.cosines
    assert cosines.relations == pytest.approx(-1)
    assert cosines.train_relation == pytest.approx(0, abs=1e-12)
    assert cosines.train_held_out_same_pair == pytest.approx((1 / 3) ** 0.25)
    assert cosines.implication_held_out == pytest.approx(0.61, abs=5e-3)
    assert solve(FactRecallTask(2, 1, 1)).cosines.implication_held_out == pytest.approx(0.985, abs=5e-4)
    assert cosine_with(solution.W, solve(solution.task, "frobenius")) == pytest.approx(0.926, abs=5e-4)


@pytest.mark.parametrize("sizes", [(3, 1, 3), (3, 0, 2), (4, 2, 1), (2, 1, 1), (3, 2, 0)])
def test_cosines_are_those_of_the_embeddings(sizes):
    task = FactRecallTask(*sizes)
    n, a, b = sizes
    solution = solve(task)
    E, F, c = solution.input_embeddings(), solution.output_embeddings(), solution.cosines

    def cosine(u, v):
        return float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))

    r1, r2 = E[-2], E[-1]
    if a:
        assert c.implication_train == pytest.approx(cosine(E[0] + r2, F[n]))
        assert c.fact_train == pytest.approx(cosine(E[0] + r1, F[0]))
        assert c.train_train_other_pair == pytest.approx(cosine(E[0], E[a + b]))
        assert c.relations == pytest.approx(cosine(r1, r2))
    else:
        assert np.isnan(c.implication_train)
        assert np.isnan(c.relations)  # r2 is the zero vector
    if b:
        assert c.fact_held_out == pytest.approx(cosine(E[a] + r1, F[0]))
        assert c.implication_held_out == pytest.approx(cosine(E[a] + r2, F[n]))
        assert c.held_out_relation == pytest.approx(cosine(E[a], r1), abs=1e-12)
    if a and b:
        assert c.train_held_out_same_pair == pytest.approx(cosine(E[0], E[a]))
        assert c.train_held_out_other_pair == pytest.approx(cosine(E[0], E[2 * a + b]))
    assert c.fact_implication_same_pair == pytest.approx(cosine(F[0], F[n]))
    assert c.fact_implication_other_pair == pytest.approx(cosine(F[0], F[n + 1]))
    assert c.implication_implication_other_pair == pytest.approx(cosine(F[n], F[n + 1]))


def test_control_without_training_implications():
    n, m = 5, 3
    task = FactRecallTask(n, 0, m)
    solution = solve(task)
    assert solution.objective == pytest.approx((n - 1) * np.sqrt(m) + np.sqrt(m / (2 * (n * m + 1))))
    assert solve(task, "frobenius").squared_norm == pytest.approx((n - 1) * m + m / (2 * (n * m + 1)))
    assert solution.held_out_margin == 0
    assert solution.held_out_margin_own_fact == pytest.approx(-(1 - 1 / n + 1 / (n * (n * m + 1))))


def test_nothing_held_out_leaves_held_out_numbers_undefined():
    solution = solve(FactRecallTask(4, 2, 0))
    assert np.isnan(solution.beta)
    assert np.isnan([solution.held_out_margin, solution.held_out_margin_own_fact]).all()


@pytest.mark.parametrize("norm", ["nuclear", "frobenius"])
@pytest.mark.parametrize(("told", "held_out"), [(3, 0), (0, 2)])
def test_beta_is_undefined_wherever_it_compares_nothing(norm, told, held_out):
    task = FactRecallTask(3, told, held_out)
    solution = solve(task, norm)
    assert np.isnan(solution.beta)
    assert np.isnan(held_out_beta(solution.W, task).projection)
    assert np.isnan(solve(task, norm, method="first_order").beta)
    assert np.isnan(trained_attention_beta_interval(task)).all()
    assert "beta              undefined" in solution.summary()
    assert "nan" not in solution.summary()


def test_any_order_of_subjects():
    rng = np.random.default_rng(0)
    fact = rng.permutation(np.repeat(np.arange(4), 3))
    trained = np.zeros(12, dtype=bool)
    for f in range(4):
        trained[rng.choice(np.flatnonzero(fact == f))] = True
    task = FactRecallTask.from_mapping(fact.tolist(), rng.permutation(4).tolist(), trained.tolist())
    for norm in ("nuclear", "frobenius", "spectral"):
        solution = solve(task, norm)
        assert certify(solution.W, task, norm, solution.weights).gap == pytest.approx(0, abs=1e-12)
        np.testing.assert_allclose(
            solution.input_embeddings() @ solution.output_embeddings().T, solution.W, atol=1e-12
        )
        assert held_out_beta(solution.W, task).projection == pytest.approx(solution.beta)
        assert held_out_beta(solution.W, task).margin == pytest.approx(solution.beta)


def test_a_million_pairs_cost_nothing():
    task = FactRecallTask(10**6, 1, 3)
    start = time.perf_counter()
    solution = solve(task)
    assert solution.rank == 2 * 10**6 - 1
    assert solution.objective == pytest.approx((10**6 - 1) * (1 + np.sqrt(3)) + 1000)
    assert solution.cosines.relations == pytest.approx(-1)
    assert time.perf_counter() - start < 0.5  # the checks of jaxtyping and beartype included


def test_spectral_minimisers_are_many():
    """A training implication margin t up to √(m_test / m_train) is free: β = −t m_train / m_test."""
    task = FactRecallTask(2, 1, 4)
    solution = solve(task, "spectral")
    assert not solution.is_unique
    assert solution.beta == pytest.approx(-0.25)
    t, centred = 1.5, np.eye(2) - 0.5
    block = np.array([[1.0, t], [1.0, -t / 4]])[[0, 1, 1, 1, 1] * 2]
    pair = np.repeat([0, 1], 5)
    subjects = np.hstack([block[:, [k]] * centred[pair] for k in (0, 1)])
    other = np.vstack([subjects, 0.75 * np.array([[1, 1, -1, -1], [-1, -1, 1, 1]])])
    certificate = certify(other, task, "spectral", solution.weights)
    assert certificate.gap == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(certificate.held_out_margins, -t / 4)


def test_trained_attention_interval():
    lower, upper = trained_attention_beta_interval(FactRecallTask(20, 1, 3))
    assert (lower, upper) == (pytest.approx(0.4807, abs=1e-4), pytest.approx(0.6494, abs=1e-4))
    assert trained_attention_beta_interval(FactRecallTask(5, 3, 1)) == (1, 1)
    assert np.isnan(trained_attention_beta_interval(FactRecallTask(5, 0, 1))).all()


def test_refuses_what_it_cannot_solve():
    unbalanced = FactRecallTask.from_mapping([0, 0, 1], [0, 1], [True, False, True])
    with pytest.raises(ConfigError, match=r"balanced task .* use method='auto'"):
        solve(unbalanced, method="closed_form")
    with pytest.raises(UnknownNameError, match="unknown norm 'nuclar': did you mean 'nuclear'"):
        solve(FactRecallTask(), "nuclar")
    with pytest.raises(ConfigError, match="balanced"):
        trained_attention_beta_interval(unbalanced)


def test_summary_is_readable():
    text = solve(FactRecallTask(20, 1, 3)).summary()
    assert "56.3811" in text
    assert "x 19 (pair)" in text
