"""The mechanism in one small diagram: which subjects write which answers, from measured weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from ocr_interp.task import FACT, IMPLICATION, FactRecallTask
from ocr_interp.viz.style import current_style


@dataclass(frozen=True)
class OwnAnswerStrength:
    """How much a subject's weights favour its own answers: own entry minus the mean of the others.

    Mean over the subjects of a class, and over the implications if a fact has several, in the unit of the
    circuit; NaN for a class without subjects.

    Attributes:
        training_fact, training_implication: of training subjects.
        held_out_fact, held_out_implication: of held-out subjects; the last was never told.
    """

    training_fact: float
    training_implication: float
    held_out_fact: float
    held_out_implication: float

    @classmethod
    def of(
        cls, W: Float[np.ndarray, "subject_or_relation answer"], task: FactRecallTask
    ) -> OwnAnswerStrength:
        """Measured on a circuit W[input, answer] of the task."""
        subjects = np.arange(task.n_subjects)
        aligned = []
        for relation, answer in enumerate(task.right_answer):
            of_kind = W[: task.n_subjects, task.answer_relation == relation]
            own = W[subjects, answer]
            aligned.append(own - (of_kind.sum(1) - own) / (of_kind.shape[1] - 1))
        fact, implication = aligned[FACT], np.mean(aligned[IMPLICATION:], axis=0)
        told = task.subject_trained

        def mean(values: np.ndarray) -> float:
            return float(values.mean()) if len(values) else float("nan")

        return cls(mean(fact[told]), mean(implication[told]), mean(fact[~told]), mean(implication[~told]))


def plot_mechanism(ax: Axes, strength: OwnAnswerStrength, color: str, full_width: float) -> Axes:
    """Draws subjects on the left and their own answers on the right; the line width is the strength.

    Args:
        ax: axes to draw on.
        strength: measured edges.
        color: colour of the told edges; the untold edge always has the colour of the frame.
        full_width: strength that is drawn with the widest line.

    Returns: the axes.

    >>> from matplotlib.figure import Figure
    >>> from ocr_interp import FactRecallTask, solve
    >>> task = FactRecallTask(3, 1, 2)
    >>> strength = OwnAnswerStrength.of(solve(task).W, task)
    >>> len(plot_mechanism(Figure().subplots(), strength, "#0173b2", full_width=1.0).texts)
    8
    """
    held_out = current_style().held_out
    inches = ax.get_window_extent().width / ax.figure.dpi
    size = min(8.5, max(6.5, 4.3 * inches))  # so that words fit into the boxes of a narrow picture
    thin = size / 8.5
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.axis("off")
    boxes = {
        "training": (0.17, 0.76, "training\nsubject"),
        "held_out": (0.17, 0.24, "held-out\nsubject"),
        "fact": (0.84, 0.76, "its fact\n$b_i$"),
        "implication": (0.84, 0.24, "its impli-\ncation $c_i$"),
    }
    for x, y, label in boxes.values():
        box = FancyBboxPatch((x - 0.14, y - 0.1), 0.28, 0.2, boxstyle="round,pad=0.01", fc="0.95", ec="0.4")
        ax.add_patch(box)
        ax.text(x, y, label, ha="center", va="center", fontsize=size)
    edges = (
        ("training", "fact", strength.training_fact, 0.5),
        ("training", "implication", strength.training_implication, 0.28),
        ("held_out", "fact", strength.held_out_fact, 0.28),
        ("held_out", "implication", strength.held_out_implication, 0.5),
    )
    for source, target, value, at in edges:
        untold = (source, target) == ("held_out", "implication")
        missing = abs(value) < 0.05 * full_width
        start, end = (boxes[source][0] + 0.16, boxes[source][1]), (boxes[target][0] - 0.16, boxes[target][1])
        ax.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle="-|>",
                mutation_scale=12 * thin,
                lw=1.2 if missing else 0.8 + 4.5 * thin**2 * min(abs(value) / full_width, 1),
                ls=(0, (2, 2)) if missing else "-",
                color=held_out if untold else color,
                alpha=1.0 if untold else 0.75,
            )
        )
        where = (start[0] + at * (end[0] - start[0]), start[1] + at * (end[1] - start[1]))
        ax.text(
            *where,
            f"{value:.2f}",
            ha="center",
            va="center",
            fontsize=size,
            fontweight="bold" if untold else "normal",
            color=held_out if untold else "0.15",
            bbox={"fc": "white", "ec": "none", "pad": 1.0},
        )
    return ax
