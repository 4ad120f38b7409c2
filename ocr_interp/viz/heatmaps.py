"""Heat maps of OV circuits, ordered by blocks, with the untold block framed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import seaborn as sns
from jaxtyping import Float, Int
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle

from ocr_interp.circuits.matrix import OVMatrix
from ocr_interp.errors import ConfigError
from ocr_interp.storage.plain import printable
from ocr_interp.task import FactRecallTask
from ocr_interp.viz.style import current_style

MOST_CELLS = 10**6
"""Entries that a picture of a few inches can show at all."""


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


def _fit(ax: Axes, first: str, second: str, apart: float) -> bool:
    """Whether two labels whose middles are a share of the axes' width apart do not touch, roughly."""
    inches = ax.get_window_extent().width / ax.figure.dpi * 0.85  # a colour bar takes some
    letters = (len(first) + len(second)) / 2 + 2
    points = FontProperties(size=rcParams["xtick.labelsize"]).get_size_in_points()
    return bool(letters * 0.5 * points / 72 < apart * inches)


def plot_ov_circuit(
    ax: Axes,
    W: Float[np.ndarray, "subject_or_relation answer"],
    task: FactRecallTask,
    limit: float,
    unit: str,
) -> Axes:
    """Draws W[input, answer] with inputs from left to right, the held-out implication block framed.

    Args:
        ax: axes to draw on.
        W: the circuit: subjects, relations by facts, implications.
        task: the task, which defines the blocks.
        limit: absolute value at the ends of the colour map.
        unit: label of the colour bar.

    Returns: the axes.

    >>> from matplotlib.figure import Figure
    >>> from ocr_interp import FactRecallTask, solve
    >>> task = FactRecallTask(3, 1, 2)
    >>> ax = plot_ov_circuit(Figure((12, 3)).subplots(), solve(task).W, task, limit=1.0, unit="logits")
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['training subjects (3)', 'held-out subjects (6)', '']
    """
    order = DisplayOrder.of(task)
    sns.heatmap(
        W[order.rows].T,
        ax=ax,
        cmap=current_style().diverging,
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
        edgecolor=current_style().held_out,
        lw=2.5,
        clip_on=False,
        zorder=5,
    )
    ax.add_patch(frame)
    names = [f"training subjects ({order.n_training})", f"held-out subjects ({order.n_held_out})", ""]
    shown = [k for k in range(3) if edges[k + 1] > edges[k]]
    if not _fit(ax, names[0], names[1], (edges[2] - edges[0]) / 2 / edges[-1]):
        names = [name.replace(" ", "\n", 1) for name in names]
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
    return ax


def plot_heatmap(ax: Axes, circuit: OVMatrix, *, limit: float | None = None, most_labels: int = 40) -> Axes:
    """Draws any OV circuit as W[input, output], inputs from left to right, outputs downwards.

    Of a fact-recall task rows of noise and EOS are left out, and the untold block is framed
    (`plot_ov_circuit`). Of another model lines part the groups of tokens.

    Args:
        ax: axes to draw on.
        circuit: any circuit, of at most a million entries.
        limit: absolute value at the ends of the colour map; None is the largest entry.
        most_labels: tokens of a side are named if they are at most this many.

    Returns: the axes.

    Raises:
        ConfigError: more entries than a picture can show.

    >>> from matplotlib.figure import Figure
    >>> from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, train
    >>> recipe = TrainConfig(steps=20, batch_size=12, device="cpu")
    >>> run = train(FactRecallTask(3, 1, 2), ModelConfig(d_head=8), recipe, progress=False)
    >>> plot_heatmap(Figure().subplots(), run.circuit.restrict(["s0", "r1"])).get_xlabel()
    'input token'
    """
    shape = len(circuit.inputs), len(circuit.outputs)
    if shape[0] * shape[1] > MOST_CELLS:
        raise ConfigError(
            f"a heat map may have at most {MOST_CELLS:,} entries, got {shape[0]:,} x {shape[1]:,}: "
            "circuit.restrict(inputs, outputs) first"
        )
    task = circuit.task
    unit = "logits" if circuit.is_effective or task is None else "raw W_OV"
    if task is not None and shape == (task.n_inputs, task.n_answers):
        W = circuit.subjects_and_relations.W
        return plot_ov_circuit(ax, W, task, _largest(W, limit), unit)
    names = [
        [printable(text) for text in side.labels] if len(side) <= most_labels else False
        for side in (circuit.inputs, circuit.outputs)
    ]
    most = _largest(circuit.W, limit)
    sns.heatmap(
        circuit.W.T,
        ax=ax,
        cmap=current_style().diverging,
        vmin=-most,
        vmax=most,
        xticklabels=names[0],
        yticklabels=names[1],
        cbar_kws={"label": unit, "pad": 0.01, "shrink": 0.85},
        rasterized=True,
    )
    for label in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        label.set_parse_math(False)  # a dollar sign of a token starts no formula
    for side, line in ((circuit.inputs, ax.axvline), (circuit.outputs, ax.axhline)):
        for place in np.flatnonzero(np.diff(side.group)):
            line(float(place) + 1, color="0.25", lw=0.8)
    ax.set(xlabel="input token", ylabel="output token")
    return ax


def _largest(W: Float[np.ndarray, "input output"], limit: float | None) -> float:
    return limit or float(np.abs(W).max(initial=0.0)) or 1.0
