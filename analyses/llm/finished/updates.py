"""Size and rank of the change of every layer's OV circuits in fine-tuning. Drawn by `llm.figures`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from analyses.llm.finished.results import COLORS, NAMES, Group, Kind
from ocr_interp.viz.style import save_figure

KINDS = {
    "full, AdamW, batch 24": ({"batch": 24}, "-"),
    "full, Muon, batch 24": ({"optimizer": "muon", "batch": 24}, "--"),
    "LoRA, AdamW, batch 8": ({"method": "lora", "lr": 1e-3}, ":"),
}
"""The runs, and the looks of their lines."""

LIMITS = {
    "two factors of width 64": (128, 0.1, "bottom"),
    "two LoRA factors of rank 8": (16, -0.15, "top"),
}
"""The largest possible rank of the change (the sum of its factors' ranks), and the place of its label."""


def draw(groups: dict[Kind, Group], figures: Path) -> None:
    """How much every layer's OV circuits changed, and how low-rank the change is, by method and optimizer."""
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 4.2))
    numbers: dict[str, Any] = {}
    for label, (fields, style) in KINDS.items():
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
            for ax, what in zip(axes, ("relative", "nuclear_to_frobenius"), strict=True):
                ax.plot(means[what], style, color=COLORS[data], lw=1.3)
    for data, name in NAMES.items():
        axes[0].plot([], [], color=COLORS[data], label=name)
    for label, (_, style) in KINDS.items():
        axes[1].plot([], [], style, color="#555555", label=label)
    for what, (rank, above, va) in LIMITS.items():
        axes[1].axhline(np.sqrt(rank), color="#555555", lw=0.8, ls="--")
        axes[1].text(0, np.sqrt(rank) + above, f"most that {what} allow", fontsize=8, va=va)
    axes[0].set_ylabel(r"$\|\Delta W_{OV}\|_F\,/\,\|W_{OV}\|_F$, mean over heads")
    axes[1].set_ylabel(r"$\|\Delta W_{OV}\|_*\,/\,\|\Delta W_{OV}\|_F$, mean over heads")
    axes[0].set_ylim(0, None)
    axes[1].set_ylim(0, 12.6)
    for ax in axes:
        ax.set_xlabel("layer")
        ax.legend(frameon=False, fontsize=8, ncol=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    fig.tight_layout()
    save_figure(fig, figures / "llm_ov_updates", numbers)
    plt.close(fig)
