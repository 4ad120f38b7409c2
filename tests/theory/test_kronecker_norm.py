"""The norm of Kronecker products: a norm, its solutions, its closed form, and what the layouts predict."""

import numpy as np
import pytest
from test_norms import Entrywise

from ocr_interp.errors import ConfigError
from ocr_interp.layouts import token_layout
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import certify, held_out_beta, solve
from ocr_interp.theory.norms.kronecker import KroneckerNorm

TASK = FactRecallTask(3, 1, 2, n_noise=1, seq_len=4)
ORDERS = {
    "aligned": {},
    "transposed": {"layout": "transposed"},
    "permuted": {"permuted_share": 1.0, "layout_seed": 2},
    "vocabulary": {"layout": "vocabulary"},
    "own layers": {"shared_phm_rule": False},
}
PROBLEMS = [("answers", "subject_relation"), ("vocabulary", "noise_eos")]


def norm_of(task, **options):
    return KroneckerNorm(token_layout(task, **options))


def draw(rng, outputs, task=TASK):
    """A matrix of a problem, with subjects that write to answers alone."""
    rows, columns = task.n_subjects + 2, task.n_answers
    if outputs == "vocabulary":
        rows, columns = task.n_inputs, task.d_vocab
    W = rng.normal(size=(rows, columns))
    W[: task.n_subjects, : columns - task.n_answers] = 0
    return W


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("outputs", ["answers", "vocabulary"])
def test_it_is_a_norm_with_its_dual_its_prox_and_its_atom(order, outputs):
    import cvxpy as cp

    norm, rng = norm_of(TASK, **ORDERS[order]), np.random.default_rng(0)
    W, G = draw(rng, outputs), draw(rng, outputs)
    assert norm.value(-2 * W) == pytest.approx(2 * norm.value(W))
    assert norm.value(W + G) <= norm.value(W) + norm.value(G)
    assert np.vdot(W, G) <= norm.value(W) * norm.dual_value(G)
    point = norm.ball_point(G)
    assert norm.value(point) == pytest.approx(1)
    assert np.vdot(point, G) == pytest.approx(norm.dual_value(G))
    X = norm.prox(W, 0.7)
    # Moreau: W − X is 0.7 times a point of the dual ball that pairs with X as its norm.
    assert norm.dual_value(W - X) <= 0.7 * (1 + 1e-9)
    assert np.vdot(W - X, X) == pytest.approx(0.7 * norm.value(X))
    assert not norm.prox(W, 100.0).any()
    assert float(norm.atom(cp.Constant(W)).value) == pytest.approx(norm.value(W), rel=1e-6)


def test_factors_of_a_grid_have_at_least_its_norm():
    norm, rng = norm_of(TASK), np.random.default_rng(1)
    A, B = rng.normal(size=(4, 3, 3)), rng.normal(size=(4, 3, 2))
    whole = np.sum([np.kron(a, b) for a, b in zip(A, B, strict=True)], axis=0)
    W = np.zeros((TASK.n_subjects + 2, TASK.n_answers))
    W[: TASK.n_subjects] = whole[np.ix_(norm.layout.rows, norm.layout.columns)]
    assert norm.value(W) <= (np.sum(A**2) + np.sum(B**2)) / 2
    U, s, Vt = np.linalg.svd(norm.layout.rearranged(W[: TASK.n_subjects])[0], full_matrices=False)
    factors = np.sum((U * np.sqrt(s)) ** 2), np.sum((Vt.T * np.sqrt(s)) ** 2)
    assert norm.value(W) == pytest.approx(sum(factors) / 2)


def test_a_subject_that_writes_to_another_token_has_no_such_norm():
    norm = norm_of(TASK)
    W = draw(np.random.default_rng(0), "vocabulary")
    W[0, 0] = 1.0
    assert norm.value(W) == np.inf
    G = W.copy()
    G[0, 0] = 1e6
    assert norm.dual_value(G) == norm.dual_value(draw(np.random.default_rng(0), "vocabulary"))


@pytest.mark.parametrize("layout", ["aligned", "transposed"])
@pytest.mark.parametrize("sizes", [(2, 1, 1), (3, 1, 2), (4, 2, 1), (20, 1, 3)])
@pytest.mark.parametrize(("outputs", "inputs"), PROBLEMS)
def test_pairs_in_one_factor_have_beta_zero_in_closed_form(layout, sizes, outputs, inputs):
    task, (n, a, b) = FactRecallTask(*sizes), sizes
    found = solve(task, norm_of(task, layout=layout), outputs=outputs, inputs=inputs)
    assert found.method == "closed_form"
    assert found.objective == pytest.approx(np.sqrt((n - 1) * (2 * a + b)) + np.sqrt(n), rel=1e-12)
    assert abs(found.certificate.gap) <= 1e-12
    assert found.certificate.min_margin == pytest.approx(1)
    assert found.beta == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("k", [2, 3])
def test_several_implications_of_a_fact_have_a_closed_form_too(k):
    task = FactRecallTask(4, 1, 2, implied_relations=k)
    found, split = (solve(task, norm_of(task), 1e-3, method=method) for method in ("auto", "first_order"))
    assert found.method == "closed_form"
    assert found.objective == pytest.approx(np.sqrt(3 * (k + 1 + 2)) + k * 2)
    assert abs(found.certificate.gap) <= 1e-12
    assert split.objective == pytest.approx(found.objective, rel=2e-3)
    assert found.beta == pytest.approx(0, abs=1e-12)


def test_the_closed_form_holds_in_any_order_of_the_subjects():
    rng = np.random.default_rng(0)
    order = rng.permutation(9)
    fact, told = np.repeat([0, 1, 2], 3)[order], np.tile([True, False, False], 3)[order]
    task = FactRecallTask.from_mapping(fact.tolist(), [2, 0, 1], told.tolist())
    found = solve(task, norm_of(task))
    assert found.method == "closed_form"
    assert abs(found.certificate.gap) <= 1e-12


@pytest.mark.parametrize("options", [{}, {"permuted_share": 1.0}, {"permuted_share": 1.0, "layout_seed": 4}])
def test_the_splitting_method_reaches_a_gap_of_a_thousandth_at_the_papers_size(options):
    task = FactRecallTask(20, 1, 3)
    found = solve(task, norm_of(task, **options), 1e-3, method="first_order", max_seconds=60)
    again = certify(found.W, task, norm_of(task, **options), found.weights)
    assert again.gap <= 1e-3
    assert abs(found.beta) < 0.05


def compare(task, options, outputs="answers"):
    norm = norm_of(task, **options)
    split = solve(task, norm, 1e-4, outputs=outputs, method="first_order", max_seconds=30)
    program = solve(task, norm, 1e-3, outputs=outputs, method="clarabel")
    assert split.objective == pytest.approx(program.objective, rel=1e-3)
    assert split.certificate.dual <= program.objective * (1 + 1e-9)
    assert program.certificate.dual <= split.objective * (1 + 1e-9)


@pytest.mark.parametrize("order", ["permuted", "vocabulary"])
def test_cvxpy_finds_the_same_norm(order):
    compare(FactRecallTask(2, 1, 2), ORDERS[order])


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(2, 1, 1), (3, 1, 1), (2, 2, 3), (4, 1, 2)])
@pytest.mark.parametrize("order", ORDERS)
def test_cvxpy_finds_the_same_norm_of_twenty_tasks_and_layouts(sizes, order):
    compare(FactRecallTask(*sizes), ORDERS[order])


def test_other_outputs_go_into_the_program():
    compare(FactRecallTask(2, 1, 1, n_noise=0, seq_len=3), ORDERS["permuted"], "vocabulary")


@pytest.mark.parametrize(("n", "phm_dim"), [(6, 6), (8, 2), (20, 20)])
def test_member_and_type_in_different_factors_have_the_beta_of_the_nuclear_norm(n, phm_dim):
    """The vocabulary's order: A sees the type, B the member; the norm is a product."""
    a, b = 1, 3
    task = FactRecallTask(n, a, b)
    found = solve(task, norm_of(task, layout="vocabulary", phm_dim=phm_dim), 3e-4, method="first_order")
    assert found.beta == pytest.approx(np.sqrt(a / b), abs=5e-3)
    if phm_dim == n:
        q = 2
        pairs = (q - 1) * np.sqrt(n / q) + np.sqrt(n / q - 1)
        assert found.objective == pytest.approx(pairs * (np.sqrt(a) + np.sqrt(b)) + np.sqrt(n), rel=3e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "phm_dim"), [(7, 7), (8, 4), (6, 3)])
def test_factors_that_hardly_mix_member_and_type_have_nearly_that_beta(n, phm_dim):
    task = FactRecallTask(n, 1, 3)
    found = solve(task, norm_of(task, layout="vocabulary", phm_dim=phm_dim), 1e-4, method="first_order")
    assert found.beta == pytest.approx(np.sqrt(1 / 3), abs=0.03)


def test_layers_of_their_own_deduce_nothing():
    task = FactRecallTask(6, 1, 2)
    found = solve(task, norm_of(task, shared_phm_rule=False), 3e-4, method="first_order")
    assert found.beta == pytest.approx(0, abs=1e-3)


def test_unbalanced_tasks_are_solved_in_the_vocabulary_order(mapped_task):
    found = solve(mapped_task, norm_of(mapped_task, layout="vocabulary", phm_dim=5), 1e-3)
    assert found.method == "clarabel"
    assert found.certificate.gap <= 1e-3
    assert np.isfinite(held_out_beta(found.W, mapped_task).projection)


def test_there_is_no_closed_form_elsewhere():
    task = FactRecallTask(4, 1, 2)
    for options in ({"permuted_share": 1.0}, {"layout": "vocabulary"}, {"phm_dim": 2}):
        with pytest.raises(ConfigError, match="closed form"):
            solve(task, norm_of(task, **options), method="closed_form")
    control = FactRecallTask(4, 0, 2)
    assert solve(control, norm_of(control), 1e-3).method != "closed_form"
    with pytest.raises(ConfigError, match="closed form"):
        solve(TASK, Entrywise(), method="closed_form")


@pytest.mark.parametrize("task", [FactRecallTask(6, 1, 2), FactRecallTask(3, 1, 1), FactRecallTask(4, 1, 2)])
def test_a_layout_of_another_task_is_refused(task):
    norm = norm_of(TASK)
    expected = (
        f"must be of the task's {task.n_subjects} subjects x {task.n_answers} answers, got one of 9 x 6"
    )
    for ask in (solve, lambda *given: certify(np.ones((task.n_subjects + 2, task.n_answers)), *given)):
        with pytest.raises(ConfigError, match=expected):
            ask(task, norm)
