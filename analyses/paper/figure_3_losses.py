"""Figure 3: training loss and held-out implication loss against steps, both models, five seeds.

Left: the paper's recipe; middle: the same without weight decay; right: the control that is never told an
implication. Bands go from the smallest to the largest seed. The companion figure_3_gap shows how far the same
models are from the predicted max-margin solutions.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from analyses.house.figure import Figure
from analyses.house.looks import COLORS, NAMES
from analyses.house.reproduce import main
from analyses.paper.runs import PAPER, load_all, named
from ocr_interp.theory import trained_attention_beta_interval
from ocr_interp.viz.curves import plot_band
from ocr_interp.viz.style import figure_style, save_figure

PANELS = {
    "": "the paper's recipe (weight decay 0.03)",
    "_no_decay": "without weight decay",
    "_no_implication": "control: no implication is told ($m_\\mathrm{train}=0$)",
}
COLUMNS = {"train_loss": (0, (4, 2)), "held_out_implication/loss": "-"}


def make(runs: Path, figures: Path) -> None:
    numbers, n = {}, PAPER.n_implications
    with figure_style():
        fig, axes = plt.subplots(1, 3, figsize=(12, 3.9), sharey=True, layout="constrained")
        for ax, (suffix, title) in zip(axes, PANELS.items(), strict=True):
            for kind in COLORS:
                found = load_all(runs, kind + suffix)
                for column, dashes in COLUMNS.items():
                    what = "training" if column == "train_loss" else "held-out implications"
                    label = f"{NAMES[kind]}: {what}"
                    histories = [run.history for run in found]
                    plot_band(ax, histories, column, COLORS[kind], label, linestyle=dashes, lw=1.8)
                    numbers[f"{kind}{suffix}/{column}"] = {
                        "step": found[0].history["step"].to_numpy()[::10],
                        "by_seed": [history[column].to_numpy()[::10] for history in histories],
                    }
            ax.axhline(np.log(n), color="0.4", ls=":", lw=1.2)
            ax.text(ax.get_xlim()[1], np.log(n) * 0.8, f"guessing: ln {n}", ha="right", va="top", color="0.3")
            ax.set(xscale="log", yscale="log", xlabel="training step", ylabel="cross-entropy (nats)")
            ax.set_title(title, loc="left")
            ax.get_legend().remove()
        handles, labels = axes[0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        save_figure(fig, figures / "figure_3_losses", numbers)
        draw_companion(runs, figures)


def draw_companion(runs: Path, figures: Path) -> None:
    """The same runs' distance to the predicted max-margin solutions: certified gap, true excess, and beta."""
    numbers = {}
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.9), layout="constrained")
    for suffix, alpha, what in (("", 1.0, "weight decay 0.03"), ("_no_decay", 0.45, "no decay")):
        for kind, norm in (("factorized", "nuclear"), ("non_factorized", "frobenius")):
            histories = [run.history for run in load_all(runs, kind + suffix)]
            label = f"{kind.replace('_', '-')}, {what}"
            look = {"alpha": alpha, "lw": 1.8}
            plot_band(axes[0], histories, f"gap_{norm}", COLORS[kind], f"{label}: certified", ls="--", **look)
            plot_band(axes[0], histories, f"excess_{norm}", COLORS[kind], f"{label}: true", **look)
            plot_band(axes[1], histories, "beta", COLORS[kind], label, **look)
            for column in (f"gap_{norm}", f"excess_{norm}", "beta"):
                values = [history[column].to_numpy()[::10] for history in histories]
                numbers[f"{kind}{suffix}/{column}"] = values
    axes[0].set(xscale="log", yscale="log", xlabel="training step")
    axes[0].set_ylabel("norm at margin 1, above the smallest\n(nuclear / Frobenius), relative")
    axes[1].axhspan(*trained_attention_beta_interval(PAPER), color=COLORS["factorized"], alpha=0.12, lw=0)
    axes[1].text(
        110, 0.655, "factorized, smallest norms\nwith trained attention", color="0.3", fontsize=8, va="bottom"
    )
    axes[1].set(xscale="log", xlabel="training step", ylabel="held-out coefficient β", ylim=(-0.1, 1.05))
    fig.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=7
    )
    axes[0].get_legend().remove()
    axes[1].legend(frameon=False, fontsize=7, loc=(0.02, 0.13))
    fig.suptitle("How far the models of Figure 3 are from the max-margin solutions", x=0.01, ha="left")
    save_figure(fig, figures / "figure_3_gap", numbers)


FIGURE = Figure(
    pictures=("figure_3_losses", "figure_3_gap"),
    draw=make,
    experiments=named(*(kind + suffix for suffix in PANELS for kind in COLORS)),
)


if __name__ == "__main__":
    main()
