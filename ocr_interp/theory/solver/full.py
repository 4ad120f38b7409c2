"""A solution of the full program, for norms whose problems cannot be reduced by symmetry."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float

from ocr_interp.errors import SolverError
from ocr_interp.theory.certificate import Certificate, certify
from ocr_interp.theory.geometry import SpectrumBlock
from ocr_interp.theory.norms import Norm
from ocr_interp.theory.problem import MaxMarginProblem
from ocr_interp.theory.reduction.certificate import zero_below
from ocr_interp.theory.solver.cvxpy_program import solve_cvxpy


@dataclass(frozen=True)
class FullSolution:
    """A matrix at full size with the dual weights of its constraints.

    Attributes:
        problem: the constraints.
        norm: the norm that is minimised.
        W: the matrix, [input, output].
        weights: dual weights [example, output].
        iterations: 0: the solver's steps are not counted.
    """

    problem: MaxMarginProblem
    norm: Norm
    W: Float[np.ndarray, "input output"] = field(repr=False)
    weights: Float[np.ndarray, "example output"] = field(repr=False)
    iterations: int = 0

    @cached_property
    def certificate(self) -> Certificate:
        """`certify` of W and weights."""
        problem = self.problem
        return certify(
            self.W, problem.task, self.norm, self.weights, outputs=problem.outputs, inputs=problem.inputs
        )

    @cached_property
    def spectrum(self) -> tuple[SpectrumBlock, ...]:
        """Singular values, largest first, each a block of its own, without those that may be 0."""
        values = np.linalg.svd(self.W, compute_uv=False)
        least = zero_below(float(values[0]), float("nan"), self.certificate.gap)
        return tuple(SpectrumBlock(float(v), 1, "matrix") for v in values if v > least)


def solve_full(problem: MaxMarginProblem, norm: Norm, solver: str, max_seconds: float) -> FullSolution:
    """The full program by CVXPY, W scaled to smallest training margin 1 where that is positive.

    Args:
        problem: the constraints.
        norm: any norm; its `atom` is minimised.
        solver: "clarabel" or "scs".
        max_seconds: time limit of the solver.

    Raises:
        SolverError: the solver returned no point, or one that proves no bounds.
    """
    W, weights = solve_cvxpy(problem, norm, solver, max_seconds)
    if not (np.isfinite(W).all() and np.isfinite(weights).all() and W.any() and weights.any()):
        raise SolverError(
            f"{solver} came back without a solution of the {norm.label} problem: try the other of clarabel "
            "and scs, or raise max_seconds"
        )
    W = norm.allowed(W)
    margin = float(problem.constraint_margins(W).min())
    return FullSolution(problem, norm, W / margin if margin > 0 else W, weights)
