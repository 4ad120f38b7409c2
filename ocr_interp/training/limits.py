"""How far a model in training is from the limits that the theory predicts."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from ocr_interp.task import FactRecallTask
from ocr_interp.theory.certificate import certify, cosine_with, held_out_beta
from ocr_interp.theory.closed_form import predicted_solution

LIMIT_NORMS = ("nuclear", "frobenius")

LIMIT_COLUMNS = ("beta", *(f"{kind}_{norm}" for kind in ("gap", "excess", "cosine") for norm in LIMIT_NORMS))
"""Of diag(a) W_OV, input tokens by the whole vocabulary, at every logged step:

- beta: coefficient of the held-out implication block relative to the training one
  (`theory.certificate.held_out_beta`, projection); the norms below pin it only loosely;
- gap_nuclear, gap_frobenius: certified relative distance of its norm at margin 1 from the smallest
  possible one. The dual weights are the model's own residuals: no program is solved, and the distance
  is an upper bound for any task. inf while a training margin is <= 0. With noise the constraint is that
  of the mean noise;
- excess_nuclear, excess_frobenius: the distance itself, from the closed form; NaN for a task without;
- cosine_nuclear, cosine_frobenius: with both predicted solutions, which are close to each other; NaN
  likewise.
"""


class LimitTracker:
    """Measures LIMIT_COLUMNS.

    Args:
        task: the task; an unbalanced one has no predicted solutions.
        inputs: what an example holds beside subject and relation (`theory.problem.INPUTS`).
    """

    def __init__(self, task: FactRecallTask, inputs: str) -> None:
        self.task, self.inputs = task, inputs
        balanced = task.balanced_sizes is not None
        self._predicted = {
            norm: predicted_solution(task, norm, "vocabulary", inputs) for norm in LIMIT_NORMS if balanced
        }

    def measure(self, W: Float[np.ndarray, "input output"], attention: str) -> dict[str, float]:
        """The columns for diag(a) W_OV; all NaN for a W that is zero throughout or not finite."""
        if not W.any() or not np.isfinite(W).all():
            return dict.fromkeys(LIMIT_COLUMNS, math.nan)
        size = float(np.abs(W).max())  # all below is about directions; squares of large entries overflow
        W = W / size
        # Softmax attention divides each example's logits by its own sum: the residuals' scale is unknown.
        scale = size if attention == "linear" else None
        row = {"beta": held_out_beta(W, self.task).projection}
        for norm in LIMIT_NORMS:
            found = certify(W, self.task, norm, outputs="vocabulary", inputs=self.inputs, scale=scale)
            predicted = self._predicted.get(norm)
            row[f"gap_{norm}"] = found.gap
            row[f"excess_{norm}"] = found.primal / predicted.objective - 1 if predicted else math.nan
            row[f"cosine_{norm}"] = cosine_with(W, predicted) if predicted else math.nan
        return row
