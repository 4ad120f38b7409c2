"""The picture of β during training: from the loss's leading direction, beside a penalty's minimisers."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from analyses.house.drawing import WIDTH, Drawing
from analyses.house.looks import COLORS
from analyses.phases.grids import SMALL
from analyses.phases.penalised import leading_beta
from ocr_interp import solve
from ocr_interp.theory import saddle_solution

LEADING = "#029e73"
EXACT = "0.15"
STARTS = {"0.0001": "-", "0.01": (0, (5, 1.5))}
"""Standard deviation of the start's entries, of the descents shown -> line; the JSON has more of them."""


def draw_path(numbers: dict[str, Any]) -> Picture:
    """The factorized model's β over the training loss, and over the sizes of the groups."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.7), layout="constrained")
    _over_loss(left, numbers)
    _over_ratios(right, numbers)
    return fig


def _over_loss(ax: Axes, numbers: dict[str, Any]) -> None:
    """Descent from small starts beside the exact path of the penalty."""
    path = numbers["factorized/penalised"]
    ax.plot(path["loss"], path["beta"], "D-", color=EXACT, lw=1.1, ms=3.5, label="minimisers, penalty → 0")
    for size, line in STARTS.items():
        run, power = numbers[f"factorized/entries {size}"], round(np.log10(float(size)))
        label = f"descent, entries $10^{{{power}}}$"
        ax.plot(run["train_loss"], run["beta"], ls=line, color=COLORS["factorized"], lw=1.6, label=label)
    _level(ax, leading_beta(1, 3), LEADING, "leading direction", "top")
    _level(ax, saddle_solution(SMALL, inputs="eos").beta, "0.45", "saddle", "bottom")
    _level(ax, solve(SMALL).beta, EXACT, "max-margin solution", "bottom")
    ax.set(xscale="log", xlim=(4, 1e-7), ylim=(0.44, 0.81))
    ax.set(xlabel="training loss (nats); training goes right", ylabel="held-out coefficient β")
    ax.legend(frameon=False, loc="lower left", fontsize=7)
    ax.set_title("during training, $m_{train}/m_{test}$ = 1/3", loc="left")


def _level(ax: Axes, value: float, color: str, text: str, side: str) -> None:
    ax.axhline(value, color=color, ls=(0, (1, 1.2)), lw=1.1, zorder=0)
    shift = 0.003 if side == "bottom" else -0.005
    ax.text(1.3e-7, value + shift, text, ha="right", va=side, color=color, fontsize=7)


def _over_ratios(ax: Axes, numbers: dict[str, Any]) -> None:
    """First direction, descent after a finite time and max-margin solution, over the ratio of the groups."""
    ratios = np.geomspace(1 / 10, 10, 100)
    leading = [leading_beta(ratio, 1) for ratio in ratios]
    ax.plot(ratios, leading, color=LEADING, ls=(0, (1, 1.2)), lw=1.4, label="leading direction")
    limit = np.minimum(np.sqrt(ratios), 1)
    ax.plot(ratios, limit, color=EXACT, ls=(0, (1, 1.2)), lw=1.4, label="max-margin solution")
    fractions = {key: int(key.split("/")[0]) / int(key.split("/")[1]) for key in numbers["firsts"]}
    first = [found["beta"] for found in numbers["firsts"].values()]
    ax.plot([*fractions.values()], first, "D", color=EXACT, ms=4, label="minimiser, largest penalty")
    descent = numbers["descent"]
    label = f"descent, {descent['steps']:,} steps"
    ax.plot(descent["ratio"], descent["beta"], "o", color=COLORS["factorized"], ms=4, mew=0, label=label)
    ax.set(xscale="log", ylim=(0.15, 1.04), xlabel="told over untold subjects, $m_{train}/m_{test}$")
    named = {key.removesuffix("/1"): ratio for key, ratio in fractions.items() if key != "1/3"}
    ax.set_xticks([*named.values()], [*named])  # 1/3 would be too near to 1/4
    ax.minorticks_off()
    ax.legend(frameon=False, loc="lower right", fontsize=7)
    ax.set_title("at every ratio of the groups", loc="left")


PATH_DRAWING = Drawing(
    "From a tiny start descent begins in the leading direction of the loss, and then does not follow the "
    "minimisers with a penalty",
    draw_path,
)
