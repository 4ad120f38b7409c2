"""The max-margin (OV-SVM) solution, computed by annealed L-BFGS on the model's own parameters.

This says nothing about where gradient descent goes; only `TrainConfig.gradient_descent` runs are evidence
of that. The solution minimises the norm of the parameters under margins >= 1 with frozen attention; every
limit of gradient descent is a KKT point of this problem (Theorem 1), but not always its minimiser: for
m_train < m_test a small start goes to `theory.saddle_solution`. Here the margin constraints become smooth
hinges of growing sharpness s,

    min  1/2 (|W_V|_F^2 + |W_O|_F^2)  +  C sum_k  1/s log(1 + sum_wrong exp(s (1 - h_k,wrong))),

solved for one sharpness after the other, each from the solution of the one before. The slopes of the hinges
are dual weights, so every stage has a certificate.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from ocr_interp.checks import check_choice, check_count, check_number
from ocr_interp.errors import ConfigError, SolverError
from ocr_interp.maps import maps
from ocr_interp.maps.axes import TokenAxes
from ocr_interp.maps.base import LinearMap
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.certificate import Certificate, certify, held_out_beta
from ocr_interp.theory.problem import MaxMarginProblem, max_margin_problem

_FIRST_PENALTY = 4.0


@dataclass(frozen=True)
class LimitStage:
    """The solution at one sharpness of the annealing.

    Attributes:
        sharpness: s, in 1 / logits.
        seconds: wall-clock time since the start.
        gap: certified relative gap of the weights at this stage.
        beta: held-out implication coefficient (`theory.certificate.held_out_beta`, projection).
        margin: smallest training margin, logits.
    """

    sharpness: float
    seconds: float
    gap: float
    beta: float
    margin: float


@dataclass(frozen=True)
class ComputedLimit:
    """Parameters of the max-margin solution, with the stages of the annealing and a certificate.

    Attributes:
        task: the task.
        ov: name of the parameterisation.
        parameters: its parameters by name; inputs are subjects, r1, r2, outputs are answers.
        W: the OV circuit: subjects, r1, r2 by answers.
        stages: one per sharpness.
        certificate: bounds proved at the last stage.
    """

    task: FactRecallTask
    ov: str
    parameters: dict[str, np.ndarray] = field(repr=False)
    W: Float[np.ndarray, "input answer"] = field(repr=False)
    stages: tuple[LimitStage, ...]
    certificate: Certificate


def compute_limit(
    task: FactRecallTask,
    ov: str = "factorized",
    *,
    d_head: int | None = None,
    seed: int = 0,
    tolerance: float = 1e-3,
    max_sharpness: float = 2.0**18,
) -> ComputedLimit:
    """Computes the max-margin (OV-SVM) solution of a model with frozen attention; no gradient descent.

    Args:
        task: any fact-recall task, noise-free.
        ov: the parameterisation, which must minimise a norm of W_OV: "factorized" (nuclear norm),
            "non_factorized" (Frobenius norm), or another of `ocr_interp.maps`.
        d_head: width of the OV circuit; None is the number of inputs or of answers, whichever is smaller.
        seed: seed of the random start.
        tolerance: certified relative gap to stop at.
        max_sharpness: the largest sharpness that is tried, in 1 / logits.

    Raises:
        ConfigError: an argument that is not allowed.
        SolverError: the gap stays above the tolerance, for example because d_head is too small; the
            message gives the gap.
    """
    check_choice("ov", ov, maps.names)
    check_number("tolerance", tolerance, above=0)
    problem = max_margin_problem(task)
    if d_head is not None:
        check_count("d_head", d_head, 1)
    linear_map = maps[ov](d_head=d_head or min(problem.shape)).placed(TokenAxes(task, *problem.shape))
    if linear_map.norm is None:
        raise ConfigError(f"compute_limit needs a parameterisation that makes a norm small, got ov={ov!r}")
    objective = _SmoothHinges(problem, linear_map)
    rng = np.random.default_rng(seed)
    theta = 0.1 * rng.standard_normal(objective.size)
    start, sharpness, penalty = time.perf_counter(), 2.0, _FIRST_PENALTY
    stages: list[LimitStage] = []
    while sharpness <= max_sharpness:
        options = {"maxiter": 5_000, "maxfun": 10_000, "maxcor": 30, "ftol": 1e-15, "gtol": 1e-9}
        theta = minimize(
            objective, theta, args=(sharpness, penalty), jac=True, method="L-BFGS-B", options=options
        ).x
        W = objective.circuit(theta)
        weights = objective.dual_weights(W, sharpness)
        certificate = certify(W, task, linear_map.norm, weights=weights)
        beta = held_out_beta(W, task).projection
        seconds = time.perf_counter() - start
        stages.append(LimitStage(sharpness, seconds, certificate.gap, beta, certificate.min_margin))
        if certificate.gap <= tolerance:
            return ComputedLimit(task, ov, objective.parameters(theta), W, tuple(stages), certificate)
        if len(stages) > 1 and stages[-1].gap > 0.9 * stages[-2].gap:
            # Products of factors have saddles, where a quasi-Newton method may stop; noise moves it away.
            theta = theta + 0.1 * rng.standard_normal(objective.size)
        # A margin still well below 1 at this sharpness means that the penalty is too small.
        penalty *= 4 if certificate.min_margin < 1 - 2 / sharpness else 1
        sharpness *= 2
    raise SolverError(
        f"the max-margin solution of the {ov} model was not reached: certified gap {stages[-1].gap:.2g}, "
        f"required {tolerance:g}: raise d_head (d_head={d_head}), tolerance or max_sharpness"
    )


class _SmoothHinges:
    """Half the squared norm of the parameters plus penalised smooth hinges, with its gradient."""

    def __init__(self, problem: MaxMarginProblem, linear_map: LinearMap) -> None:
        self.problem, self.linear_map = problem, linear_map
        self.shapes = linear_map.shapes(*problem.shape)
        self.size = sum(math.prod(shape) for shape in self.shapes.values())

    def parameters(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """The parameters by name, views of one vector."""
        found, start = {}, 0
        for name, shape in self.shapes.items():
            end = start + math.prod(shape)
            found[name] = theta[start:end].reshape(shape)
            start = end
        return found

    def circuit(self, theta: np.ndarray) -> np.ndarray:
        """W_OV of the parameters."""
        return self.linear_map.array_product(self.parameters(theta))

    def dual_weights(self, W: np.ndarray, sharpness: float) -> np.ndarray:
        """The slope of the hinge at each constraint; zero at the correct outputs."""
        return self._hinges(W, sharpness)[1]

    def _hinges(self, W: np.ndarray, sharpness: float) -> tuple[float, np.ndarray]:
        """Sum of the hinges over examples, and their slopes."""
        lag = sharpness * (1 - self.problem.constraint_margins(W))  # -inf at the correct output
        top = np.maximum(lag.max(axis=1, keepdims=True), 0.0)
        exp = np.exp(lag - top)
        total = exp.sum(axis=1, keepdims=True) + np.exp(-top)
        return float((top + np.log(total)).sum()) / sharpness, exp / total

    def __call__(self, theta: np.ndarray, sharpness: float, penalty: float) -> tuple[float, np.ndarray]:
        parameters = self.parameters(theta)
        hinges, slopes = self._hinges(self.linear_map.array_product(parameters), sharpness)
        value = 0.5 * float(theta @ theta) + penalty * hinges
        grad_W = -penalty * self.problem.dual_matrix(slopes)
        gradients = self.linear_map.array_gradients(parameters, grad_W)
        return value, theta + np.concatenate([gradients[name].ravel() for name in self.shapes])
