"""Error bars: proved ones hold every other solution, estimated ones are marked, and D's case is right."""

import numpy as np
import pytest

from ocr_interp.task import FactRecallTask
from ocr_interp.theory import certify, solve
from ocr_interp.theory.norms import as_invariant_norm
from ocr_interp.theory.problem import max_margin_problem
from ocr_interp.theory.reduction.bounds import ReducedSolution
from ocr_interp.theory.reduction.certificate import BlockSolution
from ocr_interp.theory.reduction.margins import example_map
from ocr_interp.theory.reduction.symmetry import lift, reduce_problem
from ocr_interp.theory.solver.cvxpy_program import solve_cvxpy
from ocr_interp.theory.solver.first_order import solve_first_order
from ocr_interp.theory.solver.ranges import _Finder, proved_ranges

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


@pytest.mark.slow
def test_margins_of_unequal_groups_are_right_to_a_hundredth():
    task = groups([(36, 144), (15, 60), (12, 49), (38, 155)], [0, 1, 2, 3])
    solution = solve(task)
    assert solution.accuracy.proved
    assert solution.is_unique
    assert solution.margin_error < 0.01
    assert solution.certificate.gap < 1e-8
    assert "(proved)" in solution.summary()
    reduced = reduce_problem(task)
    rough = solve_first_order(reduced, "nuclear", 1e-4)
    margins = held_out(task, NUCLEAR, solve_first_order(reduced, "nuclear", 1e-5, 5.0))
    np.testing.assert_allclose(solution.certificate.held_out_margins, margins, atol=1e-2)
    values = np.linalg.svd(solution.W, compute_uv=False)
    assert values[solution.rank :].max(initial=0.0) < 1e-4 * values[0], "nothing above 0 is dropped"
    assert solution.spectrum[-1].value > solution.accuracy.value, "nothing that could be 0 is counted"
    bars = proved_ranges(reduced, rough, NUCLEAR)
    off = np.abs(held_out(task, NUCLEAR, rough) - solution.certificate.held_out_margins).max()
    assert off < bars.margin, "bars of a rough solution hold"


@pytest.mark.slow
def test_margins_of_the_six_facts_are_ranges_over_all_minimisers():
    """The norm does not determine them: two matrices of one norm, both with margin 1, are shown."""
    solution, task = solve(SIX), SIX
    assert solution.certificate.gap < 1e-8
    assert solution.is_unique is False
    assert solution.margin_error < 0.01
    assert "other matrices of the same norm" in solution.summary()
    table = solution.table()
    untold = table[~table["told"]]
    by_hand = {0: (0.4024, 0.4058), 2: (0.2556, 0.2590), 4: (0.2493, 0.2566)}  # of an earlier solve
    for fact, ends in by_hand.items():
        row = untold[untold["fact"] == f"b{fact}"].iloc[0]
        assert row[["implication_margin_low", "implication_margin_high"]].tolist() == pytest.approx(
            ends, abs=1e-3
        )
    margins = held_out(task, NUCLEAR, solve_first_order(reduce_problem(task), "nuclear", 1e-5, 5.0))
    assert (untold["implication_margin_low"] - 5e-3 <= margins).all()
    assert (margins <= untold["implication_margin_high"] + 5e-3).all()


@pytest.mark.slow
def test_bars_hold_every_solution_that_cvxpy_finds_at_full_size():
    task = groups([(1, 3), (2, 2), (3, 1)], [0, 1, 1])
    solution, problem = solve(task), max_margin_problem(task)
    W, _ = solve_cvxpy(problem, "nuclear", accuracy=1e-9)
    W = W / problem.constraint_margins(W).min()
    off = np.abs(problem.held_out_margins(W) - solution.certificate.held_out_margins).max()
    assert off <= solution.margin_error + 1e-3
    values = [np.linalg.svd(M, compute_uv=False) for M in (W, solution.W)]
    np.testing.assert_allclose(*values, atol=solution.accuracy.value + 1e-3)


@pytest.mark.slow
def test_other_minimisers_are_witnessed():
    """Moved along the family's direction norm and margins of 1 stay, and held-out margins reach the ends."""
    task = groups([(3, 15), (69, 276), (4, 18), (1, 5), (23, 92)], [0, 1, 2, 3, 4])
    solution = solve(task)
    assert solution.is_unique is False
    reduced, found = solution.found.reduced, solution.found
    as_reduced = ReducedSolution(
        found.blocks, found.reduced_weights, solution.certificate.primal, solution.certificate.dual, 0
    )
    finder = _Finder(example_map(reduced), as_reduced, NUCLEAR)
    family = finder.family(found.blocks)
    assert len(family.directions) == 1
    ends = []
    for sign in (-1, 1):
        low, high = 0.0, 10.0
        for _ in range(60):  # as far as norm and margins stay
            middle = (low + high) / 2
            moved = lift(reduced, found.blocks + family.directions[0] * (sign * middle))
            proof = certify(moved, task, weights=solution.weights)
            low, high = (middle, high) if proof.gap < 1e-7 else (low, middle)
        moved = lift(reduced, found.blocks + family.directions[0] * (sign * low))
        ends.append(certify(moved, task).held_out_margins)
    table = solution.table()
    untold = table[~table["told"]]
    np.testing.assert_allclose(np.min(ends, axis=0), untold["implication_margin_low"], atol=1e-3)
    np.testing.assert_allclose(np.max(ends, axis=0), untold["implication_margin_high"], atol=1e-3)
    assert np.ptp(ends, axis=0).max() > 0.02


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


@pytest.mark.slow
def test_without_a_margin_tolerance_the_gap_is_all():
    task = groups([(1, 3), (2, 2), (3, 1)], [0, 1, 1])
    quick = solve(task, margin_tolerance=None)
    assert quick.method == "first_order"
    assert 1e-9 < quick.certificate.gap <= 1e-4
    assert not quick.accuracy.proved
    assert ("estimated" in quick.summary()) != ("not known" in quick.summary())
    assert solve(task).certificate.gap < 1e-8


@pytest.mark.slow
def test_larger_problems_go_on_until_the_estimate_is_small():
    reduced = reduce_problem(SIX)
    loose = solve_first_order(reduced, "nuclear", 1e-2)
    tight = solve_first_order(reduced, "nuclear", 1e-2, margin_tolerance=0.05, polish_seconds=60.0)
    assert tight.gap < loose.gap <= 1e-2
    assert not tight.accuracy.proved
    assert tight.accuracy.margin <= 0.05
    exact = solve(SIX).certificate.held_out_margins
    assert np.abs(held_out(SIX, NUCLEAR, tight) - exact).max() <= tight.accuracy.margin
