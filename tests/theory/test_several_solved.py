"""Several implications of a fact: smallest norms and the saddle against full programs and by hand."""

import math

import numpy as np
import pytest

from ocr_interp import FactRecallTask, certify, held_out_beta, solve
from ocr_interp.errors import ConfigError, UnknownNameError
from ocr_interp.theory import (
    SymmetricFactors,
    saddle_solution,
    symmetric_flow,
    trained_attention_beta_interval,
)
from ocr_interp.theory.problem import max_margin_problem
from ocr_interp.theory.solver.cvxpy_program import solve_cvxpy

BOTH = (("answers", "subject_relation"), ("vocabulary", "noise_eos"))
MIXED = FactRecallTask.from_mapping(
    [0, 0, 1, 1, 2, 2], [[0, 1, 1], [0, 1, 2]], [[True, False] * 3, [True, False, True, True, False, True]]
)
"""Three facts; two share their implication of r2 and none that of r3. Each is told to subjects of its own."""


def several(sizes, implied):
    return FactRecallTask(*sizes, n_noise=1, seq_len=4, implied_relations=implied)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "implied"),
    [
        ((3, 1, 2), 1),
        ((3, 1, 2), 2),
        ((2, 1, 3), 3),
        ((2, 1, 2), 4),
        ((3, 1, 1), 2),
        ((2, 3, 1), 2),
        ((2, 5, 1), 3),
        ((2, 5, 1), 4),
        ((2, 1, 1), 4),
    ],
)
def test_the_law_against_full_programs(sizes, implied):
    """CVXPY knows neither the closed form nor a symmetry."""
    (n, a, b), task = sizes, several(sizes, implied)
    problem = max_margin_problem(task)
    W, _ = solve_cvxpy(problem, "nuclear")
    norm = np.linalg.svd(W, compute_uv=False).sum() / problem.constraint_margins(W).min()
    if a <= implied * b:
        law = (n - 1) * (math.sqrt(implied * a) + math.sqrt(b)) + implied * math.sqrt(n)
    else:
        law = (n - 1) * math.sqrt((implied + 1) * (a + b)) + implied * math.sqrt(n)
    found = solve(task)
    assert found.method == "closed_form"
    assert found.objective == pytest.approx(law, rel=1e-12)
    assert norm == pytest.approx(law, rel=1e-5)
    beta = min(math.sqrt(a / (implied * b)), 1.0)
    assert found.beta == pytest.approx(beta, rel=1e-12)
    for relation in (None, *(f"r{k + 2}" for k in range(implied))):
        assert held_out_beta(W, task, relation).projection == pytest.approx(beta, abs=2e-4)
        assert held_out_beta(found.W, task, relation).margin == pytest.approx(beta, rel=1e-9)


@pytest.mark.parametrize("implied", [2, 3])
@pytest.mark.parametrize("sizes", [(3, 1, 2), (3, 3, 1), (2, 5, 2), (3, 0, 2), (2, 2, 0), (9, 1, 2)])
@pytest.mark.parametrize("norm", ["nuclear", "frobenius", "spectral"])
def test_closed_forms_are_proved_by_their_own_weights(sizes, implied, norm):
    task = several(sizes, implied)
    for outputs, inputs in BOTH:
        found = solve(task, norm, outputs=outputs, inputs=inputs)
        proof = certify(found.W, task, norm, found.weights, outputs=outputs, inputs=inputs)
        assert abs(proof.gap) < 1e-12
        assert abs(found.certificate.gap) < 1e-12
        assert proof.min_margin == pytest.approx(1.0, abs=1e-9)
        np.testing.assert_allclose(found.input_embeddings() @ found.output_embeddings().T, found.W, atol=1e-9)
        if sizes[2]:
            assert found.held_out_margin_overall == pytest.approx(proof.held_out_margins_overall.min())
            assert found.held_out_margin == pytest.approx(proof.held_out_margins.min())


FIRST, SECOND = [True, False, False] * 2, [False, True, False] * 2
TOLD = [True, False, False, True, True, False, False]
MAPPED = {
    "own masks": MIXED,
    "told to others": FactRecallTask.from_mapping([0, 0, 0, 1, 1, 1], [[0, 1], [1, 0]], [FIRST, SECOND]),
    "shared": FactRecallTask.from_mapping([0, 0, 1, 1, 2, 2, 3], [[0, 0, 1, 1], [0, 1, 1, 0]], TOLD),
}


SLOWER = (pytest.param(name, marks=pytest.mark.slow) for name in ("told to others", "shared"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own masks", *SLOWER])
def test_mappings_against_full_programs(name):
    task = MAPPED[name]
    for outputs, inputs in BOTH:
        problem = max_margin_problem(task, outputs, inputs)
        W, weights = solve_cvxpy(problem, "nuclear")
        full = certify(W, task, "nuclear", weights, outputs=outputs, inputs=inputs)
        found = solve(task, outputs=outputs, inputs=inputs)
        lifted = certify(found.W, task, "nuclear", found.weights, outputs=outputs, inputs=inputs)
        assert found.method != "closed_form"
        assert full.dual * (1 - 1e-6) <= found.objective <= full.primal * (1 + 1e-6)
        assert lifted.gap < 1e-6
        np.testing.assert_allclose(found.certificate.margins, lifted.margins, atol=1e-9)
        np.testing.assert_allclose(found.certificate.held_out_margins, lifted.held_out_margins, atol=1e-9)
        np.testing.assert_allclose(full.held_out_margins, lifted.held_out_margins, atol=1e-3)


@pytest.mark.slow
def test_the_splitting_method_and_the_order_of_relations():
    """Another solver, and the same task with its subjects and relations told in another order."""
    splitting = solve(MIXED, method="first_order", margin_tolerance=None)
    assert splitting.objective == pytest.approx(solve(MIXED, method="clarabel").objective, rel=2e-4)
    turned = FactRecallTask.from_mapping(
        [0, 0, 1, 1, 2, 2],
        [[0, 1, 2], [0, 1, 1]],
        [[True, False, True, True, False, True], [True, False] * 3],
    )
    assert solve(turned, margin_tolerance=None).objective == pytest.approx(splitting.objective, rel=2e-4)


@pytest.mark.slow
def test_a_table_has_a_row_per_implication():
    found = solve(MIXED, margin_tolerance=None)
    table = found.table()
    assert table["relation"].tolist() == ["r2"] * 6 + ["r3"] * 6
    assert table["told"].tolist() == [*MIXED.told[1], *MIXED.told[2]]
    assert table.loc[9, ["subject", "fact", "implication"]].tolist() == ["s3", "b1", "d1"]
    held_out = found.certificate.held_out_margins
    np.testing.assert_allclose(table["implication_margin"][~table["told"]], held_out, atol=1e-9)
    frame = solve(MAPPED["told to others"]).table()
    names = ("implication_margin_low", "implication_margin", "implication_margin_high")
    low, margin, high = (np.asarray(frame[name])[~np.asarray(frame["told"])] for name in names)
    assert (low <= margin + 1e-9).all()
    assert (margin <= high + 1e-9).all()


@pytest.mark.parametrize(
    ("sizes", "implied"), [((6, 1, 3), 2), ((4, 2, 1), 3), ((5, 1, 1), 4), ((3, 1, 2), 2)]
)
@pytest.mark.parametrize("inputs", ["subject_relation", "eos"])
def test_the_saddle_is_a_kkt_point_at_full_size(sizes, implied, inputs):
    task = several(sizes, implied)
    saddle = saddle_solution(task, inputs=inputs)
    assert saddle.certificate.is_kkt_point()
    assert saddle.is_strict_saddle
    n, a, b = sizes
    assert saddle.rank == n + implied - 1
    assert saddle.beta > solve(task).beta
    proof = certify(saddle.W, task, "nuclear", saddle.weights, inputs=inputs)
    assert proof.min_margin == pytest.approx(1.0, abs=1e-9)
    assert proof.norm_value == pytest.approx(saddle.objective)
    G = max_margin_problem(task, "answers", inputs).dual_matrix(saddle.weights)
    U, _, Vt = np.linalg.svd(saddle.W)
    left, right = U[:, : saddle.rank], Vt[: saddle.rank].T
    np.testing.assert_allclose(G @ right, left, atol=1e-12)
    np.testing.assert_allclose(G.T @ left, right, atol=1e-12)
    assert np.linalg.norm(G, 2) == pytest.approx(1 + saddle.kappa)
    many = saddle_solution(several((10**6, a, b), implied))
    assert many.beta == pytest.approx((a / (implied * b)) ** 0.25, rel=1e-2)


def test_where_the_saddle_is_the_smallest_norm():
    """One implication of three told of four is deduced in full, and so are two at a = K b."""
    for sizes, implied in (((4, 2, 1), 2), ((3, 3, 1), 1)):
        saddle = saddle_solution(several(sizes, implied))
        assert not saddle.is_strict_saddle
        assert saddle.beta == pytest.approx(solve(several(sizes, implied)).beta) == pytest.approx(1.0)


def test_what_is_known_for_one_implication_is_refused_for_more():
    task = several((3, 1, 2), 2)
    with pytest.raises(ConfigError, match="trained-attention interval is known for one implication"):
        trained_attention_beta_interval(task)
    with pytest.raises(ConfigError, match="attention='trained' has a known saddle for one implication"):
        saddle_solution(task, attention="trained")
    with pytest.raises(ConfigError, match="symmetric_flow follows one implication"):
        symmetric_flow(task, SymmetricFactors.isotropic(0.1))
    with pytest.raises(ConfigError, match="symmetric factors have one implication"):
        SymmetricFactors.isotropic(0.1).at_full_size(task)
    with pytest.raises(ConfigError, match="predicted cosines are for one implication"):
        _ = solve(task).cosines
    with pytest.raises(UnknownNameError, match="r2"):
        held_out_beta(solve(task).W, task, "r1")
