"""Solvers for any task: oracles, agreement between methods, symmetries, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest

from ocr_interp.errors import ConfigError, SolverError
from ocr_interp.task import FactRecallTask, Triples
from ocr_interp.theory import solve
from ocr_interp.theory.certificate import certify
from ocr_interp.theory.problem import INPUTS, OUTPUTS, check_consistent, max_margin_problem
from ocr_interp.theory.reduction.symmetry import reduce_problem
from ocr_interp.theory.solver.cvxpy_program import solve_cvxpy
from ocr_interp.theory.solver.first_order import solve_first_order

ORACLES = json.loads((Path(__file__).parents[1] / "oracles" / "max_margin.json").read_text())
NORMS = ("nuclear", "frobenius", "spectral")


def of_oracle(oracle):
    return FactRecallTask.from_mapping(
        oracle["fact_of_subject"], oracle["implication_of_fact"], oracle["trained"]
    )


def random_task(rng, n_facts, n_implications, largest=3, n_noise=2, seq_len=5):
    """Several facts to an implication, unequal groups, pairs that are never implied."""
    extra = rng.integers(0, n_implications, n_facts - n_implications)
    implication = rng.permutation(np.concatenate([np.arange(n_implications), extra]))
    facts, trained = [], []
    for fact in range(n_facts):
        train, held_out = rng.integers(0, largest + 1, 2)
        held_out += train + held_out == 0
        facts += [fact] * (train + held_out)
        trained += [True] * train + [False] * held_out
    order = rng.permutation(len(facts))
    return FactRecallTask.from_mapping(
        [facts[i] for i in order], implication.tolist(), [trained[i] for i in order], n_noise, seq_len
    )


def certify_again(solution):
    """The certificate of the lifted arrays, by the code that knows of no symmetry."""
    return certify(
        solution.W,
        solution.task,
        solution.norm,
        solution.weights,
        outputs=solution.outputs,
        inputs=solution.inputs,
    )


@pytest.mark.slow
@pytest.mark.parametrize("oracle", ORACLES["general"], ids=lambda o: o["name"])
@pytest.mark.parametrize("method", ["auto", "clarabel"])
def test_agrees_with_the_oracle(oracle, method):
    task = of_oracle(oracle)
    nuclear = solve(task, tolerance=1e-6, method=method)
    frobenius = solve(task, "frobenius", tolerance=1e-6, method=method)
    assert nuclear.objective == pytest.approx(oracle["nuclear_norm"], rel=1e-5)
    assert frobenius.squared_norm == pytest.approx(oracle["frobenius_norm_squared"], rel=1e-5)
    for solution, name in ((nuclear, "nuclear"), (frobenius, "frobenius")):
        expected = oracle[f"held_out_margins_{name}"]
        np.testing.assert_allclose(solution.certificate.held_out_margins, expected, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_full_size_arrays_prove_the_reduced_certificate(norm, outputs, inputs):
    rng = np.random.default_rng(5)
    for n_facts, n_implications in ((4, 2), (5, 5)):
        task = random_task(rng, n_facts, n_implications, largest=1)
        solution = solve(task, norm, 1e-2, outputs=outputs, inputs=inputs)
        again, mine = certify_again(solution), solution.certificate
        assert again.gap == pytest.approx(mine.gap, abs=1e-9)
        assert again.primal == pytest.approx(solution.objective, rel=1e-9)
        np.testing.assert_allclose(again.margins, mine.margins, atol=1e-9)
        np.testing.assert_allclose(again.held_out_margins, mine.held_out_margins, atol=1e-9)
        np.testing.assert_allclose(again.held_out_margins_overall, mine.held_out_margins_overall, atol=1e-9)
        values = np.linalg.svd(solution.W, compute_uv=False)
        found = np.repeat([b.value for b in solution.spectrum], [b.multiplicity for b in solution.spectrum])
        np.testing.assert_allclose(values[: len(found)], found, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
def test_reductions_keep_the_optimum(norm):
    """Merging exchangeable clusters gives the optimum of the program without merging, and of the full one."""
    rng = np.random.default_rng(3)
    sizes = [(1, 2), (1, 2), (2, 1), (1, 2), (2, 1), (0, 1)]
    implication = [0, 0, 1, 1, 1, 2]  # clusters of (1,2)+(1,2), (2,1)+(1,2)+(2,1), (0,1); twice each
    facts, trained = [], []
    for fact, (train, held_out) in enumerate(sizes * 2):
        facts += [fact] * (train + held_out)
        trained += [True] * train + [False] * held_out
    order = rng.permutation(len(facts))
    task = FactRecallTask.from_mapping(
        [facts[i] for i in order], implication + [3 + i for i in implication], [trained[i] for i in order]
    )
    merged, plain = reduce_problem(task), reduce_problem(task, merge=False)
    assert merged.has_pairs
    assert not plain.has_pairs
    small, large = (solve_first_order(problem, norm, 1e-3) for problem in (merged, plain))
    assert small.primal >= large.dual * (1 - 1e-12)
    assert large.primal >= small.dual * (1 - 1e-12)
    assert max(small.gap, large.gap) <= 1e-3
    W, weights = solve_cvxpy(max_margin_problem(task), norm)
    full = certify(W, task, norm, weights)
    assert full.gap < 1e-4
    assert small.dual <= full.primal * (1 + 1e-12)
    assert full.dual <= small.primal * (1 + 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("sizes", [(4, 1, 3), (3, 0, 2), (5, 2, 1), (2, 1, 0)])
def test_methods_agree_on_balanced_tasks(norm, sizes):
    task = FactRecallTask(*sizes)
    exact = solve(task, norm).objective
    closed = solve(task, norm, tolerance=1e-10)
    assert closed.method == "closed_form"
    assert closed.objective == pytest.approx(exact, rel=1e-12)
    np.testing.assert_allclose(closed.W, solve(task, norm).W, atol=1e-12)
    for method in ("first_order", "clarabel"):
        solution = solve(task, norm, method=method)
        assert solution.certificate.dual <= exact * (1 + 1e-12)
        assert solution.objective >= exact * (1 - 1e-12)
        if norm != "spectral" and sizes[2]:
            margins = solution.certificate.held_out_margins
            wanted = solve(task, norm).beta if sizes[1] else 0.0  # beta is a ratio to told implications
            np.testing.assert_allclose(margins, wanted, atol=2e-2)


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_closed_form_of_the_control_holds_in_every_problem(outputs, inputs):
    task = FactRecallTask(4, 0, 2, n_noise=2, seq_len=6)
    exact = solve(task, outputs=outputs, inputs=inputs).objective
    solution = solve(task, method="clarabel", outputs=outputs, inputs=inputs)
    assert solution.certificate.dual <= exact * (1 + 1e-9)
    assert solution.objective >= exact * (1 - 1e-9)


@pytest.mark.slow
def test_unbalanced_tasks_break_what_balanced_ones_promise():
    """One pair of (1, 20) beside one of (50, 0): a training implication a pair is not enough."""
    trained = [True] + [False] * 20 + [True] * 50
    task = FactRecallTask.from_mapping([0] * 21 + [1] * 50, [0, 1], trained)
    margins = solve(task, tolerance=1e-3).certificate.held_out_margins
    np.testing.assert_allclose(margins, -0.078, atol=2e-3)
    frobenius = solve(of_oracle(ORACLES["general"][0]), "frobenius").certificate
    assert np.abs(frobenius.held_out_margins).min() > 0.1


def test_every_noise_multiset_costs_as_much_as_the_mean():
    """Constraints for each noise token filling all places: the same optimum as for the expected counts."""
    import cvxpy as cp

    task = random_task(np.random.default_rng(0), 2, 2, largest=1)
    problem = max_margin_problem(task, inputs="noise_eos")
    x = problem.x.toarray()
    noise = list(task.noise_tokens)
    W = cp.Variable(problem.shape)
    constraints = []
    for token in noise:
        vertex = x.copy()
        vertex[:, noise] = 0
        vertex[:, token] = task.seq_len - 3
        logits = vertex @ W
        for example, correct in enumerate(problem.correct):
            for wrong in set(range(problem.shape[1])) - {int(correct)}:
                constraints.append(logits[example, correct] - logits[example, wrong] >= 1)
    program = cp.Problem(cp.Minimize(cp.normNuc(W)), constraints)
    program.solve(solver="CLARABEL")
    solution = solve(task, tolerance=1e-6, inputs="noise_eos")
    assert solution.objective == pytest.approx(program.value, rel=1e-5)


def test_gap_above_the_tolerance_raises_with_the_gap():
    task = random_task(np.random.default_rng(2), 12, 8)
    with pytest.raises(SolverError, match=r"gap .* is above the tolerance 1e-09 .* <= optimum"):
        solve(task, tolerance=1e-9, method="first_order", max_seconds=0.05)


def test_refuses_bad_input():
    unbalanced = of_oracle(ORACLES["general"][0])
    with pytest.raises(ConfigError, match="balanced"):
        solve(unbalanced, method="closed_form")
    with pytest.raises(ConfigError, match="method must be one of 'auto'"):
        solve(unbalanced, method="simplex")
    with pytest.raises(ConfigError, match="tolerance"):
        solve(unbalanced, tolerance=0.0)


def test_refuses_a_subject_with_two_answers():
    twice = Triples(*(np.array(part) for part in ([0, 0], [0, 0], [0, 1], [0, 0])))
    with pytest.raises(SolverError, match="infeasible: subject 0 has two answers"):
        check_consistent(twice)


def test_summary_is_readable():
    text = solve(of_oracle(ORACLES["general"][1])).summary()
    for word in ("4 facts, 2 implications", "objective", "singular value", "certificate", "gap"):
        assert word in text
    closed = solve(FactRecallTask(3, 1, 1)).summary()
    for word in (
        "closed_form",
        "gap",
        "closed form of the balanced task",
        "beta 1, held-out margin 1 against",
    ):
        assert word in closed


@pytest.mark.slow
@pytest.mark.parametrize("n_tasks", [12, pytest.param(60, marks=pytest.mark.long)])
def test_agrees_with_cvxpy_on_small_unbalanced_tasks(n_tasks):
    """Twelve are two of every norm with both sets of outputs."""
    rng = np.random.default_rng(20)
    for index in range(n_tasks):
        n_facts = int(rng.integers(2, 5))
        task = random_task(rng, n_facts, int(rng.integers(2, n_facts + 1)), largest=2)
        norm, outputs = NORMS[index % 3], OUTPUTS[index % 2]
        solution = solve(task, norm, outputs=outputs, margin_tolerance=None)
        problem = max_margin_problem(task, outputs)
        W, weights = solve_cvxpy(problem, norm)
        full = certify(W, task, norm, weights, outputs=outputs)
        assert full.gap < 1e-4
        assert solution.certificate.dual <= full.primal * (1 + 1e-12)
        assert full.dual <= solution.objective * (1 + 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
def test_hundred_facts_and_sixty_implications_without_symmetry(norm):
    task = random_task(np.random.default_rng(0), 100, 60, largest=10)
    solution = solve(task, norm, tolerance=1e-3, max_seconds=60.0, margin_tolerance=None)
    again = certify_again(solution)
    assert again.gap == pytest.approx(solution.certificate.gap, rel=1e-6)
    assert again.gap <= 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    "trained",
    [[True, True, True], [False, False, False]],
    ids=["nothing held out", "no training implication"],
)
def test_degenerate_unbalanced_tasks(trained):
    task = FactRecallTask.from_mapping([0, 0, 1], [0, 1], trained)
    for norm in NORMS:
        solution = solve(task, norm)
        assert certify_again(solution).gap == pytest.approx(solution.certificate.gap, abs=1e-9)
        held_out = solution.certificate.held_out_margins
        assert len(held_out) == trained.count(False)
        assert np.isfinite(held_out).all()
