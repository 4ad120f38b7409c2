"""Table 1 as a picture: untold implications, facts alone and the paper's models. Drawn by `llm.figures`.

All controls are in the JSON, and in the table of docs/findings/llm_families.md.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from analyses.house.drawing import WIDTH, Drawing
from analyses.llm.finished.results import CHANCE, NAMES, PAPER, Group, Kind, limits_over_runs

PICTURE = "table_1_llm"
ROWS: dict[str, dict[str, Any]] = {
    "fine-tuned, full": {},
    "fine-tuned, LoRA": {"method": "lora", "lr": 1e-3},
    "control: facts only": {"control": "facts_only"},
    "control: random pairs": {"control": "random_implications"},
    "control: implications only": {"control": "implications_only"},
}
LOOKS = {
    "fine-tuned, full": ("o", "#0173b2"),
    "fine-tuned, LoRA": ("s", "#56b4e9"),
    "control: facts only": ("v", "#de8f05"),
}
"""Marker and colour of the rows that are drawn."""


def numbers_of(groups: dict[Kind, Group]) -> dict[str, Any]:
    """Every row and data set, and rank with told implications minus rank with facts only, name by name."""
    rows = [
        {"row": label, **groups[kind].numbers()}
        for label, fields in ROWS.items()
        for data in NAMES
        if (kind := Kind(data, **fields)) in groups
    ]
    return {"names": NAMES, "rows": rows, "told_minus_facts_only": added_by_telling(groups), "paper": PAPER}


def added_by_telling(groups: dict[Kind, Group]) -> list[dict[str, Any]]:
    """Rank with told implications minus rank with facts only, with its interval over runs and by seed."""
    added = []
    for data in NAMES:
        told, control = groups.get(Kind(data)), groups.get(Kind(data, control="facts_only"))
        if told is None or control is None:
            continue
        found, by_seed = told.difference(control), told.differences(control)
        if found is None:
            continue
        row = {"data": data, "difference": found.mean, "interval": limits_over_runs(by_seed)}
        row |= {"interval_over_pairs": [found.low, found.high], "by_seed": by_seed}
        added.append({**row, "seeds": told.common(control)[0].seeds})
    return added


def draw(numbers: dict[str, Any]) -> Picture:
    """Above the ranks, below what telling adds to facts alone."""
    fig, (above, below) = plt.subplots(
        2, 1, figsize=(WIDTH, 5.2), sharex=True, height_ratios=(1.7, 1), layout="constrained"
    )
    places = list(numbers["names"])
    for row in numbers["rows"]:
        if row["row"] in LOOKS:
            x = places.index(row["data"]) + (-0.28, -0.1, 0.08)[list(LOOKS).index(row["row"])]
            _point(above, x, row["held_out_rank"], row["interval"], *LOOKS[row["row"]])
    for values in numbers["paper"].values():
        above.scatter(np.arange(len(places)) + 0.3, values, marker="_", color="#333333", s=90, lw=1.5)
    for label, (marker, color) in LOOKS.items():
        above.scatter([], [], marker=marker, color=color, s=36, label=label.removeprefix("control: "))
    above.scatter([], [], marker="_", color="#333333", s=90, label="the paper's larger models")
    above.axhline(CHANCE, color="#555555", lw=0.8, ls="--")
    above.text(-0.48, CHANCE + 0.05, "chance", va="bottom", fontsize=8, color="#555555")
    above.set_ylim(-0.12, 4.75)
    above.set_ylabel("mean rank of untold\nimplications (0: best)")
    for row in numbers["told_minus_facts_only"]:
        x = places.index(row["data"])
        _point(below, x, row["difference"], row["interval"], *LOOKS["fine-tuned, full"])
        below.scatter(
            [x + 0.12] * len(row["by_seed"]), row["by_seed"], marker="_", color="#0173b2", s=40, lw=1
        )
    below.axhline(0, color="#555555", lw=0.8, ls="--")
    below.text(
        0.01, 0.06, "below 0: telling helps\n(dashes: seeds)",
        transform=below.transAxes, fontsize=7.5, color="#555555",
    )  # fmt: skip
    below.set_ylabel("full, minus\nfacts only")
    intervals = [row["interval"] for row in numbers["told_minus_facts_only"] if row["interval"]]
    ends = [end for limits in intervals for end in limits] + [
        v for r in numbers["told_minus_facts_only"] for v in r["by_seed"]
    ]
    below.set_ylim(min(ends) - 0.15, max(0.4, *ends) + 0.1)
    names = [name.replace(" (", "\n(").replace("-", "-\n", 1) for name in numbers["names"].values()]
    below.set_xticks(range(len(places)), names, fontsize=7.5)
    below.set_xlim(-0.55, len(places) - 0.45)
    handles, labels = above.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, columnspacing=1.2)
    return fig


def _point(ax: Axes, x: float, y: float, interval: list[float] | None, marker: str, color: str) -> None:
    if interval is not None:
        ax.plot([x, x], interval, color=color, lw=1.5, zorder=2)
    ax.scatter(x, y, marker=marker, color=color, s=36, zorder=3, edgecolor="white")


DRAWING = Drawing(
    "Told some implications, SmolLM2-135M gets untold ones nearer to the top in four sets; in City-Language "
    "facts alone are enough",
    draw,
)
