"""The dual weights that prove the closed form optimal: Σ μ / dual_norm(Σ μ A) equals the objective."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ocr_interp.task import IMPLICATION, FactRecallTask
from ocr_interp.theory.problem import feature_length
from ocr_interp.theory.reduction.margins import example_map
from ocr_interp.theory.reduction.symmetry import ReducedProblem


def balanced_reduced_weights(reduced: ReducedProblem, norm: str) -> Float[np.ndarray, "example value"]:
    """The explicit dual weights of a balanced task; docs/theory.md, "Dual weights".

    Returns: [example group, distinct value], of one example and one output; 0 at the correct outputs.
    """
    task = reduced.task
    assert task.balanced_sizes is not None
    _, m_train, _ = task.balanced_sizes
    examples = example_map(reduced)
    weights = np.zeros(examples.multiplicity.shape)
    fact, held_out, implication, own, other = 0.0, 0.0, 0.0, 0.0, 0.0
    if m_train:
        fact, held_out, implication, own = _weights_by_kind(task.balanced_sizes, norm)
    else:
        held_out, other = _control_weights(task, norm, reduced.outputs, reduced.inputs)
    weights += other
    example = np.arange(len(weights))
    trained = reduced.row_status[examples.rows] == 0
    within = np.where(examples.relations == IMPLICATION, implication, np.where(trained, fact, held_out))
    weights[example, examples.relations] = within
    opposite = reduced.constant_shape[1] + 1 - examples.relations
    weights[example[trained], opposite[trained]] = own
    return np.where(examples.multiplicity > 0, weights, 0.0)


def _control_weights(task: FactRecallTask, norm: str, outputs: str, inputs: str) -> tuple[float, float]:
    """m_train = 0: weights within the facts, and against every other output."""
    assert task.balanced_sizes is not None
    n, _, b = task.balanced_sizes
    others = n + (task.n_inputs if outputs == "vocabulary" else 0)
    length = np.sqrt(1 / (n * b) + 1 + feature_length(task, inputs) ** 2)
    if norm == "spectral":
        return 1 / n, 0.0
    if norm == "frobenius":
        other = 1 / (n * b * length**2 * (n + others))
        return float((1 - others * other) / n), float(other)
    other = 1 / (n * b * length * np.sqrt(others * (others + n) / n))
    return float((1 / np.sqrt(b) - others * other) / n), float(other)


def _weights_by_kind(sizes: tuple[int, int, int], norm: str) -> tuple[float, float, float, float]:
    """m_train > 0: within a type (training facts, held-out facts, implications), and own b against own c."""
    n, a, b = sizes
    if norm == "frobenius":
        return 1 / n, 1 / n, 1 / n, 1 / (2 * a)
    if norm == "spectral":
        if n > a + max(a, b):
            return 0.0, 0.0, 0.0, 1.0
        return (1.0, 1.0, 0.0, 0.0) if a <= b else (1.0, 0.0, 1.0, 0.0)
    own = float(1 / (2 * a * np.sqrt(n)))
    if a <= b:
        return 0.0, float(1 / (n * np.sqrt(b))), float(1 / (n * np.sqrt(a))), own
    r = np.sqrt(a + b)
    fact, held_out, implication = (a - b) / (np.sqrt(2) * a * r), np.sqrt(2) / r, r / (np.sqrt(2) * a)
    return float(fact / n), float(held_out / n), float(implication / n), own
