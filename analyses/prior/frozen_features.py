"""What is deduced when the answers' features are known and frozen: β against the cosine of b_i's and c_i's.

W_OV = V F with F frozen. V one matrix (full fine-tuning of the input side): β = ρ, whatever the ratio of told
subjects: a spurious implication (ρ = 0) is not deduced, a known one is. V = P Q (LoRA on the input side): u
= β solves u³(u − ρ) = r (1 − ρ u), above ρ.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure as Picture
from scipy.optimize import root_scalar

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.prior.criteria import COSINES, LAW_WITHIN, RATIO
from analyses.prior.maps import FrozenFeatures, answer_features
from ocr_interp import FactRecallTask
from ocr_interp.training.long_descent import long_descent

PICTURE = "prior_frozen_features"
TIME, ENTRIES, TYPE_SIZE = 60.0, 0.001, 30.0
COLORS = {False: "#de8f05", True: "#0173b2"}
NAMES = {False: "input side, one matrix: β = ρ", True: "input side, low rank: $u^3(u - ρ) = r(1 - ρu)$"}


@dataclass(frozen=True)
class Point:
    """β of descent from entries of 0.001 at t = 1e60, and of the law."""

    cosine: float
    factored: bool
    law: float
    beta: float


def law(cosine: float, factored: bool) -> float:
    """β for features of this cosine, r = m_train / m_test of RATIO."""
    if not factored:
        return cosine
    r = RATIO[1] / RATIO[2]
    found = root_scalar(lambda u: u**3 * (u - cosine) - r * (1 - cosine * u), bracket=(cosine, 1.0))
    return float(found.root)


def make(runs: Path, figures: Path) -> list[Point]:
    torch.set_num_threads(1)
    task, points = FactRecallTask(*RATIO, n_noise=0, seq_len=3), []
    for cosine in COSINES:
        features = answer_features(RATIO[0], cosine, TYPE_SIZE)
        for factored in (False, True):
            linear_map = FrozenFeatures(features=features, factored=factored)
            found = long_descent(task, linear_map, log10_time=TIME, entries=ENTRIES)
            points.append(Point(cosine, factored, law(cosine, factored), found.beta))
    DRAWING.write(figures / PICTURE, {"points": [asdict(point) for point in points]})
    return points


def draw(numbers: dict[str, Any]) -> Picture:
    """β by cosine: descent as marks on the laws as lines."""
    points = [Point(**point) for point in numbers["points"]]
    fig, ax = plt.subplots(figsize=(WIDTH, 3.8), layout="constrained")
    shown = np.linspace(0, 0.995, 100)
    for factored, color in COLORS.items():
        ax.plot(shown, [law(c, factored) for c in shown], color=color, lw=1.5, label=NAMES[factored])
        mine = [p for p in points if p.factored == factored]
        ax.plot([p.cosine for p in mine], [p.beta for p in mine], "o", color=color, ms=6)
    ax.plot([], [], "o", color="0.4", label=f"gradient descent, t = $10^{{{TIME:g}}}$")
    ax.set(xlabel="cosine ρ of the features of b and c", ylabel="held-out coefficient β")
    ax.set(xlim=(-0.02, 1), ylim=(-0.04, 1.03))
    ax.legend(frameon=False, loc="lower right")
    return fig


DRAWING = Drawing(
    "With the answers' features frozen one matrix deduces just what they already relate, a low-rank one "
    "always more",
    draw,
)


def claims(points: list[Point]) -> list[Claim]:
    """One claim per way of training the input side."""
    found = []
    for factored, name in ((False, "one_matrix"), (True, "low_rank")):
        off = [round(p.beta - p.law, 5) for p in points if p.factored == factored]
        found.append(
            Claim(
                id=f"prior_frozen_features_{name}",
                statement=f"Frozen answer features of cosine ρ, {NAMES[factored]}",
                source="derived (docs/theory.md §11)",
                expected=f"β within {LAW_WITHIN} of the law at t = 1e{TIME:g}, ρ in {COSINES}",
                measured={"beta_minus_law": off, "beta": [p.beta for p in points if p.factored == factored]},
                tolerance=LAW_WITHIN,
                holds=max(map(abs, off)) <= LAW_WITHIN,
                figure=PICTURE,
            )
        )
    return found


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, cost="slow", drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
