"""Whose implication is first for new subjects: the task's, the pretrained one, or another.

Old subjects teach pairs (b_i, c_i). New subjects are told their facts, and an implication for one of four a
pair or none: the same pairs (help) or other ones (mislead). Untold implications of new subjects, 5 seeds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure as Picture

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.prior.criteria import EXPECTED, SEEDS, N
from analyses.prior.stages import TOLD, Outcome, fine_tune, new_task, pretrain

PICTURE = "prior_knowledge"
MODELS = {
    "factorized": "pretrained,\nall weights",
    "lora": "pretrained,\nLoRA",
    "non_factorized": "pretrained,\none matrix",
    "scratch": "not\npretrained",
}
TITLES = {
    "facts": "facts only:\nrecalled",
    "help": "1 of 4 told, same pairs:\nhelped",
    "mislead": "1 of 4 told, other pairs:\nmisled",
}
COLORS = {"told": "#0173b2", "pretrained": "#de8f05", "other": "0.85"}
Measured = dict[tuple[str, str], list[Outcome]]


def make(runs: Path, figures: Path) -> Measured:
    torch.set_num_threads(1)
    measured: Measured = {(model, told): [] for model in MODELS for told in TOLD}
    for seed in SEEDS:
        before = {ov: pretrain(ov, seed) for ov in ("factorized", "non_factorized")}
        for model, told in measured:
            start = None if model == "scratch" else before["factorized" if model == "lora" else model]
            found, _ = fine_tune(start, new_task(told), seed, lora=model == "lora")
            measured[model, told].append(found)
    DRAWING.write(figures / PICTURE, numbers_of(measured))
    return measured


def draw_first(numbers: dict[str, Any]) -> Picture:
    """Bars of whose answer is first: a panel for what is told, a bar for each model."""
    fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.1), sharey=True, layout="constrained")
    for ax, told in zip(axes, TOLD, strict=True):
        shares = np.array([np.mean(numbers[f"{model} | {told}"]["first"], axis=0) for model in MODELS])
        if told != "mislead":  # the task's implication is the pretrained one
            shares = np.column_stack([np.zeros(len(shares)), shares[:, 0], shares[:, 2]])
            if told == "help":
                shares[:, [0, 1]] = shares[:, [1, 0]]
        left = np.zeros(len(MODELS))
        for share, (name, color) in zip(shares.T, COLORS.items(), strict=True):
            ax.barh(range(len(MODELS)), share, left=left, color=color, label=name, height=0.72)
            left += share
        ax.set_yticks(range(len(MODELS)), MODELS.values())
        ax.invert_yaxis()
        ax.set_title(TITLES[told], loc="left", fontsize=8)
        ax.set_xlim(0, 1)
        ax.set_xticks([0, 0.5, 1])
    axes[1].set_xlabel("share of new subjects' untold implications whose first answer is …")
    handles, _ = axes[0].get_legend_handles_labels()
    names = ("as the told subjects' pairs say", "as pretraining says", "another")
    fig.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    return fig


DRAWING = Drawing(
    "A pretrained factorized model recalls from facts alone and is misled by what it knew",
    draw_first,
)


def numbers_of(measured: Measured) -> dict[str, object]:
    """Ranks, shares and coefficients by model and condition, one value per seed."""
    names = ("task_rank", "pretrained_rank", "first", "fact", "recall", "deduction")
    return {
        f"{model} | {told}": {name: [getattr(o, name) for o in found] for name in names}
        for (model, told), found in measured.items()
    }


def claims(measured: Measured) -> list[Claim]:
    """One claim per model and condition of EXPECTED."""
    found = []
    for (model, told), ranges in EXPECTED.items():
        ranks = {
            which: [getattr(o, f"{which}_rank") for o in measured[model, told]]
            for which in ("task", "pretrained")
        }
        found.append(
            Claim(
                id=f"prior_{model}_{told}",
                statement=f"Prior knowledge, {MODELS[model].replace(chr(10), ' ')}; told: {told}: rank "
                "of the "
                "task's untold implication and of the pretrained one",
                source="arXiv 2506.10887, made a model (docs/theory.md §11)",
                expected="mean rank "
                + ", ".join(f"{which} in {low:g} to {high:g}" for which, (low, high) in ranges.items())
                + f", every seed; chance {(N - 1) / 2:g}",
                measured={f"{which}_rank": values for which, values in ranks.items()},
                tolerance=0.0,
                holds=all(
                    low <= rank <= high for which, (low, high) in ranges.items() for rank in ranks[which]
                ),
                figure=PICTURE,
            )
        )
    return found


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
