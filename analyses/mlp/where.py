"""Where the untold implication lives: in what the OV circuit writes to the answer, or in what the MLP does.

One attention layer and an MLP, 5 seeds. A part writes its mean over questions to the unembedding; control:
it writes what it wrote plus random vectors as long as its own. And the share of the coefficient of each.
The picture shows gradient descent from the middle start; its JSON has AdamW and all starts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure as Picture
from matplotlib.patches import Rectangle

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.mlp.criteria import MLP_SHARE, STARTS, WITHOUT_MLP
from analyses.mlp.cuts import NOISE_DRAWS, cut_everywhere, parts_of
from analyses.mlp.models import ARCHITECTURES
from analyses.mlp.runs import QUESTIONS, models
from analyses.mlp.training import RULES

PICTURE = "mlp_where"
NAMES = ("OV, MLP", "OV with scores 1, MLP")
CUTS = {
    "whole": "whole model",
    "without MLP": "MLP writes its mean",
    "noise on MLP": "control: noise as\nlarge as the MLP's",
    "without direct OV": "only the MLP\nsees the OV output",
    "noise on OV": "control: noise as\nlarge as OV's",
    "without OV": "OV writes its mean",
}
COLORS = {"told": "0.65", "held_out": "#0173b2"}


@dataclass(frozen=True)
class Left:
    """Implications after each cut, by cut one value per seed; and shares of the coefficients.

    Attributes:
        size: of the start.
        mlp_share, told_mlp_share: share of the held-out and told coefficient that the MLP writes; the
            OV circuit writes the rest.
    """

    architecture: str
    rule: str
    size: float
    held_out: dict[str, list[float]]
    told: dict[str, list[float]]
    mlp_share: list[float]
    told_mlp_share: list[float]


def measure(runs: Path, name: str, rule: str, size: float) -> Left:
    """Cuts the trained models of one architecture, rule and start."""
    architecture = ARCHITECTURES[name]
    parts = parts_of(architecture, models(runs, name, rule, size).weights, QUESTIONS)
    rng, of = torch.Generator().manual_seed(0), QUESTIONS
    found = {
        "whole": [parts.answers(of)],
        "without MLP": [parts.answers(of, {"MLP": parts.mean("MLP")})],
        "without direct OV": [parts.answers(of, {"attention 1": parts.mean("attention 1")})],
        "without OV": [cut_everywhere(architecture, parts, of, "attention 1")],
    }
    for label, part in (("noise on MLP", "MLP"), ("noise on OV", "attention 1")):
        found[label] = [parts.answers(of, {part: parts.noisy(part, rng)}) for _ in range(NOISE_DRAWS)]
    return Left(
        name,
        rule,
        size,
        {cut: torch.stack([a.accuracy for a in found[cut]]).mean(dim=0).tolist() for cut in CUTS},
        {cut: torch.stack([a.told_accuracy for a in found[cut]]).mean(dim=0).tolist() for cut in CUTS},
        parts.share("MLP", of).tolist(),
        parts.share("MLP", of, held=False).tolist(),
    )


def make(runs: Path, figures: Path) -> list[Left]:
    found = [measure(runs, name, rule, size) for name in NAMES for rule in RULES for size in STARTS]
    DRAWING.write(figures / PICTURE, {"models": [asdict(left) for left in found]})
    return found


def draw(numbers: dict[str, Any]) -> Picture:
    """Accuracies after each cut from the middle start by gradient descent, a panel per architecture."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.7), sharey=True, layout="constrained")
    for ax, name in zip(axes, NAMES, strict=True):
        (left,) = (
            one
            for one in numbers["models"]
            if (one["architecture"], one["rule"], one["size"]) == (name, "descent", STARTS[1])
        )
        for y, cut in enumerate(CUTS):
            for k, (kind, color) in enumerate(COLORS.items()):
                values = left[kind][cut]
                place = y + 0.36 * (k - 0.5)
                ax.barh(place, np.mean(values), height=0.34, color=color)
                ax.plot(values, [place] * len(values), "o", color="0.2", ms=2)
        ax.axvline(0.1, color="0.4", ls=":", lw=1)
        ax.set_title(name, loc="left")
        ax.set(xlabel="implications right, share", xlim=(0, 1.03))
    axes[0].set_yticks(range(len(CUTS)), CUTS.values())
    axes[0].set_ylim(len(CUTS) - 0.5, -0.5)
    axes[1].text(0.12, len(CUTS) - 0.55, "chance", fontsize=7.5, color="0.3")
    bars = [Rectangle((0, 0), 1, 1, color=color) for color in COLORS.values()]
    fig.legend(bars, ("told", "untold"), loc="outside lower center", ncols=2, frameon=False)
    return fig


DRAWING = Drawing(
    "Answers pass through OV and then the MLP: with the mean of either little is left, with noise as large "
    "most is",
    draw,
)


def claims(found: list[Left]) -> list[Claim]:
    """Share and cut of the MLP from the smallest start, per architecture and rule."""
    made = []
    for left in found:
        if left.size != STARTS[0]:
            continue
        name = f"{left.architecture.lower().replace(' ', '_').replace(',', '')}_{left.rule}"
        low, high = MLP_SHARE[left.rule]
        share, without = float(np.mean(left.mlp_share)), float(np.mean(left.held_out["without MLP"]))
        made.append(
            Claim(
                id=f"mlp_share_{name}",
                statement=f"{left.architecture}, {left.rule}: share of the untold coefficient from the MLP",
                source="predicted (analyses/mlp/criteria.py)",
                expected=f"mean between {low} and {high}; and held-out accuracy without the MLP >= "
                f"{WITHOUT_MLP[left.rule]}; start {left.size:g}",
                measured={
                    "mlp_share": left.mlp_share,
                    "told_mlp_share": left.told_mlp_share,
                    "accuracy_without_mlp": left.held_out["without MLP"],
                    "accuracy": left.held_out["whole"],
                    "accuracy_only_through_mlp": left.held_out["without direct OV"],
                },
                tolerance=0.0,
                holds=low <= share <= high and without >= WITHOUT_MLP[left.rule],
                figure=PICTURE,
            )
        )
    return made


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, cost="slow", drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
