"""What theory predicts for β of a run, in its own attention, and what the run shows beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ocr_interp.task import SPLITS
from ocr_interp.theory import solve
from ocr_interp.theory.closed.closed_form import has_closed_form
from ocr_interp.theory.norms import as_norm
from ocr_interp.training.run import Run


@dataclass(frozen=True)
class PredictedBeta:
    """β of the points that theory knows, without weight decay.

    Attributes:
        low, high: of the smallest norm; they differ where attention is trained, since then an interval is
            known (docs/theory.md, section 6).
        saddle: of the point where gradient descent from a small start goes, in the run's own attention; None
            if there is no such point.
    """

    low: float
    high: float
    saddle: float | None

    @classmethod
    def of(cls, run: Run) -> PredictedBeta | None:
        """None where no closed form is known: unequal groups, softmax, a map without a norm, nobody
        told or nobody held out."""
        model, task, norm = run.config.model, run.task, run.weights.linear_map.norm
        if model.attention != "linear" or norm is None or not has_closed_form(task, norm):
            return None
        assert task.balanced_sizes is not None  # as closed forms have it
        _, m_train, m_test = task.balanced_sizes
        beta = solve(task, norm).beta
        if math.isnan(beta):  # nobody told or nobody held out: there is nothing to predict
            return None
        interval = (beta, beta)
        if model.train_attention:
            known = as_norm(norm).beta_with_trained_attention(m_train, m_test)
            if known is None or task.implied_relations > 1:
                return None
            interval = known
        saddle = run.saddle
        return cls(*interval, None if saddle is None else saddle.beta)

    @property
    def is_interval(self) -> bool:
        """Whether the smallest norm leaves β open."""
        return self.low != self.high


def run_verdict(run: Run) -> str:
    """What a run shows, in two or three sentences: who answers what was never told, and β beside theory."""
    row = run.history.iloc[-1]
    told, untold = (float(row[f"{split}/accuracy"]) for split in (SPLITS[1], SPLITS[-1]))
    if math.isnan(untold):
        return "No subject of this task is asked what it was never told: it has no held-out implication."
    guess = 1 / run.task.implication_counts[0]
    said = (
        f"Of the held-out implications, which were never told, {untold:.0%} come first among all answers "
        f"(guessing among implications: {guess:.0%})"
    )
    said += "." if math.isnan(told) else f"; of the told ones {told:.0%}."
    beta = float(row["beta"])
    if not math.isfinite(beta) or run.step == 0:
        return said
    said += f" β is {beta:.3g}: {_in_words(beta)}."
    known = PredictedBeta.of(run)
    if known is None:
        return f"{said} Theory has no closed form to compare this run with."
    norm = f"{known.low:.3g}" if not known.is_interval else f"{known.low:.3g} to {known.high:.3g}"
    saddle = "" if known.saddle is None else f", the saddle, where a small start goes, {known.saddle:.3g}"
    return f"{said} By theory the smallest norm has {norm}{saddle}."


def _in_words(beta: float) -> str:
    """Limits as in the studies: below -0.1 pushed away, up to 0.1 silence."""
    if beta < -0.1:
        return "untold implications are pushed away"
    if beta <= 0.1:
        return "untold implications are hardly written"
    return f"an untold implication is written {beta:.2g} times as strongly as a told one"
