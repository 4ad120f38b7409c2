"""Phase diagrams: when does a model reason out of context? Each beside the prediction, where there is one.

Over the sizes of the groups, the number of pairs, the start's entries, the penalty, the attention and the
noise; which recipe (that of the theory or that of the paper) is written above every row. Values after a
finite number of steps, with the certified gap that was reached: they are not those of the max-margin
solution, and for m_train < m_test descent goes to a saddle instead (analyses/saddle). Cells whose
training set is not fitted are no evidence and look so. Takes about a quarter of an hour of one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analyses.house.figure import Figure
from analyses.house.looks import COLORS, NAMES
from analyses.house.reproduce import main
from analyses.phases import claims as phase_claims
from analyses.phases import grids as phase_grids
from analyses.phases.accuracy import ATTENTION_DRAWING, ENTRIES_DRAWING
from analyses.phases.grids import DECAYS, ENTRIES, PENALTIES, SMALL, at_the_end
from analyses.phases.panels import SHOWN, Row, cells, draw_map, draw_row, legend_handles, with_gap
from analyses.phases.penalised import PenalisedOptimum, first_beta, leading_beta, penalised_optimum
from ocr_interp import solve
from ocr_interp.theory import saddle_solution, trained_attention_beta_interval
from ocr_interp.viz.style import figure_style, save_figure

BETA = solve(SMALL).beta
SADDLE = saddle_solution(SMALL, inputs="eos").beta
MAX_MARGIN = {"factorized": BETA, "non_factorized": 0.0}
THEORY = "Theory's recipe: full-batch gradient descent, no noise, frozen attention"
PAPER = "Paper's recipe: AdamW, noisy batches, trained attention"
PATH_PENALTIES = (0.05, 0.03, *(10.0 ** (-k / 2) for k in range(4, 17)))
FIRST_GROUPS = ((1, 8), (1, 4), (1, 3), (1, 2), (1, 1), (2, 1), (4, 1), (8, 1))
LEADING = "#029e73"
PICTURES = ("phase_groups", "phase_pairs", "phase_entries", "phase_path", "phase_decay", "phase_attention")


TITLES = {
    "phase_groups": (
        "With any told share the factorized model deduces, and with none it does not; the other "
        "model never does"
    ),
    "phase_pairs": "With 2 to 40 pairs the factorized model deduces, the other one is silent or guesses",
    "phase_path": (
        "Descent starts along the leading direction of the loss, and does not follow the "
        "minimisers with a penalty"
    ),
    "phase_decay": (
        "No weight decay is needed: with 0 to 0.1 the factorized model deduces, the other one guesses"
    ),
}
"""The sentence of every picture that is drawn here."""


def power(value: float) -> str:
    """A power of ten, or a short number."""
    exponent = np.log10(value) if value > 0 else 0.5
    exact = abs(exponent - round(exponent)) < 1e-9 and abs(exponent) > 1.5
    short = f"{value:.0e}".replace("e-0", "e-") if 0 < value < 0.01 else f"{value:g}"
    return f"$10^{{{round(exponent)}}}$" if exact else short


def constant(n: int) -> dict[str, list[float]]:
    """The predicted β of both models, repeated n times."""
    return {ov: [value] * n for ov, value in MAX_MARGIN.items()}


def rows_figure(rows: Sequence[Row], path: Path, by: Sequence[Sequence[str]]) -> None:
    """Rows of panels below one another, with the numbers of every cell."""
    with figure_style():
        fig, axes = plt.subplots(
            len(rows), len(SHOWN), figsize=(15.5, 3.0 * len(rows) + 0.6), layout="constrained", squeeze=False
        )
        for line, row in zip(axes, rows, strict=True):
            draw_row(line, row)
        fig.legend(
            handles=legend_handles(rows, "a tenth of the steps"),
            loc="outside lower center",
            ncols=6,
            frameon=False,
        )
        save_figure(fig, path, {"title": TITLES[path.name], **row_numbers(rows, by)})


def row_numbers(rows: Sequence[Row], by: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The numbers of every cell of some rows, and the predicted β."""
    return {
        f"{k}: {row.title}": {"predicted_beta": dict(row.beta), "cells": cells(row.table, columns)}
        for k, (row, columns) in enumerate(zip(rows, by, strict=True))
    }


def groups_figure(table: pd.DataFrame, path: Path) -> None:
    """Heat maps over the sizes of the groups: predicted, margins, β, accuracy, certified gap."""
    end = with_gap(at_the_end(table))
    sizes = sorted({(int(a), int(b)) for a, b in zip(end["m_train"], end["m_test"], strict=True)})
    predicted = pd.DataFrame({"m_train": [a for a, _ in sizes], "m_test": [b for _, b in sizes]})
    predicted["value"] = np.minimum(np.sqrt(predicted["m_train"] / predicted["m_test"]), 1)
    columns = {
        "margin_ratio": "held-out / training margin",
        "beta": "coefficient β",
        "held_out/accuracy": "held-out accuracy",
        "gap": "certified gap to the smallest norm",
    }
    with figure_style():
        fig, axes = plt.subplots(2, 5, figsize=(15.5, 6.2), layout="constrained", sharex=True, sharey=True)
        for line, ov in zip(axes, COLORS, strict=True):
            mine = end.loc[end["ov"] == ov]
            solved = predicted.assign(value=predicted["value"] if ov == "factorized" else 0.0)
            draw_map(line[0], solved.pivot(index="m_train", columns="m_test", values="value"), None, "")
            fitted = mine.pivot_table(index="m_train", columns="m_test", values="fitted", aggfunc="min")
            image: Any = None
            for ax, (column, title) in zip(line[1:], columns.items(), strict=True):
                values = mine.pivot_table(
                    index="m_train", columns="m_test", values=column, aggfunc="median", dropna=False
                )
                drawn = draw_map(ax, values, fitted, "" if ov == "non_factorized" else title)
                image = drawn if column == "held_out/accuracy" else image
            line[0].set_title(f"{NAMES[ov]}: max-margin solution", loc="left", fontsize=10)
            line[0].set_ylabel("told subjects a pair, $m_{train}$")
            fig.colorbar(image, ax=line, shrink=0.8, pad=0.01)
        for ax in axes[1]:
            ax.set_xlabel("untold subjects a pair, $m_{test}$")
        steps = int(end["steps"].iloc[0])
        fig.suptitle(
            f"{THEORY}; {SMALL.n_pairs} pairs, {steps:,} steps, median of 3 seeds", x=0.01, ha="left"
        )
        numbers = {"title": TITLES[path.name], "predicted": predicted.to_dict("list")}
        save_figure(fig, path, {**numbers, "cells": cells(table, ("m_train", "m_test"))})


def path_figure(
    table: pd.DataFrame, groups: pd.DataFrame, path: Path
) -> tuple[dict[str, list[PenalisedOptimum]], dict[str, PenalisedOptimum]]:
    """β from the leading direction on: along the penalty's path to the max-margin one, and under descent."""
    optima = {ov: [penalised_optimum(SMALL, ov, p) for p in PATH_PENALTIES] for ov in COLORS}
    firsts = {f"{a}/{b}": first_beta(replace(SMALL, m_train=a, m_test=b)) for a, b in FIRST_GROUPS}
    with figure_style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(12.5, 4.8), layout="constrained")
        numbers = draw_path(left, table, optima) | draw_ratios(right, groups, firsts)
        save_figure(fig, path, {"title": TITLES[path.name], **numbers})
    return optima, firsts


def draw_path(ax: Axes, table: pd.DataFrame, optima: dict[str, list[PenalisedOptimum]]) -> dict[str, object]:
    """β against the training loss: descent without a penalty beside the exact path of the penalty."""
    shown: dict[str, object] = {}
    for ov, found in optima.items():
        loss, beta = [o.loss for o in found], [o.beta for o in found]
        ax.plot(loss, beta, "D-", color="0.15", lw=1.4, ms=4, zorder=1)
        shown[f"{ov}/penalised"] = {"penalty": PATH_PENALTIES, "loss": loss, "beta": beta}
    for size, style in ((1e-4, ":"), (1e-3, "-."), (1e-2, "-"), (0.03, (0, (5, 1))), (0.1, (0, (3, 2)))):
        near = table.loc[np.isclose(table["entries"], size) & (table["step"] > 0)]
        for ov in COLORS:
            run = near.loc[near["ov"] == ov].groupby("step")[["train_loss", "beta"]].median()
            label = f"descent, entries {power(size)}" if ov == "factorized" else None
            ax.plot(run["train_loss"], run["beta"], ls=style, color=COLORS[ov], lw=1.6, label=label)
            shown[f"{ov}/entries {size:g}"] = run.to_dict("list")
    for value, text in (
        (BETA, "max-margin solution √(1/3)"),
        (leading_beta(1, 3), "leading direction"),
        (SADDLE, "saddle"),
    ):
        ax.axhline(value, color="0.5", ls=(0, (1, 1.2)), lw=1.2, zorder=0)
        ax.text(1.1e-7, value + 0.012, text, ha="right", color="0.3", fontsize=9)
    ax.plot([], [], "D-", color="0.15", ms=4, label="exact minimisers, penalty λ → 0")
    ax.set(xscale="log", xlim=(3, 1e-7), xlabel="training loss (nats), training goes to the right")
    ax.set(ylabel=SHOWN["beta"], ylim=(-0.06, 0.87))
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(0.0, 0.58), ncols=2, fontsize=9)
    ax.set_title("Penalised path and descent, $m_{train}/m_{test}$ = 1/3", loc="left")
    return shown


def draw_ratios(ax: Axes, groups: pd.DataFrame, firsts: dict[str, PenalisedOptimum]) -> dict[str, object]:
    """β over the ratio of the groups: first direction, after finite time, max-margin solution."""
    ratios = np.geomspace(1 / 10, 10, 100)
    ax.plot(ratios, [leading_beta(r, 1) for r in ratios], color=LEADING, lw=1.6, label="leading direction")
    ax.plot(
        ratios,
        np.minimum(np.sqrt(ratios), 1),
        color="0.15",
        ls=(0, (1, 1.2)),
        lw=1.6,
        label="max-margin solution",
    )
    fractions = [int(a) / int(b) for a, b in (key.split("/") for key in firsts)]
    first = [found.beta for found in firsts.values()]
    ax.plot(fractions, first, "D", color="0.15", ms=5, label="exact minimiser, first pair block")
    end = at_the_end(groups)
    end = end.loc[(end["ov"] == "factorized") & (end["m_train"] > 0)]
    ratio, beta = (end["m_train"] / end["m_test"]).astype(float), end["beta"]
    steps = int(end["steps"].iloc[0])
    label = f"descent, {steps:,} steps"
    ax.plot(ratio, beta, "o", color=COLORS["factorized"], ms=5, alpha=0.6, mew=0, label=label)
    shown = sorted({*fractions})
    ax.set(xscale="log", xlabel="told over untold subjects, $m_{train}/m_{test}$", ylabel=SHOWN["beta"])
    ax.set_xticks(shown, [f"1/{round(1 / r)}" if r < 1 else f"{r:g}" for r in shown])
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize=9)
    ax.set_title("First direction, descent, max-margin solution", loc="left")
    return {
        "firsts": {key: {"beta": found.beta, "loss": found.loss} for key, found in firsts.items()},
        "descent": {"ratio": ratio.tolist(), "beta": beta.tolist(), "steps": steps},
    }


def attention_rows(tables: dict[str, pd.DataFrame]) -> list[Row]:
    """Noise tokens with both kinds of attention, and attention frozen or trained without noise."""
    noise, kinds = tables["noise"], tables["attentions"]
    kinds = kinds.assign(
        kind=kinds["attention"] + np.where(kinds["train_attention"], ", trained", ", frozen")
    )
    interval = trained_attention_beta_interval(SMALL)
    labels = {k: k.replace(", ", "\n") for k in ("linear, frozen", "linear, trained", "softmax, frozen")}
    undecided = (np.nan, np.nan)
    solved = [(BETA, BETA), interval, (BETA, BETA), undecided]
    theory = Row(
        kinds,
        "kind",
        "attention",
        "Full-batch gradient descent, no noise",
        {**labels, "softmax, trained": "softmax\ntrained"},
        {"factorized": solved},
        ordered=False,
    )
    xlabel = "noise tokens a sequence"
    return [
        *(
            Row(noise.loc[noise["attention"] == a], "noise_tokens", xlabel, f"{PAPER} ({a})")
            for a in ("linear", "softmax")
        ),
        theory,
    ]


def make(runs: Path, figures: Path) -> tuple[dict, dict, dict, dict]:
    tables = {name: phase_grids.trained(name, runs) for name in phase_grids.GRIDS}
    groups_figure(tables["groups"], figures / "phase_groups")
    n = len(phase_grids.PAIRS)
    pairs = [
        Row(tables["pairs"], "n_pairs", "pairs n", THEORY, beta=constant(n)),
        Row(tables["pairs_paper"], "n_pairs", "pairs n", PAPER),
    ]
    rows_figure(pairs, figures / "phase_pairs", [("n_pairs",)] * 2)
    table = tables["entries"]
    sizes = sorted(table["entries"].unique())
    ticks = {found: power(size) for found, size in zip(sizes, ENTRIES, strict=True)}
    row = Row(
        table,
        "entries",
        "std of the entries at the start",
        THEORY,
        ticks,
        constant(len(ticks)),
    )
    ENTRIES_DRAWING.write(figures / "phase_entries", row_numbers([row], [("entries",)]))
    optima, firsts = path_figure(table, tables["groups"], figures / "phase_path")
    exact = {
        ov: [penalised_optimum(SMALL, ov, p).beta if p else MAX_MARGIN[ov] for p in PENALTIES]
        for ov in COLORS
    }
    decays = [
        Row(
            tables["penalties"],
            "weight_decay",
            "L2 penalty λ",
            THEORY,
            {p: power(p) for p in PENALTIES},
            exact,
        ),
        Row(tables["decays"], "weight_decay", "weight decay", PAPER, {p: power(p) for p in DECAYS}),
    ]
    rows_figure(decays, figures / "phase_decay", [("weight_decay",)] * 2)
    by = [("noise_tokens",), ("noise_tokens",), ("attention", "train_attention")]
    ATTENTION_DRAWING.write(figures / "phase_attention", row_numbers(attention_rows(tables), by))
    return tables, exact, optima, firsts


FIGURE = Figure(
    pictures=PICTURES,
    draw=make,
    claims=lambda measured: phase_claims.claims(*measured),
    cost="slow",
    drawings={"phase_entries": ENTRIES_DRAWING, "phase_attention": ATTENTION_DRAWING},
)


if __name__ == "__main__":
    main()
