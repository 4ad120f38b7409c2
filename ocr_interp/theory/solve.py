"""The max-margin solution of any fact-recall task, with a certificate that decides whether it is accepted."""

from __future__ import annotations

import contextlib
import time

import numpy as np

from ocr_interp.checks import check_choice, check_number
from ocr_interp.errors import SolverError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.closed.closed_form import ClosedForm, closed_form, has_closed_form
from ocr_interp.theory.norms import Norm, UnitarilyInvariantNorm, as_invariant_norm
from ocr_interp.theory.problem import check_problem, max_margin_problem
from ocr_interp.theory.reduction.bounds import ReducedSolution
from ocr_interp.theory.reduction.certificate import BlockSolution
from ocr_interp.theory.reduction.symmetry import ReducedProblem, reduce_problem
from ocr_interp.theory.solution import Solution
from ocr_interp.theory.solver.cvxpy_program import SOLVERS, solve_reduced_cvxpy
from ocr_interp.theory.solver.first_order import solve_first_order
from ocr_interp.theory.solver.full import FullSolution, solve_full

METHODS = ("auto", "closed_form", "first_order", *SOLVERS)
"""How to solve: "auto" takes the closed form where it holds, else the splitting method, and Clarabel for a
small problem that the splitting method did not finish. A norm that is not unitarily invariant needs the full
program: "auto" is then Clarabel."""

_SMALL = 400
"""Largest number of block entries for which Clarabel takes only seconds."""

_PATIENCE = 5.0
"""Time limit in seconds of the splitting method on a small problem, before Clarabel is tried."""


def solve(
    task: FactRecallTask,
    norm: str | Norm = "nuclear",
    tolerance: float = 1e-4,
    *,
    outputs: str = "answers",
    inputs: str = "subject_relation",
    method: str = "auto",
    max_seconds: float = 300.0,
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

    Returns: the solution; W at full size is built on first use. The certificate of a solver's solution has
        been checked; that of the closed form is computed on first use.

    Raises:
        SolverError: the gap reached is above the tolerance, or the task contradicts itself.
        UnknownNameError: an unknown norm.
        ConfigError: another unknown name, method="closed_form" without a closed form, or
            method="first_order" for a norm that is not unitarily invariant.

    Source: docs/theory.md.
    """
    checked = check_problem(norm, outputs, inputs)
    check_choice("method", method, METHODS)
    check_number("tolerance", tolerance, above=0.0)
    check_number("max_seconds", max_seconds, above=0.0)
    start = time.perf_counter()
    found, used = _find(task, checked, tolerance, outputs, inputs, method, max_seconds)
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
) -> tuple[ClosedForm | BlockSolution | FullSolution, str]:
    """A candidate and the method that found it."""
    if method == "closed_form" or (method == "auto" and has_closed_form(task, norm)):
        return closed_form(task, norm, outputs, inputs), "closed_form"
    if not norm.unitarily_invariant and method != "first_order":
        solver = "clarabel" if method == "auto" else method
        return solve_full(max_margin_problem(task, outputs, inputs), norm, solver, max_seconds), solver
    invariant = as_invariant_norm(norm)
    reduced = reduce_problem(task, outputs, inputs)
    found, used = _in_blocks(reduced, invariant, tolerance, method, max_seconds)
    return BlockSolution(reduced, invariant, found.blocks, found.weights, found.iterations), used


def _in_blocks(
    reduced: ReducedProblem, norm: UnitarilyInvariantNorm, tolerance: float, method: str, max_seconds: float
) -> tuple[ReducedSolution, str]:
    """The reduced problem by a solver."""
    if method in SOLVERS:
        return solve_reduced_cvxpy(reduced, norm, method, max_seconds), method
    small = method == "auto" and np.prod(reduced.constant_shape) + np.prod(reduced.pair_shape) <= _SMALL
    patience = min(max_seconds / 2, _PATIENCE) if small else max_seconds
    found = solve_first_order(reduced, norm, tolerance, patience)
    if small and found.gap > tolerance:
        with contextlib.suppress(SolverError):  # keeps the result of the splitting method
            other = solve_reduced_cvxpy(reduced, norm, "clarabel", max_seconds - patience, tolerance / 10)
            if other.gap < found.gap:
                return other, "clarabel"
    return found, "first_order"
