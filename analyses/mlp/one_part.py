"""One part alone is trained on all that is told: does it deduce?

The OV circuit, the MLP, or the embeddings and the unembedding, with AdamW; the others stay as a model that
was told facts alone has them, or at normal entries of the usual size; and OV alone between
random embeddings of other widths. 5 seeds, one attention layer and an MLP.
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
from analyses.mlp.criteria import (
    D_MODEL,
    EMBEDDINGS,
    NARROW_DOES_NOT,
    ONE_PART,
    OV_START,
    PARTS,
    SEEDS,
    STARTS,
    WIDE_DEDUCES,
)
from analyses.mlp.models import ARCHITECTURES, Architecture, Weights, answers, forward, start
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
class Wide:
    """OV alone between random embeddings of a width; one value per seed."""

    width: int
    untold: list[float]
    told: list[float]
    ratio: list[float]
    loss: list[float]


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


def wide(width: int) -> Wide:
    """Trains the OV circuit alone by descent; the others have normal entries of size 1/√width."""
    architecture = Architecture(d_model=width)
    seeds: list[int] = list(SEEDS)
    usual = start(architecture, [width**-0.5] * len(seeds), seeds)
    small = start(architecture, [OV_START] * len(seeds), seeds)
    weights = {name: (small if name in WEIGHTS["ov"] else usual)[name] for name in usual}
    trained = train(architecture, weights, QUESTIONS, "descent", only=WEIGHTS["ov"])
    logits = forward(architecture, trained.weights, QUESTIONS.asked).logits(trained.weights)
    given = answers(logits, QUESTIONS)
    values = (given.accuracy, given.told_accuracy, given.ratio, trained.loss)
    return Wide(width, *(value.tolist() for value in values))


def make(runs: Path, figures: Path) -> tuple[list[Part], list[Wide]]:
    torch.set_num_threads(1)
    found, widths = [], [wide(width) for width in EMBEDDINGS]
    for kind in TITLES:
        for part, names in WEIGHTS.items():
            trained = train(ARCHITECTURES[NAME], others_of(runs, kind, part), QUESTIONS, "adamw", only=names)
            given = answers(implication_logits(NAME, trained.weights), QUESTIONS)
            values = (given.accuracy, given.told_accuracy, given.ratio, trained.loss)
            found.append(Part(kind, part, *(value.tolist() for value in values)))
    with figure_style():
        fig, axes = plt.subplots(1, 3, figsize=(11, 3.5), sharey=True, layout="constrained")
        for ax, (kind, title) in zip(axes, TITLES.items(), strict=False):
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
        for what, color in COLORS.items():
            axes[2].plot(EMBEDDINGS, [np.mean(getattr(w, what)) for w in widths], color=color, lw=1.6)
            for w in widths:
                values = getattr(w, what)
                axes[2].plot([w.width] * len(values), values, "o", color=color, ms=4, alpha=0.7)
        axes[2].axhline(0.1, color="0.4", ls=":", lw=1)
        axes[2].set(xscale="log", xlabel="width of the embeddings")
        axes[2].set_xticks(EMBEDDINGS, [str(width) for width in EMBEDDINGS])
        axes[2].minorticks_off()
        axes[2].set_title("OV alone, others: random", loc="left")
        axes[0].set(ylabel="accuracy among implications", ylim=(0, 1.04))
        handles, labels = axes[0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        numbers = {"parts": [asdict(part) for part in found], "widths": [asdict(w) for w in widths]}
        save_figure(fig, figures / PICTURE, numbers)
        plt.close(fig)
    return found, widths


def claims(measured: tuple[list[Part], list[Wide]]) -> list[Claim]:
    """One claim per part and start of the others, and one for the width."""
    found, widths = measured
    means = [float(np.mean(w.untold)) for w in widths]
    by_width = Claim(
        id="mlp_only_ov_by_width",
        statement="OV alone trained between random embeddings deduces if they are wide",
        source="added after the runs at width 32 (analyses/mlp/criteria.py)",
        expected=f"mean held-out accuracy >= {WIDE_DEDUCES} at {EMBEDDINGS[-1]} and <= {NARROW_DOES_NOT} at "
        f"{EMBEDDINGS[0]}",
        measured={f"accuracy_{w.width}": w.untold for w in widths},
        tolerance=0.0,
        holds=means[-1] >= WIDE_DEDUCES and means[0] <= NARROW_DOES_NOT,
        figure=PICTURE,
    )
    return [by_width] + [
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
