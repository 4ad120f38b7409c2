"""Is the untold implication deduced with an MLP or a second layer, and does a small start deduce more?

β of the whole model (held-out coefficient over told coefficient) and held-out accuracy against the size of
the start, gradient descent and AdamW, 5 seeds; controls: random weights, and models told facts alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.mlp.criteria import ABOVE, CONTROL, DEDUCED, NARROW, SIZES, STARTS
from analyses.mlp.models import ARCHITECTURES, answers
from analyses.mlp.runs import QUESTIONS, fresh, implication_logits, models
from analyses.mlp.training import RULES

PICTURE = "mlp_deduction"
COLORS = dict(zip(ARCHITECTURES, ("#949494", "#0173b2", "#de8f05", "#029e73"), strict=True))
RIGHT = ("axes fraction", "data")
NAMES = {"descent": "gradient descent", "adamw": "AdamW without decay"}


@dataclass(frozen=True)
class Measured:
    """One architecture, rule and start; one value per seed.

    Attributes:
        size: of the start; told: whether any implication was; rank: `models.Answers.rank`.
    """

    architecture: str
    rule: str
    size: float
    told: bool
    accuracy: list[float]
    ratio: list[float]
    rank: list[float]
    loss: list[float]
    steps: list[int]


def measure(runs: Path, name: str, rule: str, size: float, told: bool = True) -> Measured:
    """Trains, or reads what was trained."""
    found = models(runs, name, rule, size, told=told)
    given = answers(implication_logits(name, found.weights), QUESTIONS)
    return Measured(
        name,
        rule,
        size,
        told,
        given.accuracy.tolist(),
        given.ratio.tolist(),
        given.rank.tolist(),
        found.loss.tolist(),
        found.steps.tolist(),
    )


def make(runs: Path, figures: Path) -> list[Measured]:
    measured = [
        measure(runs, name, rule, size) for name in ARCHITECTURES for rule in RULES for size in STARTS
    ]
    measured += [measure(runs, name, rule, STARTS[1], told=False) for name in ARCHITECTURES for rule in RULES]
    for name in ARCHITECTURES:
        given = answers(implication_logits(name, fresh(name, STARTS[1])), QUESTIONS)
        nothing = [float("nan")] * len(given.accuracy)
        measured.append(
            Measured(name, "random", STARTS[1], False, given.accuracy.tolist(), nothing, [], [], [])
        )
    DRAWING.write(figures / PICTURE, {"runs": [vars(m) for m in measured]})
    return measured


def draw(numbers: dict[str, Any]) -> Picture:
    """β and held-out accuracy against the start, a column per rule, a colour per architecture."""
    fig, axes = plt.subplots(2, 2, figsize=(WIDTH, 4.9), sharex=True, sharey="row", layout="constrained")
    r = SIZES[1] / SIZES[2]
    for column, rule in enumerate(RULES):
        for name, color in COLORS.items():
            mine = [
                m for m in numbers["runs"] if m["told"] and (m["architecture"], m["rule"]) == (name, rule)
            ]
            for ax, values in zip(axes[:, column], ("ratio", "accuracy"), strict=True):
                ax.plot(STARTS, [np.mean(m[values]) for m in mine], "-", color=color, lw=1.6, label=name)
                for m in mine:
                    ax.plot([m["size"]] * len(m[values]), m[values], "o", color=color, ms=3.5, alpha=0.6)
        above, below = axes[:, column]
        lines = {
            (above, "$r^{1/4}$"): r**0.25,
            (above, "$\\sqrt{r}$"): r**0.5,
            (below, "chance"): 1 / SIZES[0],
        }
        for (ax, label), value in lines.items():
            ax.axhline(value, color="0.4", ls=":", lw=1)
            if column == 1:
                ax.annotate(label, (1.01, value), xycoords=RIGHT, va="center", fontsize=8)
        above.set_title(NAMES[rule], loc="left")
        below.set(xscale="log", xlabel="size of the entries at the start")
        below.set_xticks(STARTS, [f"{size:g}" for size in STARTS])
        below.minorticks_off()
    axes[0, 0].set_ylabel("held-out coefficient\nover told, β")
    axes[1, 0].set_ylabel("untold implications\nright, share")
    axes[1, 0].set_ylim(0, 1.04)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, columnspacing=1.2)
    return fig


DRAWING = Drawing(
    "With an MLP or a second layer, too, gradient descent deduces from small starts, hardly from large ones",
    draw,
)


def claims(measured: list[Measured]) -> list[Claim]:
    """Deduced from the smallest start, and the sign of the saddle law; controls; how narrow the code is."""
    found = []
    for name in ARCHITECTURES:
        for rule in RULES:
            mine = [m for m in measured if m.told and (m.architecture, m.rule) == (name, rule)]
            named = f"{name.lower().replace(' ', '_').replace(',', '')}_{rule}"
            found.append(
                Claim(
                    id=f"mlp_deduced_{named}",
                    statement=f"{name}, trained embeddings, {NAMES[rule]}: the untold implication is deduced",
                    source="conjectured (analyses/mlp/criteria.py)",
                    expected=f"held-out accuracy >= {DEDUCED} from entries of {STARTS[0]:g}, every seed",
                    measured={"accuracy": mine[0].accuracy, "training_loss": mine[0].loss},
                    tolerance=0.0,
                    holds=min(mine[0].accuracy) >= DEDUCED,
                    figure=PICTURE,
                )
            )
            means = [float(np.mean(m.ratio)) for m in mine]
            falls = all(first > second for first, second in pairwise(means))
            found.append(
                Claim(
                    id=f"mlp_sign_{named}",
                    statement=f"{name}, trained embeddings, {NAMES[rule]}: a small start deduces more "
                    "than √r, and a larger one less",
                    source="docs/theory.md §10, asked of other models",
                    expected=f"mean β above {ABOVE:.3f} from entries of {STARTS[0]:g}, falling over "
                    f"{', '.join(f'{size:g}' for size in STARTS)}",
                    measured={"mean_beta": means, "smallest_start": mine[0].ratio},
                    tolerance=0.0,
                    holds=falls and means[0] > ABOVE,
                    figure=PICTURE,
                )
            )
    controls = [m for m in measured if not m.told]
    found.append(
        Claim(
            id="mlp_controls",
            statement="Random weights, and models that were told facts alone, do not know the implication",
            source="control",
            expected=f"mean held-out accuracy <= {CONTROL}, every architecture and rule; chance 0.1",
            measured={
                "facts_alone": [float(np.mean(m.accuracy)) for m in controls if m.rule != "random"],
                "random_weights": [float(np.mean(m.accuracy)) for m in controls if m.rule == "random"],
            },
            tolerance=0.0,
            holds=max(float(np.mean(m.accuracy)) for m in controls) <= CONTROL,
            figure=PICTURE,
        )
    )
    ranks = {size: [m.rank for m in measured if m.told and m.size == size] for size in STARTS}
    means = [float(np.mean(ranks[size])) for size in STARTS]
    found.append(
        Claim(
            id="mlp_narrow_code",
            statement="The smaller the start, the fewer directions carry the implications",
            source="added after the runs, to explain wrong answers beside a high β",
            expected=f"mean effective rank rises over starts {', '.join(f'{s:g}' for s in STARTS)} and is "
            f"below {NARROW} at the smallest; {SIZES[0] - 1} directions is the most",
            measured={f"rank_from_{size:g}": np.mean(ranks[size], axis=1).tolist() for size in STARTS},
            tolerance=0.0,
            holds=means[0] < NARROW and all(first < second for first, second in pairwise(means)),
            figure=PICTURE,
        )
    )
    return found


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, cost="slow", drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
