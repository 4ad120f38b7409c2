"""How much is recalled from facts alone: the coefficient that pretrained features predict, and the measured.

1 to 6 of 6 old subjects told, three lengths of pretraining, four of fine-tuning. The features' ratio is β of
the pretraining; while fine-tuning goes on, facts outgrow it by an exact factor.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure as Picture

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.prior.criteria import (
    FACT_TIMES,
    OLD_OF_SIX,
    OLD_TOLD,
    PRETRAINING_TIMES,
    RATIO_WITHIN,
    RECALL_WITHIN,
)
from analyses.prior.stages import fine_tune, new_task, pretrain

PICTURE = "prior_recall_law"
COLORS = dict(zip(PRETRAINING_TIMES, ("#a1d99b", "#31a354", "#00441b"), strict=True))
MARKERS = dict(zip(FACT_TIMES, ("o", "s", "^", "D"), strict=True))


@dataclass(frozen=True)
class Point:
    """One pretraining and fine-tuning on facts: features' ratio, β, and the recall predicted and measured."""

    told: int
    pretraining: float
    fine_tuning: float
    ratio: float
    beta: float
    predicted: float
    measured: float


def make(runs: Path, figures: Path) -> list[Point]:
    torch.set_num_threads(1)
    points = []
    for told in OLD_TOLD:
        for length in PRETRAINING_TIMES:
            before = pretrain("factorized", told, told=told, old=OLD_OF_SIX, log10_time=length)
            for time in FACT_TIMES:
                found, _ = fine_tune(before, new_task("facts"), told, log10_time=time)
                predicted = before.recall(found.fact)
                ratio = before.feature_ratio()
                points.append(Point(told, length, time, ratio, before.beta, predicted, found.recall))
    DRAWING.write(figures / PICTURE, {"points": [asdict(point) for point in points]})
    return points


def draw(numbers: dict[str, Any]) -> Picture:
    """Recall as measured against recall as predicted, one mark per case."""
    points = [Point(**point) for point in numbers["points"]]
    fig, ax = plt.subplots(figsize=(WIDTH, 4.2), layout="constrained")
    ax.plot([0, 1], [0, 1], color="0.5", lw=1, zorder=0)
    for point in points:
        marker, color = MARKERS[point.fine_tuning], COLORS[point.pretraining]
        ax.plot(point.predicted, point.measured, marker, color=color, ms=6, alpha=0.85)
    for length, color in COLORS.items():
        ax.plot([], [], "o", color=color, label=f"pretrained to t = $10^{{{length:g}}}$")
    for time, marker in MARKERS.items():
        ax.plot([], [], marker, mfc="none", color="0.3", label=f"fine-tuned to t = $10^{{{time:g}}}$")
    ax.set(xlabel="recall coefficient predicted from the features", ylabel="recall coefficient measured")
    ax.set(xlim=(0.35, 1.02), ylim=(0.35, 1.02), aspect="equal")
    fig.legend(loc="outside right center", frameon=False)
    return fig


DRAWING = Drawing(
    "How much facts alone recall follows from the pretrained features, to within 0.02 in all cases", draw
)


def claims(points: list[Point]) -> list[Claim]:
    """The law, and the features' ratio."""
    off = [round(p.measured - p.predicted, 4) for p in points]
    late = [p for p in points if p.pretraining == PRETRAINING_TIMES[-1] and p.fine_tuning == FACT_TIMES[0]]
    partly = [p for p in late if p.told < OLD_OF_SIX]
    ratios = [round(p.ratio - p.beta, 4) for p in partly]
    full = [round(p.ratio - 1, 4) for p in late if p.told == OLD_OF_SIX]
    return [
        Claim(
            id="prior_recall_law",
            statement="Facts alone recall the pretrained implication by the features' ratio, less what "
            "the fact "
            "features grow in fine-tuning",
            source="derived after a first trial (docs/theory.md §11)",
            expected=f"within {RECALL_WITHIN} of the law, {len(points)} cases",
            measured={"measured_minus_predicted": off, "recall": [round(p.measured, 4) for p in points]},
            tolerance=RECALL_WITHIN,
            holds=max(map(abs, off)) <= RECALL_WITHIN,
            figure=PICTURE,
        ),
        Claim(
            id="prior_feature_ratio",
            statement="The features' ratio is β of the pretraining: 1 if every old subject was told, "
            "near r^¼ else",
            source="derived (docs/theory.md §11)",
            expected=f"within {RATIO_WITHIN} after pretraining to t = 1e{PRETRAINING_TIMES[-1]:g}",
            measured={
                "ratio_minus_beta": ratios,
                "beta": [round(p.beta, 4) for p in partly],
                "all_told": full,
            },
            tolerance=RATIO_WITHIN,
            holds=max(map(abs, (*ratios, *full))) <= RATIO_WITHIN,
            figure=PICTURE,
        ),
    ]


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
