"""How far a model in training is from the max-margin solutions; descent itself may go to a saddle instead."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ocr_interp.task import FactRecallTask
from ocr_interp.theory.certificate import certify, cosine_with, held_out_beta
from ocr_interp.theory.closed.closed_form import has_closed_form
from ocr_interp.theory.norms import Norm, as_norm
from ocr_interp.theory.problem import max_margin_problem
from ocr_interp.theory.solve import solve

TRACKED_NORMS = ("nuclear", "frobenius")
"""Norms that are tracked by default: those of the paper's two max-margin problems."""


def tracked_norms(own: str | Norm | None) -> tuple[str | Norm, ...]:
    """TRACKED_NORMS, followed by the parameterisation's own norm if it is another one.

    Args:
        own: the norm that the parameterisation minimises (`LinearMap.norm`); None if there is none.
    """
    if own is None or as_norm(own).name in TRACKED_NORMS:
        return TRACKED_NORMS
    return (*TRACKED_NORMS, own)


def limit_columns(norms: Sequence[str | Norm] = TRACKED_NORMS) -> tuple[str, ...]:
    """The columns logged at every logged step about diag(a) W_OV, all input tokens by the whole vocabulary.

    - beta: coefficient of the held-out implication block relative to the training one
      (`theory.certificate.held_out_beta`, projection); norms near the optimum leave a wide range of beta;
    - gap_<norm>: certified upper bound of the relative distance of its norm at margin 1 from the smallest
      possible one, for any task. The dual weights are the model's own residuals, so nothing is optimised.
      inf while a training margin is <= 0. With noise the constraint is that of the mean noise;
    - excess_<norm>: the distance itself, from the closed form; NaN for a task or a norm without one;
    - cosine_<norm>: cosine with the predicted solution of that norm; the solutions of different norms are
      close to each other. NaN for a task or a norm without a closed form.

    Args:
        norms: names of `theory.norms`, or Norms, in the order of the columns.

    Raises:
        UnknownNameError: an unknown norm.
    """
    names = [as_norm(norm).name for norm in norms]
    return ("beta", *(f"{kind}_{name}" for kind in ("gap", "excess", "cosine") for name in names))


class LimitTracker:
    """Measures `limit_columns`.

    Args:
        task: the task; an unbalanced one has no predicted solutions.
        inputs: what an example holds beside subject and relation (`theory.problem.INPUTS`).
        certificates: whether to prove lower bounds, which takes most of the time; without them the gaps
            are NaN and the other columns do not change.
        norms: the norms that are tracked, or their names.

    Raises:
        UnknownNameError: an unknown norm.
    """

    def __init__(
        self,
        task: FactRecallTask,
        inputs: str,
        certificates: bool = True,
        norms: Sequence[str | Norm] = TRACKED_NORMS,
    ) -> None:
        self.task, self.inputs, self.certificates = task, inputs, certificates
        self.norms, self.columns = tuple(as_norm(norm) for norm in norms), limit_columns(norms)
        self._predicted = {
            norm.name: solve(task, norm, outputs="vocabulary", inputs=inputs, method="closed_form")
            for norm in self.norms
            if has_closed_form(task, norm)
        }

    def measure(self, W: Float[np.ndarray, "input output"], attention: str) -> dict[str, float]:
        """The columns for diag(a) W_OV; all NaN for a W that is zero throughout or not finite."""
        if not W.any() or not np.isfinite(W).all():
            return dict.fromkeys(self.columns, math.nan)
        size = float(np.abs(W).max())  # only the direction matters below; squares of large entries overflow
        W = W / size
        # Softmax divides each example's logits by its own sum, so the scale of the residuals is unknown.
        scale = size if attention == "linear" else None
        row = {"beta": held_out_beta(W, self.task).projection}
        for norm in self.norms:
            primal, row[f"gap_{norm.name}"] = self._bounds(W, norm, scale)
            predicted = self._predicted.get(norm.name)
            row[f"excess_{norm.name}"] = primal / predicted.objective - 1 if predicted else math.nan
            row[f"cosine_{norm.name}"] = cosine_with(W, predicted) if predicted else math.nan
        return row

    def beta(self, W: Float[np.ndarray, "input output"], relation: str) -> float:
        """β of the implications of one relation alone; NaN for a W that is zero throughout or not finite."""
        if not W.any() or not np.isfinite(W).all():
            return math.nan
        return held_out_beta(W / float(np.abs(W).max()), self.task, relation).projection

    def _bounds(
        self, W: Float[np.ndarray, "input output"], norm: Norm, scale: float | None
    ) -> tuple[float, float]:
        """Returns (norm at margin 1, certified gap); the gap is NaN without certificates."""
        if self.certificates:
            found = certify(W, self.task, norm, outputs="vocabulary", inputs=self.inputs, scale=scale)
            return found.primal, found.gap
        problem = max_margin_problem(self.task, "vocabulary", self.inputs)
        kept = problem.restrict(W)
        margin = float(problem.constraint_margins(kept).min())
        return (norm.value(kept) / margin if margin > 0 else math.inf), math.nan
