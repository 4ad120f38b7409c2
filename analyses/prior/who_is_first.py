"""Whose implication is first for new subjects: the task's, the pretrained one, or another.

Old subjects teach pairs (b_i, c_i). New subjects are told their facts, and an implication for one of four a
pair or none: the same pairs (help) or other ones (mislead). Untold implications of new subjects, 5 seeds.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from analyses.house.claims import Claim
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.prior.criteria import EXPECTED, SEEDS, N
from analyses.prior.stages import TOLD, Outcome, fine_tune, new_task, pretrain
from ocr_interp.viz.style import figure_style, save_figure

PICTURE = "prior_knowledge"
MODELS = {
    "factorized": "pretrained,\nall weights",
    "lora": "pretrained,\nLoRA",
    "non_factorized": "pretrained,\none matrix",
    "scratch": "not\npretrained",
}
TITLES = {
    "facts": "facts only: recalled",
    "help": "1 of 4 told, same pairs: helped",
    "mislead": "1 of 4 told, other pairs: misled",
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
    with figure_style():
        fig, axes = plt.subplots(1, 3, figsize=(10, 3.6), sharey=True, layout="constrained")
        for ax, told in zip(axes, TOLD, strict=True):
            shares = np.array([np.mean([o.first for o in measured[model, told]], axis=0) for model in MODELS])
            if told != "mislead":  # the task's implication is the pretrained one
                shares = np.column_stack([np.zeros(len(shares)), shares[:, 0], shares[:, 2]])
                if told == "help":
                    shares[:, [0, 1]] = shares[:, [1, 0]]
            bottom = np.zeros(len(MODELS))
            for share, (name, color) in zip(shares.T, COLORS.items(), strict=True):
                ax.bar(range(len(MODELS)), share, bottom=bottom, color=color, label=name, width=0.75)
                bottom += share
            ax.set_xticks(range(len(MODELS)), MODELS.values(), fontsize=8.5)
            ax.set_title(TITLES[told], loc="left")
            ax.set_ylim(0, 1)
        axes[0].set_ylabel("share of untold implications\nwhose first answer is …")
        handles, _ = axes[0].get_legend_handles_labels()
        names = ("as the told subjects' pairs say", "as pretraining says", "another")
        fig.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
        save_figure(fig, figures / PICTURE, numbers_of(measured))
        plt.close(fig)
    return measured


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


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims)


if __name__ == "__main__":
    main()
