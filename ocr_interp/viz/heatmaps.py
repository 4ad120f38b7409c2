"""Heat maps of OV circuits, ordered by blocks, with the untold block framed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import seaborn as sns
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ocr_interp.task import FactRecallTask
from ocr_interp.viz.style import DIVERGING, HELD_OUT


@dataclass(frozen=True)
class DisplayOrder:
    """Subjects grouped for display: training ones first, then held-out ones, then relations.

    Attributes:
        rows: index of every shown input among subjects and relations.
        n_training: shown training subjects, which come first.
        n_held_out: held-out subjects, which come next.
    """

    rows: Int[np.ndarray, " shown"] = field(repr=False)
    n_training: int
    n_held_out: int

    @classmethod
    def of(cls, task: FactRecallTask) -> DisplayOrder:
        """The order for a task; within a group by pair, so that a pair's subjects are adjacent."""
        by_pair = np.argsort(task.subject_fact, kind="stable")
        training = by_pair[task.subject_trained[by_pair]]
        held_out = by_pair[~task.subject_trained[by_pair]]
        rows = np.concatenate([training, held_out, list(task.relation_tokens)])
        return cls(rows, len(training), len(held_out))


def plot_ov_circuit(
    ax: Axes,
    W: Float[np.ndarray, "subject_or_relation answer"],
    task: FactRecallTask,
    limit: float,
    unit: str,
) -> None:
    """Draws W[input, answer] with inputs from left to right, the held-out implication block framed.

    Args:
        ax: axes to draw on.
        W: the circuit: subjects, relations by facts, implications.
        task: the task, which defines the blocks.
        limit: absolute value at the ends of the colour map.
        unit: label of the colour bar.
    """
    order = DisplayOrder.of(task)
    sns.heatmap(
        W[order.rows].T,
        ax=ax,
        cmap=DIVERGING,
        vmin=-limit,
        vmax=limit,
        xticklabels=False,
        yticklabels=False,
        cbar_kws={"label": unit, "pad": 0.01, "shrink": 0.85},
        rasterized=True,
    )
    edges = np.cumsum([0, order.n_training, order.n_held_out, task.n_relations])
    for edge in edges[1:-1]:
        ax.axvline(edge, color="0.25", lw=0.8)
    kinds = np.cumsum([0, task.n_facts, *task.implication_counts])
    for edge in kinds[1:-1]:
        ax.axhline(edge, color="0.25", lw=0.8)
    frame = Rectangle(
        (edges[1], task.n_facts),
        order.n_held_out,
        task.n_implications,
        fill=False,
        edgecolor=HELD_OUT,
        lw=2.5,
        clip_on=False,
        zorder=5,
    )
    ax.add_patch(frame)
    names = (f"training subjects ({order.n_training})", f"held-out subjects ({order.n_held_out})", "")
    shown = [k for k in range(3) if edges[k + 1] > edges[k]]
    ax.set_xticks([(edges[k] + edges[k + 1]) / 2 for k in shown], [names[k] for k in shown], rotation=0)
    last = task.n_relations
    ax.annotate(
        "$r_1\\,r_2$" if last == 2 else f"$r_1 \\ldots r_{{{last}}}$",
        (edges[2] + last / 2, 0),
        (0, 3),
        textcoords="offset points",
        ha="center",
        annotation_clip=False,
    )
    halves = (kinds[:-1] + kinds[1:]) / 2
    names = ["facts $b$", "implications $c$"]
    if task.implied_relations > 1:
        names = ["$b$", *(f"${chr(ord('c') + k)}$" for k in range(task.implied_relations))]
    ax.set_yticks(halves, names, rotation=90, va="center")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(True)
