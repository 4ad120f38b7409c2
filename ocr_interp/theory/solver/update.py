"""The update of least norm: minimise ‖W − W_0‖ subject to training margins >= R, with its certificate.

With U = W − W_0 the constraints are ⟨A_k, U⟩ >= R − h_k, h_k the margins of W_0. Weak duality: for μ >= 0
every feasible U has Σ μ_k (R − h_k) <= ⟨Σ μ_k A_k, U⟩ <= dual_norm(Σ μ_k A_k) ‖U‖.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from ocr_interp.checks import check_choice, check_number
from ocr_interp.errors import SolverError, WeightsError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.certificate import Certificate, certify, held_out_beta
from ocr_interp.theory.norms import Norm, as_norm
from ocr_interp.theory.problem import MaxMarginProblem, as_matrix, check_problem, fitting_problem
from ocr_interp.theory.solver.cvxpy_program import SOLVERS, solve_cvxpy


@dataclass(frozen=True)
class UpdateBounds:
    """Bounds of the least norm of an update that reaches the margins.

    Attributes:
        primal: norm of an update that reaches them; inf if none is known.
        dual: no update of a smaller norm reaches them.
        gap: primal / dual − 1, relative; 0 if both are 0 (W_0 has the margins), inf without a bound.
    """

    primal: float
    dual: float

    @property
    def gap(self) -> float:
        if self.primal == 0:
            return 0.0
        return self.primal / self.dual - 1 if self.dual > 0 else np.inf


@dataclass(frozen=True)
class UpdateSolution:
    """The update of least norm that gives every training example a margin; made by `solve_update`.

    Attributes:
        problem: the constraints.
        norm: the norm of the update.
        margin: R, the margin that is asked for, in logits.
        W_0: what is updated, in the problem's rows and columns.
        update: U = W − W_0, the same shape.
        weights: dual weights [example, output] that prove it.
        bounds: of the least norm.
    """

    problem: MaxMarginProblem = field(repr=False)
    norm: Norm
    margin: float
    W_0: Float[np.ndarray, "input output"] = field(repr=False)
    update: Float[np.ndarray, "input output"] = field(repr=False)
    weights: Float[np.ndarray, "example output"] = field(repr=False)
    bounds: UpdateBounds

    @property
    def task(self) -> FactRecallTask:
        """The task."""
        return self.problem.task

    @property
    def outputs(self) -> str:
        """As in `solve`."""
        return self.problem.outputs

    @property
    def inputs(self) -> str:
        """As in `solve`."""
        return self.problem.inputs

    @property
    def W(self) -> Float[np.ndarray, "input output"]:
        """W_0 + update: smallest training margin R, or more where W_0 has more."""
        return self.W_0 + self.update

    @property
    def objective(self) -> float:
        """‖update‖; at most 1 + gap times the least."""
        return self.bounds.primal

    @property
    def beta(self) -> float:
        """Held-out coefficient of W relative to the training one (`held_out_beta`, projection)."""
        return held_out_beta(self.W, self.task).projection

    @property
    def update_beta(self) -> float:
        """The same of the update alone; NaN if it is 0."""
        return held_out_beta(self.update, self.task).projection if self.update.any() else np.nan

    @property
    def direction(self) -> Certificate:
        """How far W at margin 1 is from the least norm without a W_0; see `fading`."""
        weights = self.weights if self.weights.any() else None
        return certify(self.W, self.task, self.norm, weights, outputs=self.outputs, inputs=self.inputs)

    @property
    def fading(self) -> float:
        """Bound of (norm of W at margin 1) / (least norm of `solve`) − 1; it falls like 1 / R.

        R times the solution of `solve` reaches the margins, so ‖W‖ <= R · least + 2 ‖W_0‖. W_0 has no say in
        the direction as R grows: W / R goes to the solution without it.
        """
        least = self.direction.dual
        return 2 * self.norm.value(self.W_0) / (self.margin * least) if least > 0 else np.inf

    def summary(self) -> str:
        """Readable text: norms, bounds, held-out coefficients, and what W_0 still does."""
        bounds = self.bounds
        return "\n".join(
            [
                f"update of least {self.norm.label} at margin {self.margin:.6g}, "
                f"{self.task.n_subjects} subjects",
                f"  W_0               norm {self.norm.value(self.W_0):.8g}",
                f"  update            norm {bounds.primal:.8g}: {bounds.dual:.8g} <= least, "
                f"gap {bounds.gap:.3g}",
                f"  beta              {self.beta:.6g} of W, {self.update_beta:.6g} of the update",
                f"  W_0 fades         norm of W at margin 1 is within {self.fading:.3g} of the least without "
                "W_0, relative; this falls as 1 / margin",
            ]
        )


def solve_update(
    task: FactRecallTask,
    W_0: Float[np.ndarray, "row column"],
    norm: str | Norm = "nuclear",
    margin: float = 1.0,
    tolerance: float = 1e-4,
    *,
    outputs: str = "answers",
    inputs: str = "subject_relation",
    method: str = "clarabel",
    max_seconds: float = 300.0,
) -> UpdateSolution:
    """The smallest change of W_0 that gives every training example a margin: what LoRA makes small.

    The full program by CVXPY, so for small tasks (seconds at 200 entries, minutes at 2,000). The margin
    matters here: where `solve` only scales, W_0 counts less the larger it is (`UpdateSolution.fading`).

    Args:
        task: the task, balanced or not.
        W_0: rows and columns as in `certify`; 0 throughout gives margin times the solution of `solve`.
        norm: a name of `theory.norms`, or a Norm.
        margin: R > 0, the smallest training margin, in logits.
        tolerance: relative gap that the bounds must reach.
        outputs, inputs: the problem; see `theory.problem`.
        method: "clarabel" or "scs".
        max_seconds: time limit of the solver.

    Raises:
        SolverError: the gap is above the tolerance, no point within the time, or a task that contradicts
            itself.
        WeightsError: a W_0 of another shape, or not finite.
        UnknownNameError, ConfigError: an unknown name or a number that is not allowed.

    Source: weak duality; docs/theory.md §11, "An update of least norm".
    """
    found = check_problem(norm, outputs, inputs)
    check_choice("method", method, SOLVERS)
    check_number("margin", margin, above=0.0)
    check_number("tolerance", tolerance, above=0.0)
    check_number("max_seconds", max_seconds, above=0.0)
    problem = fitting_problem(task, found, outputs, inputs)
    before = _restricted(problem, as_matrix(W_0))
    # Units of the margin: the solver's tolerances are about 1.
    required = 1 - problem.constraint_margins(before / margin)
    if required.max() <= 0:
        nothing = np.zeros(problem.shape)
        weights = np.zeros(required.shape)
        return UpdateSolution(problem, found, margin, before, nothing, weights, UpdateBounds(0.0, 0.0))
    update, weights = solve_cvxpy(problem, found, method, max_seconds, 1e-9, required)
    if not (np.isfinite(update).all() and np.isfinite(weights).all()):
        raise SolverError(f"{method} came back without an update: try the other of clarabel and scs")
    lacking = _lacking(problem, update, required)
    if lacking > 0:
        rounding = 1e-12 * (1 + float(np.abs(required[np.isfinite(required)]).max()))
        update = update + (lacking + rounding) * _of_margin_1(problem)
    bounds = update_bounds(problem, found, required, update, weights)
    solution = UpdateSolution(
        problem,
        found,
        margin,
        before,
        update * margin,
        weights,
        UpdateBounds(bounds.primal * margin, bounds.dual * margin),
    )
    if not bounds.gap <= tolerance:
        raise SolverError(
            f"gap {bounds.gap:.3g} is above the tolerance {tolerance:.3g} ({solution.bounds.dual:.8g} <= "
            f"least <= {solution.bounds.primal:.8g}): raise tolerance or max_seconds, or try the other method"
        )
    return solution


def update_bounds(
    problem: MaxMarginProblem,
    norm: str | Norm,
    required: Float[np.ndarray, "example output"],
    update: Float[np.ndarray, "input output"],
    weights: Float[np.ndarray, "example output"],
) -> UpdateBounds:
    """What an update and dual weights prove of the least norm, whatever produced them.

    Args:
        problem: the constraints.
        norm: of the update.
        required: margin that the update must add, R − that of W_0; not used at the correct outputs.
        update: any.
        weights: dual weights >= 0, 0 at the correct outputs.

    Raises:
        WeightsError: weights that are negative, not finite, or not 0 at the correct outputs.
    """
    found = as_norm(norm)
    primal = found.value(update) if _lacking(problem, update, required) <= 0 else np.inf
    if not weights.any():
        return UpdateBounds(primal, 0.0)
    problem.check_weights(weights)
    push = found.dual_value(problem.dual_matrix(weights))
    asked = float(
        np.sum(np.where(weights > 0, weights * np.where(np.isfinite(required), required, 0.0), 0.0))
    )
    return UpdateBounds(primal, max(0.0, asked / push) if push > 0 else 0.0)


def _lacking(
    problem: MaxMarginProblem,
    update: Float[np.ndarray, "input output"],
    required: Float[np.ndarray, "example output"],
) -> float:
    """How much the update's margins lack at most; 0 if nothing."""
    margins = problem.constraint_margins(update)
    return max(0.0, float(np.where(np.isfinite(margins), required - margins, -np.inf).max()))


def _of_margin_1(problem: MaxMarginProblem) -> Float[np.ndarray, "input output"]:
    """A matrix with every margin >= 1: the subject's answers, and the relation's own kind of answer.

    Raises:
        SolverError: answers that belong to two relations, for which it has no margin.
    """
    told = problem.task.training_triples
    W, first = np.zeros(problem.shape), problem.shape[1] - problem.task.n_answers
    W[told.subject, first + told.answer] = 1
    W[problem.task.n_subjects + told.relation, first + told.answer] = 1
    if problem.constraint_margins(W).min() < 1:
        raise SolverError("an update needs answers of one relation each: solve() has no such limit")
    return W


def _restricted(
    problem: MaxMarginProblem, W_0: Float[np.ndarray, "row column"]
) -> Float[np.ndarray, "input output"]:
    """W_0 in the problem's rows and columns; 0 throughout is allowed here.

    Raises:
        WeightsError: another shape, or numbers that are not finite.
    """
    try:
        return problem.restrict(W_0, may_be_zero=True)
    except WeightsError as error:
        raise WeightsError(f"W_0: {error}") from None
