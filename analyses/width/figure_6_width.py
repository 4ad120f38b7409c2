"""Figure 6: held-out implications against the width d_h of the OV circuit, every width from 1 to 8 and on.

The paper's task and recipe, five seeds. The paper reports that it works from d_h = 4 and fails at 3. The
companion figure_6_step studies this step: what a narrow circuit could express, single changes of the recipe
at d_h = 3, and the step for other numbers of pairs.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analyses.house.figure import Figure
from analyses.house.looks import COLORS
from analyses.house.reproduce import main
from analyses.paper.runs import PAPER
from analyses.phases.panels import draw_map
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
from ocr_interp.viz.curves import plot_band
from ocr_interp.viz.style import HELD_OUT, figure_style, save_figure

LOSS, ACCURACY = "held_out_implication/loss", "held_out_implication/accuracy"
GUESSING = np.log(PAPER.n_implications)
TOLD = COLORS["non_factorized"]
EARLY = 1_000


def by_width(table: pd.DataFrame, column: str, step: int | None = None) -> dict[int, list[float]]:
    """The values of every seed at a step (None is the last), by width."""
    rows = table.loc[table["step"] == (table["step"].max() if step is None else step)]
    return {width: rows.loc[rows["d_head"] == width, column].tolist() for width in WIDTHS}


def draw_curves(axes: np.ndarray, table: pd.DataFrame) -> None:
    """Training loss, held-out loss and accuracy against the step; dark: narrow."""
    colors = dict(zip(WIDTHS, plt.get_cmap("viridis")(np.linspace(0, 0.95, len(WIDTHS))), strict=True))
    titles = {
        "train_loss": "Training loss",
        LOSS: "Held-out implication loss",
        ACCURACY: "Held-out implication accuracy",
    }
    for ax, (column, title) in zip(axes, titles.items(), strict=True):
        for width in WIDTHS:
            mine = table.loc[table["d_head"] == width]
            seeds = [run for _, run in mine.groupby("seed")]
            plot_band(ax, seeds, column, colors[width], str(width), lw=1.5)
        ax.set(xscale="log", xlabel="training step", ylabel="nats" if column != ACCURACY else "share right")
        ax.set_title(title, loc="left")
        ax.legend().remove()
        if column != ACCURACY:
            ax.set(yscale="log", ylim=(1e-8, 200))
            ax.axhline(GUESSING, color="0.4", ls=":", lw=1.2)
    axes[0].legend(title="$d_h$", frameon=False, ncols=2, fontsize=8, loc="lower left")


def draw_points(ax: Axes, values: dict[int, list[float]], color: str, label: str, marker: str = "o") -> None:
    """Every seed against the width, with the median."""
    place = np.arange(len(WIDTHS))
    for k, seeds in zip(place, values.values(), strict=True):
        ax.plot(
            k + np.linspace(-0.12, 0.12, len(seeds)), seeds, marker, ms=3.5, color=color, alpha=0.7, mew=0
        )
    ax.plot(
        place,
        [np.median(seeds) if seeds else np.nan for seeds in values.values()],
        color=color,
        lw=1.4,
        label=label,
    )


def draw_ends(axes: np.ndarray, table: pd.DataFrame) -> None:
    """Values at the end against the width: losses, accuracy, and the norm at margin 1 with the margin."""
    loss, accuracy, margin = axes
    draw_points(loss, by_width(table, LOSS), HELD_OUT, "held-out implications")
    draw_points(loss, by_width(table, "train_loss"), TOLD, "training", "s")
    loss.axhline(GUESSING, color="0.4", ls=":", lw=1.2)
    loss.text(len(WIDTHS) - 0.6, GUESSING * 1.3, "guessing: ln 20", ha="right", color="0.3", fontsize=9)
    loss.set(yscale="log", ylabel="nats")
    loss.set_title("Loss at the end", loc="left")
    draw_points(accuracy, by_width(table, ACCURACY), HELD_OUT, "held-out implications")
    draw_points(accuracy, by_width(table, "training_implication/accuracy"), TOLD, "told implications", "s")
    early = by_width(table, ACCURACY, EARLY)
    accuracy.plot(
        [np.median(seeds) for seeds in early.values()],
        ls=(0, (2, 2)),
        color=HELD_OUT,
        label=f"{EARLY:,} steps",
    )
    accuracy.set_ylabel("share right")
    accuracy.set_title("Accuracy at the end (dashed: early)", loc="left")
    fitted = table.loc[(table["step"] == table["step"].max()) & (table["train_margin"] > 0)]
    ratio = fitted.assign(ratio=fitted["held_out_margin"] / fitted["train_margin"])
    draw_points(margin, by_width(ratio, "ratio"), HELD_OUT, "smallest held-out / training margin")
    draw_points(margin, by_width(ratio, "beta"), COLORS["factorized"], "β, a mean over subjects", "s")
    margin.axhline(0, color="0.4", ls=":", lw=1.2)
    margin.axvspan(-0.5, WIDTHS.index(STEP_WIDTH) - 0.5, fc="none", ec="0.7", hatch="////", lw=0)
    margin.text(0.5, 0.5, "not fitted", ha="center", va="center", backgroundcolor="white", fontsize=9)
    margin.set_title("Mean and worst case (fitted models)", loc="left")
    for ax in axes:
        ax.set_xticks(range(len(WIDTHS)), [str(width) for width in WIDTHS])
        ax.set(xlabel="width $d_h$", xlim=(-0.5, len(WIDTHS) - 0.5))
        ax.legend(frameon=False, fontsize=8.5, loc="best" if ax is loss else "lower right")


def width_figure(table: pd.DataFrame, path: Path) -> None:
    """Curves above, ends below."""
    with figure_style():
        fig, axes = plt.subplots(2, 3, figsize=(13.5, 7.6), layout="constrained")
        draw_curves(axes[0], table)
        draw_ends(axes[1], table)
        shown = ("train_loss", LOSS, ACCURACY, "training_implication/accuracy", "train_margin")
        shown += ("held_out_margin", "beta", "excess_nuclear", "held_out_implication/accuracy_in_set")
        steps = [100, 300, EARLY, 3_000, 10_000, 20_000]
        numbers = {
            "guessing": GUESSING,
            "by_step": {
                str(step): {column: by_width(table, column, step) for column in shown} for step in steps
            },
        }
        save_figure(fig, path, numbers)


def draw_code(ax: Axes, code: PlanarCode) -> None:
    """The code of width 2: answers on the circle, subject + relation beyond them."""
    n = PAPER.n_facts
    for columns, color, label in ((slice(0, n), TOLD, "facts"), (slice(n, None), HELD_OUT, "implications")):
        ax.plot(*code.W_O[:, columns], "o", ms=5, color=color, label=label)
    place = code.W_V[: PAPER.n_subjects, 0]
    ax.plot(place, 0 * place, "|", color="0.2", ms=9, label="subjects (all of a pair in one place)")
    ax.plot([0, 0], [1, -1], "D", color=COLORS["factorized"], ms=6, label="$r_1$, $r_2$")
    for k in (3, 5, 7):
        x = code.W_V[4 * k, 0]
        for y in (1, -1):
            ax.annotate("", (x, y), (x, 0), arrowprops={"arrowstyle": "->", "color": "0.6", "lw": 0.8})
            ax.plot([0, x], [0, y], color="0.8", lw=0.7, zorder=0)
    ax.set(xlim=(-2.4, 2.4), ylim=(-2.1, 1.35), aspect="equal", xticks=[], yticks=[])
    ax.legend(frameon=False, fontsize=8, loc="lower left", ncols=2)
    ax.set_title("Width 2 could do it: a code, all answers right", loc="left")


def draw_variants(ax: Axes, found: dict[str, pd.DataFrame]) -> None:
    """Held-out accuracy of every seed by recipe, at the end and at its best."""
    for k, (name, end) in enumerate(reversed(found.items())):
        spread = k + np.linspace(-0.15, 0.15, len(end))
        fitted = end["train_margin"].to_numpy() > 0
        fill = [HELD_OUT if ok else "white" for ok in fitted]
        ax.scatter(end[ACCURACY], spread, s=26, c=fill, edgecolors=HELD_OUT, zorder=3)
        ax.plot([end[ACCURACY].median()] * 2, [k - 0.3, k + 0.3], color="0.2", lw=1.4)
        ax.text(1.06, k, f"{end[LOSS].median():.2g}", va="center", fontsize=9)
        if name == "paper's recipe":
            ax.axhspan(k - 0.5, k + 0.5, color="0.94", zorder=0, lw=0)
    ax.text(1.06, len(found) - 0.4, "loss", fontsize=9)
    ax.set_yticks(range(len(found)), list(reversed(found)))
    ax.set(
        xlim=(-0.03, 1.04), ylim=(-0.6, len(found) - 0.4), xlabel="held-out implication accuracy, every seed"
    )
    ax.set_title(f"One change at a time, $d_h$ = {STEP_WIDTH}", loc="left")


def draw_long(ax: Axes, found: dict[str, pd.DataFrame]) -> None:
    """Held-out accuracy far beyond the paper's steps."""
    colors = {3: HELD_OUT, 4: TOLD, 5: COLORS["factorized"], 128: "0.15"}
    for name, table in found.items():
        color = colors[int(table["d_head"].iloc[0])]
        style = "-" if table["weight_decay"].iloc[0] else (0, (4, 2))
        seeds = [run for _, run in table.groupby("seed")]
        plot_band(ax, seeds, ACCURACY, color, name, lw=1.6, linestyle=style)
    ax.axvline(RECIPE.steps, color="0.4", ls=":", lw=1.2)
    ax.text(RECIPE.steps * 0.95, 0.03, "the paper's steps", rotation=90, ha="right", color="0.3", fontsize=9)
    ax.set(
        xscale="log", xlim=(100, LONG_STEPS), ylim=(-0.03, 1.04), xlabel="training step", ylabel="share right"
    )
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.3, 0.0), fontsize=8.5)
    ax.set_title("Held-out accuracy in longer training", loc="left")


def step_figure(
    code: PlanarCode,
    found: dict[str, pd.DataFrame],
    longer: dict[str, pd.DataFrame],
    by_pairs: pd.DataFrame,
    path: Path,
) -> None:
    """Capacity, time, recipe, number of pairs."""
    with figure_style():
        fig, axes = plt.subplots(2, 2, figsize=(12, 8.4), layout="constrained")
        draw_code(axes[0, 0], code)
        draw_long(axes[0, 1], longer)
        draw_variants(axes[1, 0], found)
        end = by_pairs.loc[by_pairs["step"] == PAIRS_STEPS].assign(fitted=by_pairs["train_margin"] > 0)
        options = {"index": "n_pairs", "columns": "d_head"}
        accuracy = end.pivot_table(values=ACCURACY, aggfunc="mean", **options)
        fitted = end.pivot_table(values="fitted", aggfunc="min", **options)
        title = f"Held-out accuracy, {PAIRS_STEPS:,} steps (hatched: a seed is not fitted)"
        draw_map(axes[1, 1], accuracy, fitted, title)
        axes[1, 1].set(xlabel="width $d_h$", ylabel="pairs n")
        columns = ["seed", "train_loss", "train_margin", LOSS, ACCURACY]
        thinned = {name: table.loc[table["step"] % 5_000 == 0] for name, table in longer.items()}
        numbers = {
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
        save_figure(fig, path, numbers)


def with_config(found: SweepResult) -> pd.DataFrame:
    """The table with the columns width and weight decay."""
    columns = ["run", *(name for name in ("d_head", "weight_decay", "seed") if name not in found.table)]
    return found.table.merge(found.runs[columns], on="run", validate="many_to_one")


def make(runs: Path, figures: Path) -> tuple:
    found = widths(runs)
    width_figure(found.table, figures / "figure_6_width")
    recipes = {"paper's recipe": found.select(d_head=STEP_WIDTH).final()}
    recipes |= {name: result.final() for name, result in variants(runs).items()}
    longer = {name: with_config(result) for name, result in long(runs).items()}
    code, by_pairs = planar_code(PAPER), pairs(runs).table
    step_figure(code, recipes, longer, by_pairs, figures / "figure_6_step")
    return found.final(), recipes, longer, by_pairs, code


FIGURE = Figure(
    pictures=("figure_6_width", "figure_6_step"),
    draw=make,
    claims=lambda measured: width_claims.claims(*measured),
    cost="slow",
)


if __name__ == "__main__":
    main()
