"""The max-margin problem as a CVXPY program: small problems, and a check of everything else.

cvxpy takes a second to import, so it is imported inside the functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from ocr_interp.checks import check_choice
from ocr_interp.errors import SolverError
from ocr_interp.theory.norms import Norm, UnitarilyInvariantNorm, as_invariant_norm, as_norm
from ocr_interp.theory.problem import MaxMarginProblem
from ocr_interp.theory.reduction.bounds import ReducedSolution, reduced_dual_bound, smallest_margin
from ocr_interp.theory.reduction.margins import ExampleMap, blocks_norm, example_map
from ocr_interp.theory.reduction.symmetry import Blocks, ReducedProblem

SOLVERS = ("clarabel", "scs")


def solve_cvxpy(
    problem: MaxMarginProblem,
    norm: str | Norm,
    solver: str = "clarabel",
    time_limit: float = 120.0,
    accuracy: float = 1e-7,
    required: Float[np.ndarray, "example output"] | float = 1.0,
) -> tuple[Float[np.ndarray, "input output"], Float[np.ndarray, "example output"]]:
    """W and dual weights of the full program, as the solver returns them; certify them.

    Args:
        problem: the constraints.
        norm: any.
        solver: "clarabel" or "scs".
        time_limit: time limit of the solver in seconds.
        accuracy: the solver's own stopping tolerance, relative and absolute.
        required: the margins that are asked for, in logits; not used at the correct outputs.

    Raises:
        SolverError: the solver returned no point (infeasible, out of time or memory).
    """
    import cvxpy as cp

    W = cp.Variable(problem.shape)
    logits = problem.x @ W
    is_correct = np.zeros((len(problem.correct), problem.shape[1]))
    is_correct[np.arange(len(problem.correct)), problem.correct] = 1
    correct = cp.sum(cp.multiply(is_correct, logits), axis=1, keepdims=True)
    spread = correct @ np.ones((1, problem.shape[1]))
    margins = spread - logits >= np.where(is_correct, 0.0, required)
    program = cp.Problem(cp.Minimize(as_norm(norm).atom(W)), [margins])
    _solve(program, solver, time_limit, accuracy)
    weights = np.maximum(np.asarray(margins.dual_value), 0.0) * (1 - is_correct)
    return np.asarray(W.value), weights


def solve_reduced_cvxpy(
    reduced: ReducedProblem,
    norm: str | Norm,
    solver: str = "clarabel",
    time_limit: float = 120.0,
    accuracy: float = 1e-7,
) -> ReducedSolution:
    """The reduced program; arguments and errors as in `solve_cvxpy`.

    Raises:
        ConfigError: a norm that is not unitarily invariant.
    """
    import cvxpy as cp

    invariant = as_invariant_norm(norm)
    examples = example_map(reduced)
    constant = cp.Variable(reduced.constant_shape)
    types = [k for k in range(reduced.pair_shape[0]) if reduced.pair_multiplicity[k] > 0]
    pair = {k: cp.Variable(reduced.pair_shape[1:]) for k in types}
    matrix, wrong = _margin_matrix(examples, types)
    unknowns = cp.hstack([cp.vec(v, order="C") for v in (constant, *pair.values())])
    margins = matrix @ unknowns >= 1
    atoms = [invariant.atom(block) for block in (constant, *pair.values())]
    objective = invariant.combine(atoms, [1.0, *(reduced.pair_multiplicity[k] for k in types)])
    _solve(cp.Problem(cp.Minimize(objective), [margins]), solver, time_limit, accuracy)
    blocks = Blocks(np.asarray(constant.value), np.zeros(reduced.pair_shape))
    for k in types:
        blocks.pair[k] = pair[k].value
    weights = np.zeros(examples.multiplicity.shape)
    # A constraint stands for scale² · multiplicity equal ones, whose weights add up in its multiplier.
    count = examples.scale[wrong[0]] ** 2 * examples.multiplicity[wrong]
    weights[wrong] = np.maximum(np.asarray(margins.dual_value), 0.0) / count
    return _as_solution(examples, blocks, weights, invariant)


def _as_solution(
    examples: ExampleMap,
    blocks: Blocks,
    weights: Float[np.ndarray, "example value"],
    norm: UnitarilyInvariantNorm,
) -> ReducedSolution:
    margin = smallest_margin(examples, blocks)
    primal = blocks_norm(examples.reduced, blocks, norm) / margin if margin > 0 else np.inf
    scaled = blocks * (1 / margin) if margin > 0 else blocks
    return ReducedSolution(scaled, weights, primal, reduced_dual_bound(examples, weights, norm), 0)


def _margin_matrix(
    examples: ExampleMap, types: list[int]
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Margins as a matrix [constraint, unknown], by applying the map to every unit block."""
    reduced = examples.reduced
    wrong_example, wrong_value = np.nonzero(examples.multiplicity > 0)
    wrong = (wrong_example, wrong_value)
    columns = []
    empty = Blocks(np.zeros(reduced.constant_shape), np.zeros(reduced.pair_shape))
    entries = [("constant", index) for index in np.ndindex(reduced.constant_shape)]
    entries += [("pair", (k, *index)) for k in types for index in np.ndindex(reduced.pair_shape[1:])]
    for name, index in entries:
        target = getattr(empty, name)
        target[index] = 1.0
        values = examples.values(examples.logits(empty))
        correct = values[np.arange(len(values)), examples.correct][:, None]
        columns.append((correct - values)[wrong])
        target[index] = 0.0
    return np.stack(columns, axis=1), wrong


def _solve(program: Any, solver: str, time_limit: float, accuracy: float) -> None:
    """Runs the solver; its status word decides only whether there is a point to certify."""
    import warnings

    import cvxpy as cp

    check_choice("solver", solver, SOLVERS)
    options: dict[str, Any] = {"time_limit": time_limit, "tol_gap_rel": accuracy, "tol_gap_abs": accuracy}
    if solver == "scs":
        options = {
            "time_limit_secs": time_limit,
            "eps_abs": accuracy,
            "eps_rel": accuracy,
            "max_iters": 100_000,
        }
    try:
        with warnings.catch_warnings():
            # "Solution may be inaccurate" is what the certificate is for.
            warnings.filterwarnings("ignore", message="Solution may be inaccurate")
            program.solve(solver=solver.upper(), **options)
    except cp.SolverError as error:
        raise SolverError(
            f"{solver} found no point within {time_limit:g} s ({error}): try first_order"
        ) from None
    if any(variable.value is None for variable in program.variables()):
        raise SolverError(
            f"{solver} found no point within {time_limit:g} s (status {program.status}): try first_order"
        )
