"""How far a model in training is from the limits that the theory predicts."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from ocr_interp.task import FactRecallTask
from ocr_interp.theory.certificate import certify, cosine_with, held_out_beta
from ocr_interp.theory.closed_form import predicted_solution

LIMIT_NORMS = ("nuclear", "frobenius")

LIMIT_COLUMNS = (
    *(f"gap_{norm}" for norm in LIMIT_NORMS),
    "beta",
    *(f"cosine_{norm}" for norm in LIMIT_NORMS),
)
"""Of diag(a) W_OV, input tokens by the whole vocabulary, at every logged step:

- gap_nuclear, gap_frobenius: certified relative distance of its norm at margin 1 from the smallest
  possible one; the dual weights are the model's own residuals, so no program is solved. inf while a
  training margin is <= 0. With noise the constraint is that of the mean noise;
- beta: coefficient of the held-out implication block relative to the training one
  (`theory.certificate.held_out_beta`, projection); the gap pins it only loosely;
- cosine_nuclear, cosine_frobenius: with both predicted solutions, which are close to each other; NaN
  for a task without closed form.
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
        row = {}
        for norm in LIMIT_NORMS:
            found = certify(W, self.task, norm, outputs="vocabulary", inputs=self.inputs, scale=scale)
            row[f"gap_{norm}"] = found.gap
        row["beta"] = held_out_beta(W, self.task).projection
        for norm in LIMIT_NORMS:
            found = self._predicted.get(norm)
            row[f"cosine_{norm}"] = cosine_with(W, found) if found is not None else math.nan
        return row
