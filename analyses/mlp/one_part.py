"""One part alone is trained on all that is told: does it deduce?

The OV circuit, the MLP, or the embeddings and the unembedding, with AdamW; the others stay as a model that
was told facts alone has them, or at normal entries of the usual size. 5 seeds, one attention layer and an
MLP.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from analyses.house.claims import Claim
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.mlp.criteria import D_MODEL, ONE_PART, PARTS, STARTS
from analyses.mlp.models import ARCHITECTURES, Weights, answers
from analyses.mlp.runs import QUESTIONS, fresh, implication_logits, models
from analyses.mlp.training import train
from ocr_interp.viz.style import figure_style, save_figure

PICTURE = "mlp_one_part"
NAME = "OV, MLP"
WEIGHTS = {
    "ov": ("V0", "O0"),
    "mlp": ("in", "bias", "out"),
    "embeddings": ("E", "U"),
    "all": ("E", "U", "V0", "O0", "QK0", "in", "bias", "out"),
}
LABELS = {"ov": "OV", "mlp": "MLP", "embeddings": "embeddings,\nunembedding", "all": "all"}
TITLES = {"facts": "others: from facts alone", "random": "others: random"}
COLORS = {"told": "0.65", "untold": "#0173b2"}


@dataclass(frozen=True)
class Part:
    """One trained part from one start of the others; one value per seed."""

    others: str
    part: str
    untold: list[float]
    told: list[float]
    ratio: list[float]
    loss: list[float]


def others_of(runs: Path, kind: str, part: str) -> Weights:
    """Weights at the start of training one part.

    "random": the others have normal entries of size 1/√d_model, the part itself those of the middle start.
    """
    if kind == "facts":
        return models(runs, NAME, "adamw", STARTS[1], told=False).weights
    usual, small = fresh(NAME, D_MODEL**-0.5), fresh(NAME, STARTS[1])
    return {name: (small if name in WEIGHTS[part] else usual)[name] for name in usual}


def make(runs: Path, figures: Path) -> list[Part]:
    torch.set_num_threads(1)
    found = []
    for kind in TITLES:
        for part, names in WEIGHTS.items():
            trained = train(ARCHITECTURES[NAME], others_of(runs, kind, part), QUESTIONS, "adamw", only=names)
            given = answers(implication_logits(NAME, trained.weights), QUESTIONS)
            values = (given.accuracy, given.told_accuracy, given.ratio, trained.loss)
            found.append(Part(kind, part, *(value.tolist() for value in values)))
    with figure_style():
        fig, axes = plt.subplots(1, 2, figsize=(7.6, 3.5), sharey=True, layout="constrained")
        for ax, (kind, title) in zip(axes, TITLES.items(), strict=True):
            for x, part in enumerate(one for one in found if one.others == kind):
                for k, (what, color) in enumerate(COLORS.items()):
                    values = getattr(part, what)
                    place = x + 0.38 * (k - 0.5)
                    ax.bar(place, np.mean(values), width=0.36, color=color, label=what if x == 0 else None)
                    ax.plot([place] * len(values), values, "o", color="0.2", ms=2.5)
            ax.axhline(0.1, color="0.4", ls=":", lw=1)
            ax.set_xticks(range(len(WEIGHTS)), [LABELS[part] for part in WEIGHTS])
            ax.set_xlabel("trained part")
            ax.set_title(title, loc="left")
        axes[0].set(ylabel="accuracy among implications", ylim=(0, 1.04))
        handles, labels = axes[0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        save_figure(fig, figures / PICTURE, {"parts": [asdict(part) for part in found]})
        plt.close(fig)
    return found


def claims(found: list[Part]) -> list[Claim]:
    """One claim per part and start of the others."""
    return [
        Claim(
            id=f"mlp_only_{part.part}_{part.others}",
            statement=f"{LABELS[part.part].replace(chr(10), ' ')} alone trained, {TITLES[part.others]}: the "
            "untold implication is deduced",
            source="conjectured (analyses/mlp/criteria.py)",
            expected=f"mean held-out accuracy >= {ONE_PART[part.others]}",
            measured={
                "accuracy": part.untold,
                "told_accuracy": part.told,
                "ratio": part.ratio,
                "training_loss": part.loss,
            },
            tolerance=0.0,
            holds=float(np.mean(part.untold)) >= ONE_PART[part.others],
            figure=PICTURE,
        )
        for part in found
        if part.part in PARTS
    ]


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, cost="slow")


if __name__ == "__main__":
    main()
