"""The dual weights that prove the closed form optimal: Σ μ / dual_norm(Σ μ A) equals the objective."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ocr_interp.errors import ConfigError
from ocr_interp.task import FACT
from ocr_interp.theory.norms import Norm
from ocr_interp.theory.norms.base import DualWeights
from ocr_interp.theory.problem import feature_length
from ocr_interp.theory.reduction.margins import example_map
from ocr_interp.theory.reduction.symmetry import ReducedProblem


def balanced_reduced_weights(
    reduced: ReducedProblem, norm: Norm
) -> Float[np.ndarray, "example value"] | None:
    """The explicit dual weights of a balanced task; docs/theory.md, "Dual weights".

    Returns: [example group, distinct value], of one example and one output; 0 at the correct outputs. None
        for a norm that defines none.

    Raises:
        ConfigError: a task that is not balanced.
    """
    sizes = reduced.task.balanced_sizes
    if sizes is None:
        raise ConfigError("explicit dual weights need a balanced task, got an unbalanced one")
    n, m_train, m_test = sizes
    if m_train:
        found = norm.dual_weights(n, m_train, m_test, reduced.task.implied_relations)
        return None if found is None else _spread(reduced, found, 0.0)
    others = reduced.task.n_implications + (reduced.task.n_inputs if reduced.outputs == "vocabulary" else 0)
    length = np.sqrt(1 / (n * m_test) + 1 + feature_length(reduced.task, reduced.inputs) ** 2)
    control = norm.control_dual_weights(n, m_test, others, length)
    if control is None:
        return None
    return _spread(reduced, DualWeights(0.0, control.held_out, 0.0, 0.0), control.other)


def _spread(reduced: ReducedProblem, by_kind: DualWeights, other: float) -> np.ndarray:
    """Weights by kind of constraint as [example group, distinct value]."""
    examples = example_map(reduced)
    weights = np.full(examples.multiplicity.shape, float(other))
    example = np.arange(len(weights))
    trained = reduced.clusters.status_told[reduced.row_status[examples.rows]].all(axis=1)
    of_facts = np.where(trained, by_kind.fact, by_kind.held_out)
    within = np.where(examples.relations == FACT, of_facts, by_kind.implication)
    weights[example, examples.relations] = within
    # Of a balanced task the own columns are a fact and one implication per relation.
    weights[trained, reduced.constant_shape[1] :] = by_kind.own
    return np.where(examples.multiplicity > 0, weights, 0.0)
