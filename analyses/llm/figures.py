"""Table 1 as a picture, ranks by step and learning rates of the language models, from finished runs' JSONs.

Nothing is trained here: `python -m analyses.llm.table_1` makes the missing runs, which takes hours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import NullFormatter

from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.llm.finished import claims as llm_claims
from analyses.llm.finished import optimizers, updates
from analyses.llm.finished.criteria import FITTED
from analyses.llm.finished.results import (
    CHANCE,
    COLORS,
    NAMES,
    PAPER,
    RATES,
    Group,
    Kind,
    of_all_rates,
    read_groups,
)
from ocr_interp.viz.style import figure_style, save_figure

PICTURES = ("table_1_llm", "llm_rank_by_step", "llm_learning_rate", "llm_optimizers", "llm_ov_updates")
ROWS = {
    "fine-tuned, full": ({}, "o", "#0173b2"),
    "fine-tuned, LoRA": ({"method": "lora", "lr": 1e-3}, "s", "#56b4e9"),
    "control: facts only": ({"control": "facts_only"}, "v", "#de8f05"),
    "control: random pairs": ({"control": "random_implications"}, "D", "#949494"),
    "control: implications only": ({"control": "implications_only"}, "^", "#949494"),
}


def draw_table(groups: dict[Kind, Group], figures: Path) -> None:
    """Held-out mean ranks beside controls and the paper's models; below, what telling implications adds."""
    fig, (above, below) = plt.subplots(
        2, 1, figsize=(9.5, 6.4), sharex=True, gridspec_kw={"height_ratios": [2.1, 1], "hspace": 0.08}
    )
    rows = [
        {"row": label, **groups[kind].numbers()}
        for label, (fields, _, _) in ROWS.items()
        for data in NAMES
        if (kind := Kind(data, **fields)) in groups
    ]
    for row in rows:
        _, marker, color = ROWS[row["row"]]
        x = list(NAMES).index(row["data"]) + np.linspace(-0.32, 0.16, 5)[list(ROWS).index(row["row"])]
        _point(above, x, row["held_out_rank"], row["interval"], marker, color)
        above.text(
            x, row["interval"][1] + 0.06, len(row["seeds"]), ha="center", fontsize=7, color=color
        )  # number of seeds
    for label, (_, marker, color) in ROWS.items():
        above.scatter([], [], marker=marker, color=color, s=45, label=label)
    for values in PAPER.values():
        above.scatter(np.arange(5) + 0.34, values, marker="_", color="#333333", s=140, lw=1.5)
    above.scatter([], [], marker="_", color="#333333", s=140, label="the paper's LLMs (other candidates)")
    above.axhline(CHANCE, color="#555555", lw=0.8, ls="--")
    above.text(4.62, CHANCE + 0.05, "chance", ha="right", va="bottom", fontsize=9, color="#555555")
    above.set_ylim(-0.12, 4.75)
    above.set_ylabel("mean rank of held-out\nimplications (0 is best)")
    above.set_title("SmolLM2-135M: implications that were never told (small digits: seeds)", fontsize=11)
    handles, labels = above.get_legend_handles_labels()
    fig.legend(
        handles, labels, frameon=False, fontsize=9, ncol=3, loc="upper center", bbox_to_anchor=(0.5, 0.04)
    )
    added = _draw_added(below, groups)
    below.set_xticks(range(5), [name.replace(" (", "\n(") for name in NAMES.values()])
    below.set_xlim(-0.55, 4.65)
    numbers = {"names": NAMES, "rows": rows, "told_minus_facts_only": added, "paper": PAPER}
    save_figure(fig, figures / "table_1_llm", numbers)
    plt.close(fig)


def _draw_added(ax: Axes, groups: dict[Kind, Group]) -> list[dict[str, Any]]:
    """Rank with told implications minus rank with facts only, name by name."""
    added = []
    for place, data in enumerate(NAMES):
        told, control = groups.get(Kind(data)), groups.get(Kind(data, control="facts_only"))
        if told is None or control is None:
            continue
        found, by_seed = told.difference(control), told.differences(control)
        if found is None:
            continue
        row = {"data": data, "difference": found.mean, "interval": [found.low, found.high]}
        added.append(row | {"by_seed": by_seed, "seeds": told.common(control)[0].seeds})
        _point(ax, place, found.mean, row["interval"], "o", "#0173b2")
        ax.scatter([place + 0.12] * len(by_seed), by_seed, marker="_", color="#0173b2", s=40, lw=1)
    ax.axhline(0, color="#555555", lw=0.8, ls="--")
    ax.set_ylabel("with told implications\nminus facts only")
    low = min([-1.0, *(row["interval"][0] for row in added)])
    ax.set_ylim(low - 0.15, max([0.4, *(row["interval"][1] for row in added)]) + 0.1)
    ax.text(
        0.01, 0.06, "below 0: out-of-context reasoning\nat 0: telling adds nothing (dashes: seeds)",
        transform=ax.transAxes, fontsize=8.5, color="#555555",
    )  # fmt: skip
    return added


def _point(ax: Axes, x: float, y: float, interval: list[float], marker: str, color: str) -> None:
    ax.plot([x, x], interval, color=color, lw=1.5, zorder=2)
    ax.scatter(x, y, marker=marker, color=color, s=45, zorder=3, edgecolor="white")


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
        for draw in (draw_table, draw_rates):
            draw(groups, figures)
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
        "llm_rank_by_step": STEPS,
        "llm_optimizers": optimizers.DRAWING,
        "llm_ov_updates": updates.DRAWING,
    },
)


if __name__ == "__main__":
    main()
