"""Figure 6: held-out implications against the width d_h of the OV circuit, every width from 1 to 8 and on.

The paper's task and recipe, five seeds. The paper reports that it works from d_h = 4 and fails at 3. The
companion figure_6_step studies this step: what a narrow circuit could express, single changes of the recipe
at d_h = 3, and the step for other numbers of pairs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D

from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.looks import COLORS, draw_seeds
from analyses.house.reproduce import main
from analyses.paper.runs import PAPER
from analyses.width import claims as width_claims
from analyses.width.narrow_code import PlanarCode, planar_code
from analyses.width.runs import (
    LONG_STEPS,
    PAIRS_STEPS,
    RECIPE,
    STEP_WIDTH,
    WIDTHS,
    long,
    pairs,
    variants,
    widths,
)
from ocr_interp import SweepResult
from ocr_interp.viz.style import HELD_OUT

LOSS, ACCURACY = "held_out_implication/loss", "held_out_implication/accuracy"
GUESSING = np.log(PAPER.n_implications)
TOLD = COLORS["non_factorized"]


def by_width(table: pd.DataFrame, column: str, step: int) -> dict[int, list[float]]:
    """The values of every seed at a step, by width."""
    rows = table.loc[table["step"] == step]
    return {width: rows.loc[rows["d_head"] == width, column].tolist() for width in WIDTHS}


def width_numbers(table: pd.DataFrame) -> dict[str, Any]:
    """Losses, accuracies, margins and β of every seed by step and width."""
    shown = ("train_loss", LOSS, ACCURACY, "training_implication/accuracy", "train_margin")
    shown += ("held_out_margin", "beta", "excess_nuclear", "held_out_implication/accuracy_in_set")
    steps = [100, 300, 1_000, 3_000, 10_000, 20_000]
    return {
        "guessing": GUESSING,
        "by_step": {str(step): {column: by_width(table, column, step) for column in shown} for step in steps},
    }


def draw_widths(numbers: dict[str, Any]) -> Picture:
    """Accuracies of told and untold implications at the last step against the width, every seed."""
    end = numbers["by_step"][str(RECIPE.steps)]
    fig, ax = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
    ax.axvspan(-0.5, WIDTHS.index(STEP_WIDTH) - 0.5, color="0.93", lw=0)
    ax.text(-0.42, 0.97, "training set\nnot fitted", va="center", fontsize=8, color="0.3")
    draw_points(ax, end["training_implication/accuracy"], TOLD, "told", "s")
    draw_points(ax, end[ACCURACY], HELD_OUT, "never told")
    for width, (dx, dy) in {3: (0.3, -0.03), 4: (0.25, -0.07)}.items():
        values = end[ACCURACY][str(width)]
        ax.text(
            WIDTHS.index(width) + dx, np.mean(values) + dy, f"{np.mean(values):.2f} on average",
            color=HELD_OUT, fontsize=8, va="center",
        )  # fmt: skip
    ax.set_xticks(range(len(WIDTHS)), [str(width) for width in WIDTHS])
    ax.set(xlabel="width $d_h$ of the head", xlim=(-0.5, len(WIDTHS) - 0.5), ylim=(-0.04, 1.06))
    ax.set_ylabel("implications right, share")
    ax.legend(frameon=False, loc="lower right", title="implications")
    return fig


def draw_points(ax: Axes, values: dict[str, list[float]], color: str, label: str, marker: str = "o") -> None:
    """Every seed against the width, with the median."""
    place = np.arange(len(WIDTHS))
    for k, seeds in zip(place, values.values(), strict=True):
        spread = np.linspace(-0.12, 0.12, len(seeds))
        ax.plot(k + spread, seeds, marker, ms=3.5, color=color, alpha=0.7, mew=0)
    ax.plot(place, [np.median(seeds) for seeds in values.values()], color=color, lw=1.4, label=label)


def step_numbers(
    code: PlanarCode, found: dict[str, pd.DataFrame], longer: dict[str, pd.DataFrame], by_pairs: pd.DataFrame
) -> dict[str, Any]:
    """Capacity, recipe, time, number of pairs."""
    end = by_pairs.loc[by_pairs["step"] == PAIRS_STEPS]
    columns = ["seed", "train_loss", "train_margin", LOSS, ACCURACY]
    thinned = {name: table.loc[table["step"] % 5_000 == 0] for name, table in longer.items()}
    return {
        "code": {
            "W_V": code.W_V,
            "W_O": code.W_O,
            "smallest_margin": code.certificate.min_margin,
            "smallest_held_out_margin": float(code.certificate.held_out_margins_overall.min()),
        },
        "variants": {
            name: {column: rows[column].tolist() for column in columns} for name, rows in found.items()
        },
        "longer": {
            name: {column: rows[column].tolist() for column in ("step", *columns)}
            for name, rows in thinned.items()
        },
        "pairs": {name: end[name].tolist() for name in ("n_pairs", "d_head", *columns)},
    }


def draw_step(numbers: dict[str, Any]) -> Picture:
    """What a narrow circuit could express, and what moves the step: pairs, steps, no single change."""
    fig, axes = plt.subplots(2, 2, figsize=(WIDTH, 5.9), layout="constrained", width_ratios=(1, 1.1))
    draw_code(axes[0, 0], np.array(numbers["code"]["W_V"]), np.array(numbers["code"]["W_O"]))
    draw_pairs(axes[0, 1], pd.DataFrame(numbers["pairs"]))
    draw_variants(axes[1, 0], numbers["variants"])
    draw_long(axes[1, 1], {name: pd.DataFrame(of) for name, of in numbers["longer"].items()})
    return fig


def draw_code(ax: Axes, W_V: np.ndarray, W_O: np.ndarray) -> None:
    """The code of width 2: answers on the circle, subject + relation beyond them."""
    n = PAPER.n_facts
    for columns, color, label in ((slice(0, n), TOLD, "facts"), (slice(n, None), HELD_OUT, "implications")):
        ax.plot(*W_O[:, columns], "o", ms=4, color=color, label=label)
    place = W_V[: PAPER.n_subjects, 0]
    ax.plot(place, 0 * place, "|", color="0.2", ms=8, label="subjects")
    ax.plot([0, 0], [1, -1], "D", color=COLORS["factorized"], ms=5, label="relations")
    for k in (3, 5, 7):
        x = W_V[4 * k, 0]
        for y in (1, -1):
            ax.annotate("", (x, y), (x, 0), arrowprops={"arrowstyle": "->", "color": "0.6", "lw": 0.8})
            ax.plot([0, x], [0, y], color="0.8", lw=0.7, zorder=0)
    ax.set(xlim=(-1.9, 1.9), ylim=(-2.0, 1.25), aspect="equal", xticks=[], yticks=[])
    ax.legend(frameon=False, fontsize=7.5, loc="lower center", ncols=2, columnspacing=1, handletextpad=0.3)
    ax.set_title("not capacity: in a plane\nall answers can be right", loc="left", fontsize=9)


def draw_pairs(ax: Axes, end: pd.DataFrame) -> None:
    """Held-out accuracy against the width, a line per number of pairs; mean over seeds."""
    sizes = sorted(end["n_pairs"].unique())
    for n, color in zip(sizes, plt.get_cmap("viridis")(np.linspace(0.85, 0, len(sizes))), strict=True):
        mine = end.loc[end["n_pairs"] == n].groupby("d_head")
        accuracy, fitted = mine[ACCURACY].mean(), mine["train_margin"].min() > 0
        ax.plot(accuracy[fitted], "o-", color=color, ms=4, lw=1.6, label=str(n))
    ax.legend(frameon=False, title="pairs", loc="lower right")
    ax.set(xlabel="width $d_h$", ylim=(0, 1.05), xticks=sorted(end["d_head"].unique()))
    ax.set_ylabel("untold right, share", fontsize=8.5)
    ax.set_title("more pairs move it\n(fitted models)", loc="left", fontsize=9)


def draw_variants(ax: Axes, found: dict[str, dict[str, list[float]]]) -> None:
    """Held-out accuracy of every seed at width 3 by recipe."""
    for k, (name, end) in enumerate(reversed(found.items())):
        values = end[ACCURACY]
        fitted = np.array(end["train_margin"]) > 0
        fill = [HELD_OUT if ok else "white" for ok in fitted]
        spread = k + np.linspace(-0.15, 0.15, len(values))
        ax.scatter(values, spread, s=16, c=fill, edgecolors=HELD_OUT, zorder=3)
        ax.plot([np.median(values)] * 2, [k - 0.35, k + 0.35], color="0.2", lw=1.4)
        if name == "paper's recipe":
            ax.axhspan(k - 0.5, k + 0.5, color="0.93", zorder=0, lw=0)
    ax.set_yticks(range(len(found)), list(reversed(found)), fontsize=8)
    ax.set(xlim=(0, 1.02), ylim=(-0.6, len(found) - 0.4))
    ax.set_xlabel("untold right, share, every seed", fontsize=8.5)
    ax.set_title(f"no single change of the\nrecipe mends $d_h$ = {STEP_WIDTH}", loc="left", fontsize=9)


def draw_long(ax: Axes, found: dict[str, pd.DataFrame]) -> None:
    """Held-out accuracy far beyond the paper's steps."""
    colors = {3: HELD_OUT, 4: TOLD, 5: COLORS["factorized"], 128: "0.15"}
    for name, table in found.items():
        width = next(width for width in sorted(colors, reverse=True) if f"= {width}" in name)
        style = (0, (4, 2)) if "no decay" in name else "-"
        seeds = [run for _, run in table.groupby("seed")]
        values = [run[ACCURACY].tolist() for run in seeds]
        draw_seeds(ax, seeds[0]["step"].tolist(), values, colors[width], lw=1.6, linestyle=style, label=name)
    ax.axvline(RECIPE.steps, color="0.4", ls=":", lw=1.2)
    ax.text(RECIPE.steps + 700, 0.03, "the paper's\nsteps", color="0.3", fontsize=7.5)
    ax.set(xlim=(0, LONG_STEPS), ylim=(0, 1.05), xlabel="training step")
    ax.set_ylabel("untold right, share", fontsize=8.5)
    ax.set_xticks([0, 20_000, 40_000, 60_000])
    ax.xaxis.set_major_formatter("{x:,.0f}")
    handles = [Line2D([], [], color=color, lw=1.6, label=str(width)) for width, color in colors.items()]
    handles.append(Line2D([], [], color="0.3", lw=1.6, ls=(0, (4, 2)), label="no decay"))
    ax.legend(
        handles=handles,
        frameon=False,
        fontsize=7.5,
        loc="lower left",
        title="$d_h$",
        borderpad=0,
        handlelength=1.4,
    )
    ax.set_title("longer training loses\nwhat narrow models knew", loc="left", fontsize=9)


WIDTH_DRAWING = Drawing(
    "At 20 pairs untold implications need a head of width 4 to 5: at 3 the training set is fitted, "
    "but a quarter of them is wrong",
    draw_widths,
)
STEP_DRAWING = Drawing(
    "The step in width is not one of capacity: the number of pairs and the length of training move it",
    draw_step,
)


def with_config(found: SweepResult) -> pd.DataFrame:
    """The table with the columns width and weight decay."""
    columns = ["run", *(name for name in ("d_head", "weight_decay", "seed") if name not in found.table)]
    return found.table.merge(found.runs[columns], on="run", validate="many_to_one")


def make(runs: Path, figures: Path) -> tuple:
    found = widths(runs)
    WIDTH_DRAWING.write(figures / "figure_6_width", width_numbers(found.table))
    recipes = {"paper's recipe": found.select(d_head=STEP_WIDTH).final()}
    recipes |= {name: result.final() for name, result in variants(runs).items()}
    longer = {name: with_config(result) for name, result in long(runs).items()}
    code, by_pairs = planar_code(PAPER), pairs(runs).table
    STEP_DRAWING.write(figures / "figure_6_step", step_numbers(code, recipes, longer, by_pairs))
    return found.final(), recipes, longer, by_pairs, code


FIGURE = Figure(
    pictures=("figure_6_width", "figure_6_step"),
    draw=make,
    claims=lambda measured: width_claims.claims(*measured),
    cost="slow",
    drawings={"figure_6_width": WIDTH_DRAWING, "figure_6_step": STEP_DRAWING},
)


if __name__ == "__main__":
    main()
