"""Figure 4: all weights of both trained models, without restriction or scaling.

Tokens are in the order of the vocabulary: subjects s, relations r, noise, EOS, facts b, implications c; rows
are read, columns written. Colours reach from minus to plus the number above a matrix. Raw weights of the two
models cannot be compared in size, since the attention scores absorb any scale and sign.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.looks import COLORS
from analyses.house.reproduce import main
from analyses.paper.runs import PAPER, load_all, named
from ocr_interp import FactRecallTask
from ocr_interp.viz.style import DIVERGING

SHOWN_SEED = 0


TITLE = (
    "Figure 4, all weights: the product of the factors writes every subject's own implication, the single "
    "matrix only the told ones"
)
SHOWN = {
    "$W_V$": "factorized",
    "$W_O$": "factorized",
    "$W_V W_O$": "factorized",
    "$W_{OV}$": "non_factorized",
}


def make(runs: Path, figures: Path) -> None:
    numbers = {}
    for kind in COLORS:
        run = load_all(runs, kind)[SHOWN_SEED]
        weights = run.weights
        shown = {"$W_V W_O$" if weights.W_O is not None else "$W_{OV}$": weights.W_OV.numpy()}
        if weights.W_O is not None:
            shown = {"$W_V$": weights.W_V.numpy(), "$W_O$": weights.W_O.numpy(), **shown}
        numbers[kind] = {"seed": SHOWN_SEED, "steps": run.step, "scores": run.scores, **shown}
    DRAWING.write(figures / "figure_4_full_weights", numbers)


def draw(numbers: dict[str, Any]) -> Picture:
    """Above the factors and their product; below the attention scores and the single matrix."""
    fig, axes = plt.subplots(2, 3, figsize=(WIDTH, 4.9), layout="constrained")
    places = dict(zip(SHOWN, (axes[0, 0], axes[0, 1], axes[0, 2], axes[1, 2]), strict=True))
    for name, ax in places.items():
        draw_matrix(ax, name, np.array(numbers[SHOWN[name]][name], dtype=float))
    for ax, kind in zip(axes[1, :2], COLORS, strict=True):
        draw_attention(ax, np.array(numbers[kind]["scores"], dtype=float), kind)
    return fig


def draw_matrix(ax: Axes, name: str, matrix: np.ndarray) -> None:
    """One weight matrix [from, to] with token groups marked on the axes that are tokens."""
    limit = float(np.quantile(np.abs(matrix), 0.999))
    ax.imshow(matrix, cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest")
    kind = SHOWN[name]
    said = {"$W_V W_O$": "factorized ", "$W_{OV}$": "non-factorized "}.get(name, "")
    ax.set_title(f"{said}{name}, ±{limit:.2g}", loc="left", color=COLORS[kind])
    ax.set_xticks([])
    ax.set_yticks([])
    if name == "$W_O$":
        ax.set_ylabel("head dimension", labelpad=2)
    else:
        mark_groups(ax, PAPER, vertical=True)
    if name == "$W_V$":
        ax.set_xlabel("head dimension", labelpad=2)
    else:
        mark_groups(ax, PAPER, vertical=False)


def mark_groups(ax: Axes, task: FactRecallTask, *, vertical: bool) -> None:
    """Names the groups of tokens along an axis."""
    sizes = (task.n_subjects, 2 + task.n_noise + 1, task.n_facts, task.n_implications)
    ends = np.cumsum([0, *sizes])
    for end in ends[1:-1]:
        (ax.axhline if vertical else ax.axvline)(end, color="0.3", lw=0.4)
    places, names = (ends[:-1] + ends[1:]) / 2, ["s", "r, …", "b", "c"]
    if vertical:
        ax.set_yticks(places, names, rotation=0, fontsize=7)
    else:
        ax.set_xticks(places, names, fontsize=7)
    ax.tick_params(length=0, pad=1)


def draw_attention(ax: Axes, scores: np.ndarray, kind: str) -> None:
    """The attention scores of EOS for every input token."""
    ax.bar(np.arange(len(scores)), scores, color=COLORS[kind], width=1.0)
    ax.axhline(0, color="0.3", lw=0.8)
    ax.set(xlim=(-0.5, len(scores) - 0.5), box_aspect=1)
    ax.set_title("attention scores of EOS", loc="left", color=COLORS[kind])
    end = PAPER.n_subjects
    ax.set_xticks([end / 2, end + 3.5], ["s", "r, …"], fontsize=7)
    ax.tick_params(axis="x", length=0)
    ax.axvline(end - 0.5, color="0.3", lw=0.4)


DRAWING = Drawing(TITLE, draw)
FIGURE = Figure(
    pictures=("figure_4_full_weights",),
    draw=make,
    experiments=named(*COLORS),
    drawings={"figure_4_full_weights": DRAWING},
)


if __name__ == "__main__":
    main()
