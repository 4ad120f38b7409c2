"""The exact minimiser of the loss with an L2 penalty on the parameters, for comparison with gradient descent.

With frozen attention and no noise: min over W of mean cross-entropy + λ f(W), where f is the nuclear norm if
both factors have the penalty λ/2 (‖W_V‖² + ‖W_O‖²), and ½‖W‖_F² if W_OV itself has it. Both are convex in W
and are solved by accelerated proximal gradients on W, which do not depend on factors, rates or starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax, softmax

from ocr_interp import FactRecallTask, held_out_beta

STEPS = 20_000
CHECKED_EVERY = 50
GROWTH = 1.1
"""Factor of the rate at each step; a rate that is too large is halved."""

TOLERANCE = 1e-6
"""Relative violation of the optimality conditions at which to stop."""


@dataclass(frozen=True)
class PenalisedOptimum:
    """Minimiser for one penalty.

    Attributes:
        W: subjects, r1, r2, EOS by the whole vocabulary, logits.
        beta: its held-out coefficient; NaN for W = 0.
        loss: its mean cross-entropy, nats.
        residual: relative violation of the optimality conditions.
    """

    W: Float[np.ndarray, "input output"]
    beta: float
    loss: float
    residual: float


def penalised_optimum(task: FactRecallTask, ov: str, penalty: float) -> PenalisedOptimum:
    """The minimiser for a noise-free task; equal weights of all training examples, vocabulary outputs."""
    triples = task.training_triples
    X = np.zeros((len(triples), task.n_inputs))
    X[np.arange(len(triples)), triples.subject] = 1
    X[np.arange(len(triples)), task.n_subjects + triples.relation] = 1
    X[:, task.eos_token] = 1
    target = np.eye(task.d_vocab)[triples.answer + task.n_inputs]

    def loss_and_gradient(W: np.ndarray) -> tuple[float, np.ndarray]:
        logits = X @ W
        loss = -(target * log_softmax(logits, axis=1)).sum() / len(X)
        return float(loss), X.T @ (softmax(logits, axis=1) - target) / len(X)

    rate = 1 / (0.5 * np.linalg.eigvalsh(X.T @ X).max() / len(X))  # softmax has curvature 1/2 at most
    W = moved = np.zeros((X.shape[1], task.d_vocab))
    momentum, residual = 1.0, np.inf
    for step in range(1, STEPS + 1):
        loss, gradient = loss_and_gradient(moved)
        rate *= GROWTH  # the curvature falls with the loss
        while True:
            new = _shrink(moved - rate * gradient, ov, rate * penalty)
            change = new - moved
            bound = loss + (gradient * change).sum() + (change**2).sum() / (2 * rate)
            if loss_and_gradient(new)[0] <= bound + 1e-14:
                break
            rate /= 2
        if (change * (new - W)).sum() < 0:  # the momentum points uphill: restart it
            momentum = 1.0
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        moved = new + (momentum - 1) / following * (new - W)
        W, momentum = new, following
        if step % CHECKED_EVERY == 0:
            residual = _violation(W, loss_and_gradient(W)[1], ov, penalty)
            if residual <= TOLERANCE:
                break
    loss = loss_and_gradient(W)[0]
    beta = held_out_beta(W[: task.n_subjects + 2, task.n_inputs :], task).projection if W.any() else np.nan
    return PenalisedOptimum(W, float(beta), float(loss), float(residual))


def _shrink(W: np.ndarray, ov: str, amount: float) -> np.ndarray:
    if ov == "non_factorized":
        return W / (1 + amount)
    U, S, Vh = np.linalg.svd(W, full_matrices=False)
    return (U * np.maximum(S - amount, 0.0)) @ Vh


def _violation(W: np.ndarray, gradient: np.ndarray, ov: str, penalty: float) -> float:
    """How far -gradient is from the penalty's subgradients at W, relative."""
    if ov == "non_factorized":
        return float(np.linalg.norm(gradient + penalty * W) / np.linalg.norm(penalty * W))
    outside = max(np.linalg.norm(gradient, 2) / penalty - 1, 0.0)
    size = penalty * np.linalg.svd(W, compute_uv=False).sum()
    return float(max(outside, abs((gradient * W).sum() + size) / size if size else 0.0))


def leading_beta(m_train: float, m_test: float) -> float:
    """β of the first direction that grows out of nothing, in training and along the penalty's path alike.

    While W is small the loss pulls on the pair block with M = [[√m_train, √m_train], [√m_test, 0]] (rows:
    told and untold subjects, columns: facts and implications; classes normalised): the held-out implication
    is 0 in M, but not in its leading singular pair u vᵀ, where β = (u_2 / √m_test) / (u_1 / √m_train).
    """
    r = m_train / m_test
    return float((1 - 2 * r + np.sqrt(1 + 4 * r**2)) / 2)


def first_beta(task: FactRecallTask) -> PenalisedOptimum:
    """The factorized minimiser at the largest penalty, to 2 %, that admits a pair block; n >= 5."""
    penalty = 0.5
    while True:
        found = penalised_optimum(task, "factorized", penalty)
        S = np.linalg.svd(found.W, compute_uv=False)
        # The part that is constant over pairs has rank 3 at most: facts, implications, the rest.
        if (1e-3 * max(S.max(), 1e-9) < S).sum() > 3:
            return found
        penalty *= 0.98
