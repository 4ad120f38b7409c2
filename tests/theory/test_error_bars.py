"""Error bars: proved ones hold every other solution, estimated ones are marked, and D's case is right."""

import numpy as np
import pytest

from ocr_interp.task import FactRecallTask
from ocr_interp.theory import solve
from ocr_interp.theory.norms import as_invariant_norm
from ocr_interp.theory.problem import max_margin_problem
from ocr_interp.theory.reduction.certificate import BlockSolution
from ocr_interp.theory.reduction.symmetry import reduce_problem
from ocr_interp.theory.solver.cvxpy_program import solve_cvxpy
from ocr_interp.theory.solver.first_order import solve_first_order
from ocr_interp.theory.solver.ranges import proved_ranges

NUCLEAR = as_invariant_norm("nuclear")


def groups(sizes, implications):
    """A task of (told, untold) subjects per fact."""
    facts = [f for f, (told, untold) in enumerate(sizes) for _ in range(told + untold)]
    trained = [k < told for told, untold in sizes for k in range(told + untold)]
    return FactRecallTask.from_mapping(facts, implications, trained)


def held_out(task, norm, found):
    reduced = reduce_problem(task)
    return BlockSolution(reduced, norm, found.blocks, found.weights).certificate.held_out_margins


SIX = groups([(9, 34), (17, 71), (1, 8), (40, 155), (3, 20), (31, 124)], list(range(6)))
"""513 subjects of six facts, about a fifth of them told: where six digits were printed and one was right."""


def test_margins_of_unequal_groups_are_right_to_a_hundredth():
    solution = solve(SIX)
    assert solution.accuracy.proved
    assert solution.margin_error < 0.01
    assert solution.certificate.gap < 1e-8
    assert "(proved)" in solution.summary()
    reduced = reduce_problem(SIX)
    rough = solve_first_order(reduced, "nuclear", 1e-4)
    exact = solve_first_order(reduced, "nuclear", 1e-10, 60.0)
    margins = held_out(SIX, NUCLEAR, exact)
    np.testing.assert_allclose(solution.certificate.held_out_margins, margins, atol=solution.margin_error)
    values = np.linalg.svd(solution.W, compute_uv=False)
    dropped = values[solution.rank :]
    assert dropped.max(initial=0.0) < 1e-4 * values[0], "nothing that could be above 0 is dropped"
    kept = np.array([b.value for b in solution.spectrum for _ in range(b.multiplicity)])
    assert kept.min() > solution.accuracy.value, "nothing that could be 0 is counted"
    bars = proved_ranges(reduced, rough, NUCLEAR)
    assert np.abs(held_out(SIX, NUCLEAR, rough) - margins).max() < bars.margin, "bars of a rough solution hold"


def test_bars_hold_every_solution_that_cvxpy_finds_at_full_size():
    task = groups([(1, 3), (2, 2), (3, 1)], [0, 1, 1])
    solution, problem = solve(task), max_margin_problem(task)
    W, _ = solve_cvxpy(problem, "nuclear", accuracy=1e-9)
    W = W / problem.constraint_margins(W).min()
    off = np.abs(problem.held_out_margins(W) - solution.certificate.held_out_margins).max()
    assert off <= solution.margin_error + 1e-3
    values = [np.linalg.svd(M, compute_uv=False) for M in (W, solution.W)]
    np.testing.assert_allclose(*values, atol=solution.accuracy.value + 1e-3)


def test_a_task_with_several_minimisers_has_bars_that_say_so():
    """Moving along a direction that no tight constraint sees keeps the norm and changes the margins."""
    task = groups([(41, 249), (3, 9), (22, 62), (10, 61), (15, 39)], [0, 1, 2, 3, 4])
    solution = solve(task)
    assert solution.certificate.gap < 1e-9
    other = solve_first_order(reduce_problem(task), "nuclear", 1e-5, 60.0)
    apart = np.abs(held_out(task, NUCLEAR, other) - solution.certificate.held_out_margins).max()
    assert apart > 0.02
    assert solution.margin_error > apart
    assert "may have several minimisers" in solution.summary()
    assert solution.rank == 9


@pytest.mark.parametrize("norm", ["nuclear", "frobenius"])
@pytest.mark.parametrize("sizes", [(4, 1, 3), (3, 2, 1), (2, 2, 2)])
def test_bars_hold_the_closed_form(norm, sizes):
    task = FactRecallTask(*sizes)
    closed, found = solve(task, norm), solve(task, norm, method="clarabel")
    assert (closed.margin_error, closed.accuracy.value) == (0, 0)
    assert abs(found.held_out_margin - closed.beta) <= found.margin_error + 1e-9
    assert found.margin_error < 0.01
    assert found.rank == closed.rank
    values = [np.linalg.svd(solution.W, compute_uv=False) for solution in (found, closed)]
    np.testing.assert_allclose(*values, atol=found.accuracy.value + 1e-9)


def test_the_spectral_norm_determines_no_margin():
    solution = solve(FactRecallTask(4, 1, 3), "spectral", method="clarabel")
    assert solution.margin_error > 0.5


def test_without_a_margin_tolerance_the_gap_is_all():
    quick = solve(SIX, margin_tolerance=None)
    assert quick.method == "first_order"
    assert 1e-9 < quick.certificate.gap <= 1e-4
    assert not quick.accuracy.proved
    assert "estimated" in quick.summary()
    assert quick.rank <= 12


@pytest.mark.slow
def test_larger_problems_go_on_until_the_estimate_is_small():
    rng = np.random.default_rng(3)
    task = groups([(int(rng.integers(1, 9)), int(rng.integers(0, 9))) for _ in range(14)], list(range(14)))
    loose = solve(task, tolerance=1e-2, margin_tolerance=None)
    tight = solve(task, tolerance=1e-2, margin_tolerance=0.05)
    assert tight.certificate.gap < loose.certificate.gap
    assert not tight.accuracy.proved
    assert tight.margin_error <= 0.05
    exact = solve(task, tolerance=1e-7, margin_tolerance=None)
    off = np.abs(tight.certificate.held_out_margins - exact.certificate.held_out_margins).max()
    assert off <= tight.margin_error
