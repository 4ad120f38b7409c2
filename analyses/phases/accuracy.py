"""Phase diagrams of held-out accuracy: over the start's size, noise, attention, pairs, penalty and groups.

Each is drawn from the numbers of its JSON, which has more columns than the picture shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D

from analyses.house.drawing import WIDTH, Drawing
from analyses.house.looks import COLORS, NAMES
from analyses.phases.grids import NOISY, OV_KINDS, SMALL
from analyses.phases.panels import MARKERS, draw_map, power

Cell = dict[str, Any]


def draw_entries(numbers: dict[str, Any]) -> Picture:
    """Accuracy and β over the standard deviation of the start's entries; every seed is a mark."""
    (row,) = numbers.values()
    sizes = sorted({cell["entries"] for cell in row["cells"]})
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.7), layout="constrained")
    for ax, column in zip(axes, ("held_out/accuracy", "beta"), strict=True):
        _lines(ax, row["cells"], lambda cell: cell["entries"], sizes, column)
        powers = [f"$10^{{{round(np.log10(size))}}}$" if size < 0.02 else f"{size:.1g}" for size in sizes]
        ax.set_xticks(range(len(sizes)), powers)
        ax.set_xlabel("standard deviation of the entries at the start")
    _accuracy_axis(axes[0], SMALL.n_pairs)
    axes[1].axhline(0, color="0.8", lw=0.8, zorder=0)
    axes[1].set_ylabel("held-out coefficient β")
    _legend(fig)
    return fig


def draw_attention(numbers: dict[str, Any]) -> Picture:
    """Accuracy with linear and softmax attention, over noise tokens and with attention frozen or trained."""
    linear, softmax, kinds = numbers.values()
    fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.7), sharey=True, layout="constrained")
    for ax, row, name in ((axes[0], linear, "linear"), (axes[1], softmax, "softmax")):
        values = sorted({cell["noise_tokens"] for cell in row["cells"]})
        _lines(ax, row["cells"], lambda cell: cell["noise_tokens"], values, "held_out/accuracy")
        ax.set_xticks(range(len(values)), [str(value) for value in values])
        ax.set_xlabel("noise tokens per prompt")
        ax.set_title(f"paper's recipe, {name}", loc="left")
    ways = [(attention, trained) for attention in ("linear", "softmax") for trained in (False, True)]
    _lines(
        axes[2],
        kinds["cells"],
        lambda cell: (cell["attention"], cell["train_attention"]),
        ways,
        "held_out/accuracy",
        joined=False,
    )
    axes[2].set_xticks(range(4), [f"{a}\n{'trained' if t else 'frozen'}" for a, t in ways], fontsize=6.5)
    axes[2].set_title("gradient descent, no noise", loc="left")
    for ax, task in zip(axes, (NOISY, NOISY, SMALL), strict=True):
        _accuracy_axis(ax, task.n_pairs)
    for ax in axes[1:]:
        ax.set_ylabel("")
    _legend(fig)
    return fig


def draw_pairs(numbers: dict[str, Any]) -> Picture:
    """Accuracy by both recipes over the number of pairs."""
    fig, axes = _two_recipes(numbers, "n_pairs", ("number of pairs", "number of pairs"), str)
    for ax, row in zip(axes, numbers.values(), strict=True):
        values = sorted({cell["n_pairs"] for cell in row["cells"]})
        ax.plot(range(len(values)), [1 / n for n in values], color="0.5", lw=0.9, ls=":", zorder=0)
    _legend(fig)
    return fig


def draw_decay(numbers: dict[str, Any]) -> Picture:
    """Accuracy by both recipes over the penalty or the weight decay."""
    fig, axes = _two_recipes(numbers, "weight_decay", ("L2 penalty λ", "weight decay"), power)
    for ax, task in zip(axes, (SMALL, NOISY), strict=True):
        ax.axhline(1 / task.n_pairs, color="0.5", lw=0.9, ls=":", zorder=0)
    _legend(fig, hollow=True)
    return fig


def draw_groups(numbers: dict[str, Any]) -> Picture:
    """Accuracy of both models over the sizes of the groups, median over seeds."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.0), sharey=True, layout="constrained")
    table = pd.DataFrame(numbers["cells"])
    table = table.assign(accuracy=table["held_out/accuracy"].map(np.median), fitted=table["fitted"].map(all))
    image: Any = None
    for ax, ov in zip(axes, OV_KINDS, strict=True):
        mine = table.loc[table["ov"] == ov]
        accuracy, fitted = (
            mine.pivot(index="m_train", columns="m_test", values=name) for name in ("accuracy", "fitted")
        )
        image = draw_map(ax, accuracy, fitted, "", fontsize=8)
        guessing = f" (guessing: {1 / SMALL.n_pairs:.2f})" if ov == "non_factorized" else ""
        ax.set_title(NAMES[ov] + guessing, loc="left")
        ax.set_xlabel("untold subjects per pair, $m_{test}$")
    axes[0].set_ylabel("told subjects per pair, $m_{train}$")
    fig.colorbar(image, ax=axes, shrink=0.9, pad=0.02, label="held-out accuracy, median of 3 seeds")
    return fig


def _two_recipes(
    numbers: dict[str, Any], x: str, xlabels: Sequence[str], label: Callable[[Any], str]
) -> tuple[Picture, Sequence[Axes]]:
    """A panel per recipe, the theory's and the paper's, over the values of a column."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.9), sharey=True, layout="constrained")
    titles = ("gradient descent, no noise", "paper's recipe: AdamW, noise")
    for ax, row, xlabel, title in zip(axes, numbers.values(), xlabels, titles, strict=True):
        values = sorted({cell[x] for cell in row["cells"]})
        _lines(ax, row["cells"], lambda cell: cell[x], values, "held_out/accuracy")
        ax.set_xticks(range(len(values)), [label(value) for value in values])
        ax.set(xlabel=xlabel, ylim=(-0.05, 1.05))
        ax.set_title(title, loc="left")
    axes[0].set_ylabel("held-out accuracy")
    return fig, axes


def _lines(
    ax: Axes,
    cells: Sequence[Cell],
    place: Callable[[Cell], Any],
    values: Sequence[Any],
    column: str,
    joined: bool = True,
) -> None:
    """Both kinds of model: medians over seeds, joined if the values have an order, and every seed."""
    for shift, ov in zip((-0.08, 0.08), OV_KINDS, strict=True):
        found = {place(cell): cell for cell in cells if cell["ov"] == ov}
        at = np.arange(len(values)) + shift
        if joined:
            ax.plot(at, [np.median(found[value][column]) for value in values], color=COLORS[ov], lw=1.3)
        for x, value in zip(at, values, strict=True):
            for number, fitted in zip(found[value][column], found[value]["fitted"], strict=True):
                face = COLORS[ov] if fitted else "none"
                ax.plot(x, number, MARKERS[ov], ms=4, color=COLORS[ov], mfc=face, alpha=0.8)
    ax.set_xlim(-0.5, len(values) - 0.5)


def _accuracy_axis(ax: Axes, n_pairs: int) -> None:
    """An axis of accuracy, with that of guessing among the implications."""
    ax.axhline(1 / n_pairs, color="0.5", lw=0.9, ls=":", zorder=0)
    ax.set(ylim=(-0.05, 1.05), ylabel="held-out accuracy")


def _legend(fig: Picture, hollow: bool = False) -> None:
    """Below the panels; with hollow marks, if some run did not fit, in the place of the longer names."""
    handles = [
        Line2D(
            *([], []),
            color=COLORS[ov],
            marker=MARKERS[ov],
            ms=4,
            label=NAMES[ov] if hollow else f"{NAMES[ov]} (a mark per seed)",
        )
        for ov in OV_KINDS
    ]
    if hollow:
        name = "training set not fitted"
        handles.append(
            Line2D([], [], color=COLORS["non_factorized"], marker="s", mfc="none", ls="", label=name)
        )
    handles.append(Line2D([], [], color="0.5", lw=0.9, ls=":", label="guessing"))
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


ENTRIES_DRAWING = Drawing(
    "The factorized model deduces from small starts and not from large ones, though every run fits its "
    "training set",
    draw_entries,
)
ATTENTION_DRAWING = Drawing(
    "Noise and the kind of attention do not decide: the factorized model deduces, the other does not",
    draw_attention,
)
PAIRS_DRAWING = Drawing(
    "With 2 to 40 pairs the factorized model deduces, the other one is silent or guesses", draw_pairs
)
DECAY_DRAWING = Drawing(
    "No weight decay is needed: with 0 to 0.1 the factorized model deduces, the other one is silent or "
    "guesses",
    draw_decay,
)
GROUPS_DRAWING = Drawing(
    "With any told share the factorized model deduces, and with none it does not; the other model never does",
    draw_groups,
)
