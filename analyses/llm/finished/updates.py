"""Size and rank of the change of every layer's OV circuits in fine-tuning. Drawn by `llm.figures`."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from analyses.house.drawing import WIDTH, Drawing
from analyses.llm.finished.results import NAMES, Group, Kind

KINDS = {
    "full, Muon, batch 24": ({"optimizer": "muon", "batch": 24}, "#de8f05"),
    "full, AdamW, batch 24": ({"batch": 24}, "#0173b2"),
    "LoRA, AdamW, batch 8": ({"method": "lora", "lr": 1e-3}, "#029e73"),
}
"""The runs, and the colours of their lines."""

LIMITS = {
    "two factors of width 64": (128, 0.15, "bottom"),
    "two LoRA factors of rank 8": (16, -0.2, "top"),
}
"""The largest possible rank of the change (the sum of its factors' ranks), and the place of its label."""


def numbers_of(groups: dict[Kind, Group]) -> dict[str, Any]:
    """How much every layer's OV circuits changed, and how low-rank the change is: means of heads, seeds."""
    numbers: dict[str, Any] = {}
    for label, (fields, _) in KINDS.items():
        for data in NAMES:
            group = groups.get(Kind(data, **fields))
            if group is None:
                continue
            updates = [result["ov_update"] for result in group.results]
            means = {
                what: np.mean([np.mean(update[what], axis=1) for update in updates], axis=0)
                for what in ("relative", "nuclear_to_frobenius", "effective_rank")
            }
            numbers[f"{data}, {label}"] = {"seeds": group.seeds, **means}
    return numbers


def draw(numbers: dict[str, Any]) -> Figure:
    """Nuclear over Frobenius norm of the change, by layer: one line per data set."""
    fig, ax = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
    for label, (_, color) in KINDS.items():
        found = [shown for name, shown in numbers.items() if name.endswith(f", {label}")]
        for k, shown in enumerate(found):
            ax.plot(shown["nuclear_to_frobenius"], color=color, lw=1.2, label=None if k else label)
    for what, (rank, above, va) in LIMITS.items():
        ax.axhline(np.sqrt(rank), color="#555555", lw=0.8, ls="--")
        ax.text(0, np.sqrt(rank) + above, f"most that {what} allow", va=va)
    ax.set(ylim=(0, 12.8), xlabel="layer (a line per data set)")
    ax.set_ylabel(r"$\|\Delta W_{OV}\|_*\,/\,\|\Delta W_{OV}\|_F$" + ",\nmean over heads")
    fig.legend(loc="outside lower center", ncols=3, frameon=False)
    return fig


DRAWING = Drawing(
    "The change of OV circuits is not low-rank when all weights are trained, with Muon less so than with "
    "AdamW",
    draw,
)
