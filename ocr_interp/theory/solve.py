"""The max-margin solution of any fact-recall task, with a certificate that decides whether it counts."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from ocr_interp.checks import check_choice, check_number
from ocr_interp.errors import ConfigError, SolverError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.certificate import Certificate
from ocr_interp.theory.closed.closed_form import PredictedSolution, SpectrumBlock, predicted_solution
from ocr_interp.theory.closed.dual import balanced_reduced_weights
from ocr_interp.theory.problem import check_problem
from ocr_interp.theory.reduction.certificate import certify_reduced, lift_weights
from ocr_interp.theory.reduction.symmetry import Blocks, ReducedProblem, lift, reduce_problem
from ocr_interp.theory.solver.cvxpy_program import solve_reduced_cvxpy
from ocr_interp.theory.solver.first_order import ReducedSolution, solve_first_order

METHODS = ("auto", "closed_form", "first_order", "clarabel", "scs")
"""How to solve: "auto" takes the closed form where it holds, else the splitting method, and Clarabel for a
small problem that the splitting method did not finish."""

_SMALL = 400
"""Entries of the blocks up to which Clarabel takes seconds."""

_PATIENCE = 5.0
"""Seconds that the splitting method gets at a small problem before Clarabel does."""


@dataclass(frozen=True)
class MaxMarginSolution:
    """A max-margin solution with its certificate; made by `solve_max_margin`.

    Attributes:
        task, norm, outputs, inputs: the problem.
        objective: norm of W, whose smallest training margin is 1 (Frobenius: ‖W‖_F, not its square). The
            certificate's primal bound: at most 1 + gap times the optimum.
        certificate: bounds and margins, computed from the solution afresh.
        method: what found it: one of METHODS but "auto".
        seconds: wall-clock time it took.
        iterations: steps of the splitting method; 0 for the others.
        reduced: the problem with its symmetries used.
        blocks: W as the reduced problem's blocks.
        reduced_weights: dual weights [example group, distinct value].
    """

    task: FactRecallTask
    norm: str
    outputs: str
    inputs: str
    objective: float
    certificate: Certificate
    method: str
    seconds: float
    iterations: int
    reduced: ReducedProblem
    blocks: Blocks
    reduced_weights: Float[np.ndarray, "example value"]

    @cached_property
    def W(self) -> Float[np.ndarray, "input output"]:
        """The solution at full size, in the task's order; built when first asked for."""
        return lift(self.reduced, self.blocks)

    @cached_property
    def weights(self) -> Float[np.ndarray, "example output"]:
        """Dual weights of the full problem, for `certify(..., weights=)`; built when first asked for."""
        return lift_weights(self.reduced, self.reduced_weights)

    @property
    def squared_norm(self) -> float:
        """objective², the form in which the Frobenius problem is often stated."""
        return self.objective**2

    @cached_property
    def spectrum(self) -> tuple[SpectrumBlock, ...]:
        """Singular values by block, largest first; those below 1e-6 of the largest are left out.

        A pair block's values occur clusters − 1 times; the constant block's once each.
        """
        blocks = [
            SpectrumBlock(float(value), 1, "constant")
            for value in np.linalg.svd(self.blocks.constant, compute_uv=False)
        ]
        for k in range(self.reduced.pair_shape[0]):
            count = int(self.reduced.pair_multiplicity[k])
            values = np.linalg.svd(self.blocks.pair[k], compute_uv=False) if count else []
            blocks += [SpectrumBlock(float(value), count, "pair") for value in values]
        blocks.sort(key=lambda block: -block.value)
        return tuple(block for block in blocks if block.value > 1e-6 * blocks[0].value)

    @property
    def rank(self) -> int:
        """Singular values above 1e-6 of the largest."""
        return sum(block.multiplicity for block in self.spectrum)

    def summary(self) -> str:
        """Readable text: objective, spectrum by block, margins, certificate."""
        task, shown = self.task, self.spectrum[:12]
        lines = [
            f"{self.norm} max-margin solution: {task.n_facts} facts, {task.n_implications} implications, "
            f"{task.n_subjects} subjects ({int(task.subject_trained.sum())} in training)",
            f"  problem           outputs {self.outputs}, inputs {self.inputs}",
            f"  objective         {self.objective:.8g}"
            + (f"   squared {self.squared_norm:.8g}" if self.norm == "frobenius" else ""),
            f"  method            {self.method}, {self.seconds:.2f} s"
            + (f", {self.iterations} iterations" if self.iterations else ""),
            f"  rank              {self.rank}",
        ]
        lines += [f"  singular value    {b.value:.6g} x {b.multiplicity} ({b.kind})" for b in shown]
        if len(self.spectrum) > len(shown):
            lines.append(f"  singular value    ... {len(self.spectrum) - len(shown)} more blocks")
        return "\n".join([*lines, f"  certificate       {self.certificate.summary()}"])


def format_solution(solution: MaxMarginSolution | PredictedSolution) -> str:
    """Readable text of either kind of solution: objective, spectrum by block, margins, certificate."""
    return solution.summary()


def solve_max_margin(
    task: FactRecallTask,
    norm: str = "nuclear",
    tolerance: float = 1e-4,
    *,
    outputs: str = "answers",
    inputs: str = "subject_relation",
    method: str = "auto",
    max_seconds: float = 300.0,
) -> MaxMarginSolution:
    """The max-margin solution of any task, balanced or not, certified to a relative gap.

    Args:
        task: which facts and implications are told.
        norm: "nuclear" (OV-SVM), "frobenius" (W-SVM) or "spectral".
        tolerance: relative gap primal / dual − 1 that the certificate must reach.
        outputs: "answers" or "vocabulary": the wrong outputs of the constraints.
        inputs: "subject_relation", "eos" or "noise_eos": what an example holds.
        method: one of METHODS.
        max_seconds: what the search may take before it gives up.

    Returns: the solution; W at full size is built only when asked for.

    Raises:
        SolverError: the gap reached is above the tolerance, or the task contradicts itself.
        ConfigError: an unknown name, or method="closed_form" for an unbalanced task.

    Source: docs/theory.md.
    """
    check_problem(norm, outputs, inputs)
    check_choice("method", method, METHODS)
    check_number("tolerance", tolerance, above=0.0)
    check_number("max_seconds", max_seconds, above=0.0)
    start = time.perf_counter()
    reduced = reduce_problem(task, outputs, inputs)
    found, used = _find(reduced, norm, tolerance, method, max_seconds)
    certificate = certify_reduced(reduced, found, norm)
    if not certificate.gap <= tolerance:
        raise SolverError(
            f"gap {certificate.gap:.3g} is above the tolerance {tolerance:.3g} after "
            f"{time.perf_counter() - start:.1f} s of {used} ({certificate.dual:.8g} <= optimum <= "
            f"{certificate.primal:.8g}): raise tolerance or max_seconds, or try another method"
        )
    return MaxMarginSolution(
        task=task,
        norm=norm,
        outputs=outputs,
        inputs=inputs,
        objective=certificate.norm_value,
        certificate=certificate,
        method=used,
        seconds=time.perf_counter() - start,
        iterations=found.iterations,
        reduced=reduced,
        blocks=found.blocks,
        reduced_weights=found.weights,
    )


def _find(
    reduced: ReducedProblem, norm: str, tolerance: float, method: str, max_seconds: float
) -> tuple[ReducedSolution, str]:
    """A candidate and the method that found it."""
    balanced = reduced.task.balanced_sizes is not None
    if method == "closed_form" and not balanced:
        raise ConfigError(
            "method='closed_form' needs a balanced task, got an unbalanced one: use method='auto'"
        )
    if method in ("auto", "closed_form") and balanced:
        return _closed_form(reduced, norm), "closed_form"
    if method in ("clarabel", "scs"):
        return solve_reduced_cvxpy(reduced, norm, method, max_seconds), method
    small = method == "auto" and np.prod(reduced.constant_shape) + np.prod(reduced.pair_shape) <= _SMALL
    patience = min(max_seconds / 2, _PATIENCE) if small else max_seconds
    found = solve_first_order(reduced, norm, tolerance, patience)
    if small and found.gap > tolerance:
        with contextlib.suppress(SolverError):  # what the splitting method has is then the answer
            other = solve_reduced_cvxpy(reduced, norm, "clarabel", max_seconds - patience, tolerance / 10)
            if other.gap < found.gap:
                return other, "clarabel"
    return found, "first_order"


def _closed_form(reduced: ReducedProblem, norm: str) -> ReducedSolution:
    """The closed form in the reduced problem's blocks: one type, with absent groups left out."""
    solution = predicted_solution(reduced.task, norm, reduced.outputs, reduced.inputs)
    _, m_train, m_test = solution.sizes
    status = [s for s, size in enumerate((m_train, m_test)) if size]
    rows = [*status, 2, 3, *([4] if reduced.feature else [])]
    constant = solution.constant_block[rows][:, : reduced.constant_shape[1]]
    blocks = Blocks(constant.copy(), solution.pair_block[status][None].copy())
    weights = balanced_reduced_weights(reduced, norm)
    return ReducedSolution(blocks, weights, solution.objective, solution.objective, 0)
