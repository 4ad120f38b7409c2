"""Figure 4: all weights of both trained models, without restriction or scaling.

Tokens are in the order of the vocabulary: subjects, r1 r2, noise, EOS, facts, implications.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from analyses.house.figure import Figure
from analyses.house.looks import COLORS, NAMES
from analyses.house.reproduce import main
from analyses.paper.runs import load_all, named
from ocr_interp import FactRecallTask
from ocr_interp.viz.style import DIVERGING, figure_style, save_figure

SHOWN_SEED = 0


def make(runs: Path, figures: Path) -> None:
    numbers = {}
    with figure_style():
        fig, axes = plt.subplots(2, 4, figsize=(13.5, 7), width_ratios=(1, 1, 1, 0.8), layout="constrained")
        for row, kind in zip(axes, COLORS, strict=True):
            run = load_all(runs, kind)[SHOWN_SEED]
            weights, task = run.weights, run.task
            shown = {"$W_V W_O$" if weights.W_O is not None else "$W_{OV}$": weights.W_OV.numpy()}
            if weights.W_O is not None:
                shown = {"$W_V$": weights.W_V.numpy(), "$W_O$": weights.W_O.numpy(), **shown}
            for ax, (name, matrix) in zip(row[3 - len(shown) : 3], shown.items(), strict=True):
                draw_matrix(ax, name, matrix, task)
            if weights.W_O is None:
                row[0].axis("off")
                row[1].axis("off")
                note = "no $W_V$ and $W_O$:\none matrix is trained"
                row[1].text(0.5, 0.5, note, ha="center", va="center", color="0.35")
            draw_attention(row[3], run.scores, task, COLORS[kind])
            label = {"rotation": 90, "ha": "center", "va": "center", "transform": row[0].transAxes}
            row[0].text(-0.42, 0.5, NAMES[kind], color=COLORS[kind], fontsize=12, fontweight="bold", **label)
            numbers[kind] = {"seed": SHOWN_SEED, "steps": run.step, "scores": run.scores, **shown}
    save_figure(fig, figures / "figure_4_full_weights", numbers)


def draw_matrix(ax: Axes, name: str, matrix: np.ndarray, task: FactRecallTask) -> None:
    """One weight matrix [from, to] with token groups marked on the axes that are tokens."""
    limit = float(np.quantile(np.abs(matrix), 0.999))
    cbar = {"shrink": 0.6, "pad": 0.02}
    sns.heatmap(
        matrix, ax=ax, cmap=DIVERGING, vmin=-limit, vmax=limit, square=True, cbar_kws=cbar, rasterized=True
    )
    ax.set_title(f"{name}  {matrix.shape[0]} × {matrix.shape[1]}")
    ax.set_xticks([])
    ax.set_yticks([])
    if not name.startswith("$W_O$"):
        mark_groups(ax, task, vertical=True)
        ax.set_ylabel("read: token")
    else:
        ax.set_ylabel("head dimension")
    if name != "$W_V$":
        mark_groups(ax, task, vertical=False)
        ax.set_xlabel("write: token")
    else:
        ax.set_xlabel("head dimension")
    ax.spines[:].set_visible(True)


def mark_groups(ax: Axes, task: FactRecallTask, *, vertical: bool) -> None:
    """Names the groups of tokens along an axis."""
    sizes = (task.n_subjects, 2 + task.n_noise + 1, task.n_facts, task.n_implications)
    ends = np.cumsum([0, *sizes])
    for end in ends[1:-1]:
        (ax.axhline if vertical else ax.axvline)(end, color="0.3", lw=0.4)
    places, names = (ends[:-1] + ends[1:]) / 2, ["s", "r, noise, EOS", "b", "c"]
    if vertical:
        ax.set_yticks(places, names, rotation=0, fontsize=7)
    else:
        ax.set_xticks(places, names, rotation=90, fontsize=7)
    ax.tick_params(length=0, pad=1)


def draw_attention(ax: Axes, scores: np.ndarray, task: FactRecallTask, color: str) -> None:
    """The attention scores of EOS for every input token."""
    ax.bar(np.arange(len(scores)), scores, color=color, width=1.0)
    ax.axhline(0, color="0.3", lw=0.8)
    ax.set(title="attention: score of EOS for a token", xlabel="token", xlim=(-0.5, len(scores) - 0.5))
    ends = np.cumsum((task.n_subjects, 2, task.n_noise + 1))
    ax.set_xticks([ends[0] / 2, ends[0] + 0.5, (ends[1] + ends[2]) / 2], ["subjects", "r", "noise, EOS"])
    ax.tick_params(axis="x", rotation=30)
    sns.despine(ax=ax)


FIGURE = Figure(pictures=("figure_4_full_weights",), draw=make, experiments=named(*COLORS))


if __name__ == "__main__":
    main()
