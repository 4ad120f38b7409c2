"""The max-margin solution of any fact-recall task, with a certificate that decides whether it is accepted."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace

import numpy as np

from ocr_interp.checks import check_choice, check_number, check_type
from ocr_interp.errors import SolverError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.closed.closed_form import ClosedForm, closed_form, has_closed_form
from ocr_interp.theory.norms import Norm, UnitarilyInvariantNorm, as_invariant_norm
from ocr_interp.theory.problem import MaxMarginProblem, check_problem, fitting_problem
from ocr_interp.theory.reduction.bounds import ReducedSolution
from ocr_interp.theory.reduction.certificate import BlockSolution
from ocr_interp.theory.reduction.symmetry import ReducedProblem, reduce_problem
from ocr_interp.theory.solution import Solution
from ocr_interp.theory.solver.cvxpy_program import SOLVERS, solve_reduced_cvxpy
from ocr_interp.theory.solver.first_order import solve_first_order
from ocr_interp.theory.solver.full import FullSolution, solve_full
from ocr_interp.theory.solver.full_first_order import has_own_prox, solve_full_first_order
from ocr_interp.theory.solver.ranges import proved_ranges

METHODS = ("auto", "closed_form", "first_order", *SOLVERS)
"""How to solve: "auto" takes the closed form where it holds, else the splitting method, and Clarabel for a
small problem that the splitting method did not finish. A norm that is not unitarily invariant needs the full
program: "auto" is then its closed form if it has one, Clarabel for a small problem or a norm without a prox
of its own, and else the splitting method at full size."""

_SMALL = 400
"""Largest number of block entries for which Clarabel takes only seconds."""

_PATIENCE = 5.0
"""Time limit in seconds of the splitting method on a small problem, before Clarabel is tried."""


_EXACT = 1e-12
"""Accuracy asked of Clarabel in a small problem: margins are right to about the root of what it reaches."""


def solve(
    task: FactRecallTask,
    norm: str | Norm = "nuclear",
    tolerance: float = 1e-4,
    *,
    outputs: str = "answers",
    inputs: str = "subject_relation",
    method: str = "auto",
    max_seconds: float = 300.0,
    margin_tolerance: float | None = 0.01,
) -> Solution:
    """The max-margin solution of any task: in closed form where that holds, else by a solver.

    Args:
        task: the task, balanced or not.
        norm: "nuclear" (OV-SVM), "frobenius" (W-SVM), "spectral", another name of `theory.norms`, or a
            Norm.
        tolerance: relative gap primal / dual − 1 that the certificate must reach.
        outputs: "answers" or "vocabulary": the wrong outputs of the constraints.
        inputs: "subject_relation", "eos" or "noise_eos": what an example holds.
        method: one of METHODS.
        max_seconds: time limit of the search.
        margin_tolerance: goes on, once the gap is reached, until held-out margins are right to this, in
            logits at training margin 1: a small problem is solved to a gap of about 1e-11 and its error bars
            are proved; a larger one goes on for as long again as the gap has taken, until the estimated error
            is small enough. What was reached is `Solution.margin_error`; no error is raised: the margins of a
            task with several minimisers are not determined. None: stops at the gap.

    Returns: the solution; W at full size is built on first use. The certificate of a solver's solution has
        been checked; that of the closed form is computed on first use.

    Raises:
        SolverError: the gap reached is above the tolerance, or the task contradicts itself.
        UnknownNameError: an unknown norm.
        ConfigError: another unknown name, method="closed_form" without a closed form, or
            method="first_order" for a norm that is not unitarily invariant and has no prox of its own.

    Source: docs/theory.md.
    """
    check_type("task", task, FactRecallTask, "solve(task, norm)")
    checked = check_problem(norm, outputs, inputs)
    check_choice("method", method, METHODS)
    check_number("tolerance", tolerance, above=0.0)
    check_number("max_seconds", max_seconds, above=0.0)
    if margin_tolerance is not None:
        check_number("margin_tolerance", margin_tolerance, above=0.0)
    start = time.perf_counter()
    found, used = _find(task, checked, tolerance, outputs, inputs, method, max_seconds, margin_tolerance)
    closed = isinstance(found, ClosedForm)
    solution = Solution(
        task=task,
        norm=checked.name,
        outputs=outputs,
        inputs=inputs,
        objective=found.objective if closed else found.certificate.norm_value,
        method=used,
        seconds=time.perf_counter() - start,
        iterations=0 if closed else found.iterations,
        tolerance=tolerance,
        found=found,
    )
    if not closed:
        _ = solution.certificate  # raises above the tolerance
    return solution


def _find(
    task: FactRecallTask,
    norm: Norm,
    tolerance: float,
    outputs: str,
    inputs: str,
    method: str,
    max_seconds: float,
    margin_tolerance: float | None,
) -> tuple[ClosedForm | BlockSolution | FullSolution, str]:
    """A candidate and the method that found it."""
    if norm.unitarily_invariant and (
        method == "closed_form" or (method == "auto" and has_closed_form(task, norm))
    ):
        return closed_form(task, norm, outputs, inputs), "closed_form"
    if not norm.unitarily_invariant:
        problem = fitting_problem(task, norm, outputs, inputs)
        return _at_full_size(problem, norm, tolerance, method, max_seconds)
    invariant = as_invariant_norm(norm)
    reduced = reduce_problem(task, outputs, inputs)
    found, used = _in_blocks(reduced, invariant, tolerance, method, max_seconds, margin_tolerance)
    return BlockSolution(
        reduced, invariant, found.blocks, found.weights, found.iterations, found.accuracy
    ), used


def _at_full_size(
    problem: MaxMarginProblem, norm: Norm, tolerance: float, method: str, max_seconds: float
) -> tuple[ClosedForm | FullSolution, str]:
    """The full program, and the method that found the solution."""
    task = problem.task
    exact = norm.closed_solution(task, *problem.shape) if method in ("auto", "closed_form") else None
    if exact is not None:
        return FullSolution(problem, norm, *exact), "closed_form"
    if method == "closed_form":
        return closed_form(task, norm, problem.outputs, problem.inputs), method  # raises: there is none
    small = problem.shape[0] * problem.shape[1] <= _SMALL
    if has_own_prox(norm) and (method == "first_order" or (method == "auto" and not small)):
        found = solve_full_first_order(problem, norm, tolerance, max_seconds)
        return FullSolution(problem, norm, *found), "first_order"
    if method == "first_order":
        as_invariant_norm(norm)  # raises: the norm has no prox of its own
    solver = "clarabel" if method == "auto" else method
    return solve_full(problem, norm, solver, max_seconds), solver


def _in_blocks(
    reduced: ReducedProblem,
    norm: UnitarilyInvariantNorm,
    tolerance: float,
    method: str,
    max_seconds: float,
    margin_tolerance: float | None,
) -> tuple[ReducedSolution, str]:
    """The reduced problem by a solver, and the method that found the solution.

    A small problem whose margins matter goes on from the splitting method to Clarabel, whose gap of 1e-11
    lets error bars be proved. Otherwise they are estimated.
    """
    small = np.prod(reduced.constant_shape) + np.prod(reduced.pair_shape) <= _SMALL
    if method in SOLVERS:
        accuracy = _EXACT if small and method == "clarabel" else 1e-7
        found = solve_reduced_cvxpy(reduced, norm, method, max_seconds, min(accuracy, tolerance / 10))
        return _with_ranges(reduced, found, norm) if small else found, method
    if not (small and method == "auto"):
        found = solve_first_order(reduced, norm, tolerance, max_seconds, margin_tolerance=margin_tolerance)
        return found, "first_order"
    patience = min(max_seconds / 2, _PATIENCE)
    found = solve_first_order(reduced, norm, tolerance, patience)
    if found.gap > tolerance or margin_tolerance is not None:
        with contextlib.suppress(SolverError):  # keeps the result of the splitting method
            accuracy = min(tolerance / 10, _EXACT)
            other = solve_reduced_cvxpy(reduced, norm, "clarabel", max_seconds - patience, accuracy)
            if other.gap < found.gap:
                return _with_ranges(reduced, other, norm), "clarabel"
    return found, "first_order"


def _with_ranges(
    reduced: ReducedProblem, found: ReducedSolution, norm: UnitarilyInvariantNorm
) -> ReducedSolution:
    """A small problem's solution with proved error bars, if it has bounds."""
    return replace(found, accuracy=proved_ranges(reduced, found, norm)) if found.gap < np.inf else found
