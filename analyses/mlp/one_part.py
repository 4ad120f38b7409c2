"""One part alone is trained on all that is told: does it deduce?

The OV circuit, the MLP, or the embeddings and the unembedding, with AdamW; the others stay as a model that
was told facts alone has them, or at normal entries of the usual size; and OV alone between
random embeddings of other widths. 5 seeds, one attention layer and an MLP.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
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
UNTOLD = "#0173b2"


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
    numbers = {"parts": [asdict(part) for part in found], "widths": [asdict(w) for w in widths]}
    DRAWING.write(figures / PICTURE, numbers)
    return found, widths


def draw(numbers: dict[str, Any]) -> Picture:
    """Accuracies of untold implications: by trained part and start of the others, and OV alone by width."""
    fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.2), sharey=True, layout="constrained")
    for ax, (kind, title) in zip(axes, TITLES.items(), strict=False):
        for x, part in enumerate(one for one in numbers["parts"] if one["others"] == kind):
            ax.bar(x, np.mean(part["untold"]), width=0.7, color=UNTOLD)
            ax.plot([x] * len(part["untold"]), part["untold"], "o", color="0.2", ms=2.5)
        ax.set_xticks(range(len(WEIGHTS)), ["OV", "MLP", "embed-\ndings", "all"], fontsize=7.5)
        ax.set_xlabel("trained part")
        ax.set_title(title, loc="left", fontsize=8.5)
    right = axes[2]
    places = [w["width"] for w in numbers["widths"]]
    right.plot(places, [np.mean(w["untold"]) for w in numbers["widths"]], color=UNTOLD, lw=1.6)
    for w in numbers["widths"]:
        right.plot([w["width"]] * len(w["untold"]), w["untold"], "o", color="0.2", ms=2.5)
    right.set(xscale="log", xlabel="width of the embeddings")
    right.set_xticks(places, [str(width) for width in places])
    right.minorticks_off()
    right.set_title("OV alone, others random", loc="left", fontsize=8.5)
    for ax in axes:
        ax.axhline(0.1, color="0.4", ls=":", lw=1)
    right.text(places[-1], 0.115, "chance", fontsize=7.5, color="0.3", ha="right")
    axes[0].set(ylabel="untold implications right, share\n(told: all right)", ylim=(0, 1.04))
    return fig


DRAWING = Drawing(
    "Any part trained alone deduces if the others know the facts; among random others the embeddings do, "
    "and OV if they are wide",
    draw,
)


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


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, cost="slow", drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
