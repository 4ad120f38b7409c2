"""Table 1 as a picture, ranks by step and learning rates of the language models, from finished runs' JSONs.

Nothing is trained here: `python -m analyses.llm.table_1` makes the missing runs, which takes hours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import NullFormatter

from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.llm.finished import claims as llm_claims
from analyses.llm.finished import optimizers as figure_llm_optimizers
from analyses.llm.finished import table
from analyses.llm.finished import updates as figure_llm_updates
from analyses.llm.finished.criteria import FITTED
from analyses.llm.finished.results import (
    CHANCE,
    COLORS,
    NAMES,
    RATES,
    Group,
    Kind,
    of_all_rates,
    read_groups,
)
from ocr_interp.viz.style import figure_style, save_figure

PICTURES = ("table_1_llm", "llm_rank_by_step", "llm_learning_rate", "llm_optimizers", "llm_ov_updates")


def draw_steps(groups: dict[Kind, Group], figures: Path) -> None:
    """Mean ranks against steps for all data sets: facts, told and held-out implications."""
    columns = {
        "held_out_fact/rank": "facts (told)",
        "training_implication/rank": "implications, told",
        "held_out_implication/rank": "implications, never told",
    }
    fig, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharey=True)
    numbers: dict[str, Any] = {}
    for data, name in NAMES.items():
        group = groups.get(Kind(data))
        if group is None:
            continue
        for ax, column in zip(axes, columns, strict=True):
            steps, curves = group.curve(column)
            ax.plot(steps, curves.T, color=COLORS[data], lw=0.7, alpha=0.45)
            ax.plot(steps, curves.mean(0), color=COLORS[data], lw=2, label=name)
            numbers.setdefault(data, {"step": steps, "seeds": group.seeds})[column] = curves
    for ax, title in zip(axes, columns.values(), strict=True):
        ax.axhline(CHANCE, color="#555555", lw=0.8, ls="--")
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("step")
    axes[0].set_ylabel("mean rank (0 is best)")
    fig.tight_layout()
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(
        handles, labels, frameon=False, fontsize=9, ncol=3, loc="upper center", bbox_to_anchor=(0.5, 0)
    )
    save_figure(fig, figures / "llm_rank_by_step", numbers)
    plt.close(fig)


def draw_rates(groups: dict[Kind, Group], figures: Path) -> None:
    """Which of generalization and hallucination is robust to the learning rate; hollow: facts not known."""
    fig, ax = plt.subplots(figsize=(6.0, 4.2))
    numbers = []
    for data, found in of_all_rates(groups, ("city_language", "city_language_counterfactual")).items():
        rows, color = [group.numbers() for group in found], COLORS[data]
        numbers += [
            row | {"fact_rank_by_seed": group.by_seed("held_out_fact")}
            for row, group in zip(rows, found, strict=True)
        ]
        side = 1.04 if data == "city_language" else 1 / 1.04  # so that the two sets' points are apart
        x = np.array(RATES) * side
        for k in range(len(rows[0]["seeds"])):
            ranks = np.array([row["by_seed"][k] for row in rows])
            known = np.array([group.by_seed("held_out_fact")[k] <= FITTED for group in found])
            ax.plot(x, ranks, "-", color=color, lw=0.8, alpha=0.6)
            ax.plot(x[known], ranks[known], "o", color=color, ms=5)
            ax.plot(x[~known], ranks[~known], "o", color=color, mfc="white", ms=5)
        ax.plot(x, [row["held_out_rank"] for row in rows], "-", color=color, lw=2.4, label=NAMES[data])
        control = groups.get(Kind(data, control="facts_only"))
        if control is not None:
            numbers.append(control.of_seeds(set(rows[0]["seeds"])).numbers())
            rank = numbers[-1]["held_out_rank"]
            ax.plot([RATES[1]], [rank], "v", mfc="white", color=color, ms=9, label="its facts only (mean)")
    seed = {"color": "#555555", "lw": 0.8, "ms": 5}
    ax.plot([], [], "o-", **seed, label="a seed, told facts known")
    ax.plot([], [], "o-", **seed, mfc="white", label=f"told facts not known (rank > {FITTED})")
    ax.axhline(CHANCE, color="#555555", lw=0.8, ls="--")
    ax.text(5.4e-5, CHANCE + 0.03, "chance", ha="center", va="bottom", fontsize=9, color="#555555")
    ax.set_xscale("log")
    ax.set_xticks(RATES, ["3e-5", "1e-4", "3e-4"])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(-0.1, 2.6)
    ax.set_xlabel("learning rate (full, AdamW, batch 8)")
    ax.set_ylabel("mean rank of held-out implications")
    handles, labels = ax.get_legend_handles_labels()
    if len(handles) == 6:  # one column per data set
        handles, labels = ([of[k] for k in (0, 1, 4, 2, 3, 5)] for of in (handles, labels))
    ax.legend(
        handles, labels, frameon=False, fontsize=8.5, ncol=2, loc="upper center", bbox_to_anchor=(0.5, -0.15)
    )
    save_figure(fig, figures / "llm_learning_rate", {"rows": numbers})
    plt.close(fig)


def make(runs: Path, figures: Path) -> dict[Kind, Group]:
    """Draws the finished runs; `runs` is not used, since these runs keep no weights."""
    groups = read_groups()
    with figure_style():
        table.DRAWING.write(figures / table.PICTURE, table.numbers_of(groups))
        for draw in (draw_steps, draw_rates):
            draw(groups, figures)
        figure_llm_optimizers.draw(groups, figures)
        figure_llm_updates.draw(groups, figures)
    count = sum(len(group.results) for group in groups.values())
    print(f"language models: {count} finished runs drawn from their JSONs; analyses.llm.table_1 makes more")
    return groups


FIGURE = Figure(
    pictures=PICTURES, draw=make, claims=llm_claims.claims, drawings={table.PICTURE: table.DRAWING}
)


if __name__ == "__main__":
    main()
