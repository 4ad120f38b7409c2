"""Figure 3: training loss and held-out implication loss against steps, both models, five seeds.

Left: the paper's recipe; middle: the same without weight decay; right: the control that is never told an
implication. Bands go from the smallest to the largest seed. The companion figure_3_gap shows how far the same
models are from the predicted max-margin solutions; its JSON has the certified gaps and β as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D

from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.looks import COLORS, NAMES, draw_seeds
from analyses.house.reproduce import main
from analyses.paper.runs import PAPER, load_all, named

PANELS = {
    "": "the paper's recipe",
    "_no_decay": "without weight decay",
    "_no_implication": "no implication told",
}
COLUMNS = {"train_loss": (0, (4, 2)), "held_out_implication/loss": "-"}
EVERY = 10
"""Of a history, every tenth row is shown and kept in the JSON."""
NORMS = {"factorized": "nuclear", "non_factorized": "frobenius"}


def make(runs: Path, figures: Path) -> None:
    LOSSES.write(figures / "figure_3_losses", losses(runs))
    GAP.write(figures / "figure_3_gap", gaps(runs))


def losses(runs: Path) -> dict[str, Any]:
    """Losses of every model and seed by step."""
    numbers = {}
    for suffix in PANELS:
        for kind in COLORS:
            found = load_all(runs, kind + suffix)
            for column in COLUMNS:
                numbers[f"{kind}{suffix}/{column}"] = {
                    "step": found[0].history["step"].to_numpy()[::EVERY],
                    "by_seed": [run.history[column].to_numpy()[::EVERY] for run in found],
                }
    return numbers


def gaps(runs: Path) -> dict[str, Any]:
    """Distances of the same runs to the smallest norms at margin 1, certified and true, and β, by step."""
    numbers: dict[str, Any] = {}
    for suffix in ("", "_no_decay"):
        for kind, norm in NORMS.items():
            histories = [run.history for run in load_all(runs, kind + suffix)]
            numbers["step"] = histories[0]["step"].to_numpy()[::EVERY]
            for column in (f"gap_{norm}", f"excess_{norm}", "beta"):
                numbers[f"{kind}{suffix}/{column}"] = [
                    history[column].to_numpy()[::EVERY] for history in histories
                ]
    return numbers


def draw_losses(numbers: dict[str, Any]) -> Picture:
    """A panel per recipe: losses of what is told (dashed) and of what is not."""
    n = PAPER.n_implications
    fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.3), sharey=True, layout="constrained")
    for ax, (suffix, title) in zip(axes, PANELS.items(), strict=True):
        for kind, color in COLORS.items():
            for column, dashes in COLUMNS.items():
                found = numbers[f"{kind}{suffix}/{column}"]
                draw_seeds(ax, found["step"], found["by_seed"], color, linestyle=dashes, lw=1.8)
        ax.axhline(np.log(n), color="0.4", ls=":", lw=1.2)
        ax.text(0.98, np.log(n) / 1.3, f"guessing: ln {n}", ha="right", va="top", color="0.3", fontsize=7.5,
                transform=ax.get_yaxis_transform())  # fmt: skip
        ax.set(yscale="log", xlabel="training step", xlim=(0, None))
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.set_title(title, loc="left")
    axes[0].set_ylabel("cross-entropy (nats)")
    axes[0].set_xticks([0, 10_000, 20_000])
    axes[1].set_xticks([0, 10_000, 20_000])
    axes[2].set_xticks([0, 1_000, 2_000, 3_000])
    handles = [Line2D([], [], color=color, lw=1.8, label=NAMES[kind]) for kind, color in COLORS.items()]
    handles += [
        Line2D([], [], color="0.3", lw=1.8, ls=COLUMNS["train_loss"], label="what is told"),
        Line2D([], [], color="0.3", lw=1.8, label="untold implications"),
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, columnspacing=1.2)
    return fig


def draw_gap(numbers: dict[str, Any]) -> Picture:
    """The norm at training margin 1 above the smallest possible one, with and without weight decay."""
    fig, ax = plt.subplots(figsize=(WIDTH, 3.2), layout="constrained")
    for suffix, dashes, what in (("", "-", "weight decay 0.03"), ("_no_decay", (0, (4, 2)), "no decay")):
        for kind, norm in NORMS.items():
            by_seed = numbers[f"{kind}{suffix}/excess_{norm}"]
            draw_seeds(ax, numbers["step"], by_seed, COLORS[kind], linestyle=dashes, lw=1.8)
            last = float(np.median([seed[-1] for seed in by_seed]))
            ax.text(20_300, last, f"{what}: +{last:.0%}", color=COLORS[kind], va="center", fontsize=8)
    ax.text(1_200, 3.1, f"{NAMES['non_factorized']}: Frobenius norm", color=COLORS["non_factorized"])
    ax.text(1_200, 0.66, f"{NAMES['factorized']}: nuclear norm", color=COLORS["factorized"])
    ax.set(yscale="log", xlim=(0, 27_500), xlabel="training step", ylim=(0.09, 5))
    ax.set_ylabel("norm at training margin 1\nabove the smallest possible")
    ax.set_yticks([0.1, 0.3, 1, 3], ["+10%", "+30%", "+100%", "+300%"])
    ax.minorticks_off()
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xticks([0, 5_000, 10_000, 15_000, 20_000])
    ax.xaxis.set_major_formatter("{x:,.0f}")
    return fig


LOSSES = Drawing(
    "Both models fit what they are told; only two factors answer what was never told, and only if some "
    "implications are told",
    draw_losses,
)
GAP = Drawing(
    "After 20,000 steps two factors are 11 to 25 % above the smallest norm of their kind, "
    "one matrix 134 to 171 %",
    draw_gap,
)

FIGURE = Figure(
    pictures=("figure_3_losses", "figure_3_gap"),
    draw=make,
    experiments=named(*(kind + suffix for suffix in PANELS for kind in COLORS)),
    drawings={"figure_3_losses": LOSSES, "figure_3_gap": GAP},
)


if __name__ == "__main__":
    main()
