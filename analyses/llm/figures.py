"""Table 1 as a picture, ranks by step and learning rates of the language models, from finished runs' JSONs.

Nothing is trained here: `python -m analyses.llm.table_1` makes the missing runs, which takes hours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import NullFormatter

from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.llm.finished import claims as llm_claims
from analyses.llm.finished import optimizers, table, updates
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

PICTURES = ("table_1_llm", "llm_rank_by_step", "llm_learning_rate", "llm_optimizers", "llm_ov_updates")


STEP_COLUMNS = {
    "held_out_fact/rank": "facts, told",
    "training_implication/rank": "implications, told",
    "held_out_implication/rank": "implications, never told",
}


def step_numbers(groups: dict[Kind, Group]) -> dict[str, Any]:
    """Mean ranks of facts, told and held-out implications by step, one row per seed, for all data sets."""
    numbers: dict[str, Any] = {}
    for data in NAMES:
        group = groups.get(Kind(data))
        if group is None:
            continue
        for column in STEP_COLUMNS:
            steps, curves = group.curve(column)
            numbers.setdefault(data, {"step": steps, "seeds": group.seeds})[column] = curves
    return numbers


def draw_steps(numbers: dict[str, Any]) -> Picture:
    """Mean ranks against steps: the mean of all seeds, and each of them thin."""
    fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.2), sharey=True, layout="constrained")
    for ax, (column, title) in zip(axes, STEP_COLUMNS.items(), strict=True):
        for data, shown in numbers.items():
            steps, curves = shown["step"], np.array(shown[column])
            ax.plot(steps, curves.T, color=COLORS[data], lw=0.6, alpha=0.45)
            ax.plot(steps, curves.mean(0), color=COLORS[data], lw=1.8, label=NAMES[data])
        ax.axhline(CHANCE, color="#555555", lw=0.8, ls="--", label="chance")
        ax.set_title(title, loc="left")
        ax.set_xlabel("training step")
    axes[0].set_ylabel("mean rank (0 is best)")
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, frameon=False, ncols=3, loc="outside lower center")
    return fig


STEPS = Drawing(
    "What is told is learned in every data set; what is not told, nearly fully where it is causal, elsewhere "
    "later and in part",
    draw_steps,
)


RATE_SETS = ("city_language", "city_language_counterfactual")


def rate_numbers(groups: dict[Kind, Group]) -> dict[str, Any]:
    """A row per data set and rate, then one of its facts-only control."""
    rows: list[dict[str, Any]] = []
    for data, found in of_all_rates(groups, RATE_SETS).items():
        rows += [group.numbers() | {"fact_rank_by_seed": group.by_seed("held_out_fact")} for group in found]
        control = groups.get(Kind(data, control="facts_only"))
        if control is not None:
            rows.append(control.of_seeds(set(rows[-1]["seeds"])).numbers())
    return {"rows": rows}


def draw_rates(numbers: dict[str, Any]) -> Picture:
    """Which of generalization and hallucination is robust to the learning rate; hollow: facts not known."""
    fig, ax = plt.subplots(figsize=(WIDTH, 4.0), layout="constrained")
    for data, side in zip(RATE_SETS, (1.04, 1 / 1.04), strict=True):  # so that the two sets' points are apart
        own = [row for row in numbers["rows"] if row["data"] == data]
        rows, color = [row for row in own if row["control"] == "none"], COLORS[data]
        x = np.array([row["lr"] for row in rows]) * side
        for ranks, facts in zip(*(np.array([r[key] for r in rows]).T for key in SEED_COLUMNS), strict=True):
            known = facts <= FITTED
            ax.plot(x, ranks, "-", color=color, lw=0.8, alpha=0.6)
            ax.plot(x[known], ranks[known], "o", color=color, ms=5)
            ax.plot(x[~known], ranks[~known], "o", color=color, mfc="white", ms=5)
        if rows:
            ax.plot(x, [row["held_out_rank"] for row in rows], "-", color=color, lw=2.4, label=NAMES[data])
        for row in (row for row in own if row["control"] == "facts_only"):
            label = "its facts only (mean)"
            ax.plot([RATES[1]], [row["held_out_rank"]], "v", mfc="white", color=color, ms=9, label=label)
    seed = {"color": "#555555", "lw": 0.8, "ms": 5}
    ax.plot([], [], "o-", **seed, label="a seed, told facts known")
    ax.plot([], [], "o-", **seed, mfc="white", label=f"told facts not known (rank > {FITTED})")
    ax.axhline(CHANCE, color="#555555", lw=0.8, ls="--")
    ax.text(5.4e-5, CHANCE + 0.03, "chance", ha="center", va="bottom", color="#555555")
    ax.set_xscale("log")
    ax.set_xticks(RATES, ["3e-5", "1e-4", "3e-4"])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(-0.1, 2.6)
    ax.set_xlabel("learning rate (full, AdamW, batch 8)")
    ax.set_ylabel("mean rank of held-out implications")
    handles, labels = ax.get_legend_handles_labels()
    if len(handles) == 6:  # one column per data set
        order = (0, 1, 4, 2, 3, 5)
        handles, labels = [handles[k] for k in order], [labels[k] for k in order]
    fig.legend(handles, labels, frameon=False, ncols=2, loc="outside lower center")
    return fig


SEED_COLUMNS = ("by_seed", "fact_rank_by_seed")
RATES_DRAWING = Drawing(
    "Known languages stay near the top at every rate at which facts are learned; counterfactual ones come "
    "nearer on average with larger rates",
    draw_rates,
)


def make(runs: Path, figures: Path) -> dict[Kind, Group]:
    """Draws the finished runs; `runs` is not used, since these runs keep no weights."""
    groups = read_groups()
    RATES_DRAWING.write(figures / "llm_learning_rate", rate_numbers(groups))
    table.DRAWING.write(figures / table.PICTURE, table.numbers_of(groups))
    STEPS.write(figures / "llm_rank_by_step", step_numbers(groups))
    optimizers.DRAWING.write(figures / "llm_optimizers", optimizers.numbers_of(groups))
    updates.DRAWING.write(figures / "llm_ov_updates", updates.numbers_of(groups))
    count = sum(len(group.results) for group in groups.values())
    print(f"language models: {count} finished runs drawn from their JSONs; analyses.llm.table_1 makes more")
    return groups


FIGURE = Figure(
    pictures=PICTURES,
    draw=make,
    claims=llm_claims.claims,
    drawings={
        table.PICTURE: table.DRAWING,
        "llm_rank_by_step": STEPS,
        "llm_learning_rate": RATES_DRAWING,
        "llm_optimizers": optimizers.DRAWING,
        "llm_ov_updates": updates.DRAWING,
    },
)


if __name__ == "__main__":
    main()
