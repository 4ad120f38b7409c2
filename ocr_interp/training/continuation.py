"""The limit of training, computed: annealed L-BFGS on the model's own parameters.

This is no evidence that gradient descent goes there; `TrainConfig.gradient_descent` runs are. With
frozen attention the limit of gradient descent minimises the norm of the parameters under margins >= 1
(Theorem 1). Here the margin constraints become smooth hinges of growing sharpness s,

    min  1/2 (|W_V|_F^2 + |W_O|_F^2)  +  C sum_k  1/s log(1 + sum_wrong exp(s (1 - h_k,wrong))),

solved from one sharpness to the next. The hinges' own weights are dual weights, so that every stage
carries its certificate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from ocr_interp.checks import check_choice, check_count, check_number
from ocr_interp.configuration.model import OV_KINDS
from ocr_interp.errors import SolverError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.certificate import Certificate, certify, held_out_beta
from ocr_interp.theory.problem import MaxMarginProblem, max_margin_problem

NORM_OF_OV = {"factorized": "nuclear", "non_factorized": "frobenius"}
"""The norm of W_OV that each model's parameters measure: 1/2 (|W_V|^2 + |W_O|^2) is the nuclear norm."""

_FIRST_PENALTY = 4.0


@dataclass(frozen=True)
class LimitStage:
    """One sharpness of the annealing.

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
    """Parameters at the limit, with the way there and a certificate.

    Attributes:
        task, ov: what was solved.
        W_V, W_O: the factors; of a non-factorized model W_V is W_OV and W_O is None.
        stages: one a sharpness.
        certificate: bounds that the last stage proves.
    """

    task: FactRecallTask
    ov: str
    W_V: Float[np.ndarray, "input d_head"]
    W_O: Float[np.ndarray, "d_head answer"] | None
    stages: tuple[LimitStage, ...]
    certificate: Certificate

    @property
    def W(self) -> Float[np.ndarray, "input answer"]:
        """The OV circuit: subjects, r1, r2 by answers."""
        return self.W_V if self.W_O is None else self.W_V @ self.W_O


def compute_limit(
    task: FactRecallTask,
    ov: str = "factorized",
    *,
    d_head: int | None = None,
    seed: int = 0,
    tolerance: float = 1e-3,
    max_sharpness: float = 2.0**18,
) -> ComputedLimit:
    """Computes where gradient descent with frozen attention converges to; labelled as computing.

    Args:
        task: any fact-recall task, noise-free.
        ov: "factorized" (nuclear norm) or "non_factorized" (Frobenius norm).
        d_head: width of the factors; None is as many as inputs or answers, whichever are fewer.
        seed: of the random start.
        tolerance: certified relative gap to stop at.
        max_sharpness: give up beyond this sharpness.

    Raises:
        ConfigError: an argument that is not allowed.
        SolverError: the gap stays above the tolerance (too small a d_head does that); it says the gap.
    """
    check_choice("ov", ov, OV_KINDS)
    check_number("tolerance", tolerance, above=0)
    problem = max_margin_problem(task)
    if d_head is not None:
        check_count("d_head", d_head, 1)
    objective = _SmoothHinges(problem, (d_head or min(problem.shape)) if ov == "factorized" else None)
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
        certificate = certify(W, task, NORM_OF_OV[ov], weights=weights)
        beta = held_out_beta(W, task).projection
        seconds = time.perf_counter() - start
        stages.append(LimitStage(sharpness, seconds, certificate.gap, beta, certificate.min_margin))
        if certificate.gap <= tolerance:
            W_V, W_O = objective.factors(theta)
            return ComputedLimit(task, ov, W_V, W_O, tuple(stages), certificate)
        if len(stages) > 1 and stages[-1].gap > 0.9 * stages[-2].gap:
            # Products of factors have saddles, where a quasi-Newton method may rest; a nudge leads off.
            theta = theta + 0.1 * rng.standard_normal(objective.size)
        # Hinges that still give way once they are sharp are held too weakly.
        penalty *= 4 if certificate.min_margin < 1 - 2 / sharpness else 1
        sharpness *= 2
    raise SolverError(
        f"the limit of the {ov} model was not reached: certified gap {stages[-1].gap:.2g}, required "
        f"{tolerance:g}: raise d_head (d_head={d_head}), tolerance or max_sharpness"
    )


class _SmoothHinges:
    """Half the squared norm of the parameters plus penalised smooth hinges, with its gradient."""

    def __init__(self, problem: MaxMarginProblem, d_head: int | None) -> None:
        self.problem, self.d_head = problem, d_head
        n_inputs, n_outputs = problem.shape
        self.size = n_inputs * n_outputs if d_head is None else (n_inputs + n_outputs) * d_head

    def factors(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        n_inputs, n_outputs = self.problem.shape
        if self.d_head is None:
            return theta.reshape(n_inputs, n_outputs), None
        cut = n_inputs * self.d_head
        return theta[:cut].reshape(n_inputs, self.d_head), theta[cut:].reshape(self.d_head, n_outputs)

    def circuit(self, theta: np.ndarray) -> np.ndarray:
        W_V, W_O = self.factors(theta)
        return W_V if W_O is None else W_V @ W_O

    def dual_weights(self, W: np.ndarray, sharpness: float) -> np.ndarray:
        """How hard each constraint is pushed on, zero at the correct outputs."""
        return self._hinges(W, sharpness)[1]

    def _hinges(self, W: np.ndarray, sharpness: float) -> tuple[float, np.ndarray]:
        """Sum of the hinges over examples, and their slopes."""
        lag = sharpness * (1 - self.problem.constraint_margins(W))  # -inf at the correct output
        top = np.maximum(lag.max(axis=1, keepdims=True), 0.0)
        exp = np.exp(lag - top)
        total = exp.sum(axis=1, keepdims=True) + np.exp(-top)
        return float((top + np.log(total)).sum()) / sharpness, exp / total

    def __call__(self, theta: np.ndarray, sharpness: float, penalty: float) -> tuple[float, np.ndarray]:
        W_V, W_O = self.factors(theta)
        hinges, slopes = self._hinges(W_V if W_O is None else W_V @ W_O, sharpness)
        value = 0.5 * float(theta @ theta) + penalty * hinges
        grad_W = -penalty * self.problem.dual_matrix(slopes)
        if W_O is None:
            return value, theta + grad_W.ravel()
        return value, theta + np.concatenate([(grad_W @ W_O.T).ravel(), (W_V.T @ grad_W).ravel()])
