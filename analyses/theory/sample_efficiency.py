"""Sample efficiency: in balanced tasks one training implication per pair is enough, and none is not.

"Any m_train > 0 is enough" is a statement about balanced tasks. The counterexample is an unbalanced task
with training implications for every pair, whose held-out margin is negative under both norms.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.looks import COLORS, NAMES
from analyses.house.reproduce import main
from analyses.theory.limit_runs import (
    NORMS,
    OV_KINDS,
    OvKind,
    descend,
    limit_margin,
    margin_ratio,
    noise_free_task,
    solver_margin,
)
from ocr_interp import FactRecallTask, solve
from ocr_interp.viz.style import HELD_OUT

N_PAIRS, M_TEST = 5, 4
M_TRAIN = range(7)
STEPS = 10_000
TOLERANCE = 0.01
PICTURE = "sample_efficiency"
COUNTEREXAMPLE = FactRecallTask.from_mapping(
    [0] * 21 + [1] * 50, [0, 1], [True] + [False] * 20 + [True] * 50, n_noise=0, seq_len=3
)
EXPECTED_COUNTEREXAMPLE = -0.078


@dataclass(frozen=True)
class Margins:
    """Smallest held-out implication margin over the smallest training margin, found four ways.

    `accuracy` is that of the held-out implications among all answers, after gradient descent.
    """

    closed_form: float
    solver: float
    computed_limit: float
    gradient_descent: float
    accuracy: float


def measure(task: FactRecallTask, ov: OvKind, run_dir: Path) -> Margins:
    """All four; NaN for a closed form that does not exist or a solution that was not reached."""
    balanced = task.balanced_sizes is not None
    run = descend(task, ov, STEPS, run_dir)
    return Margins(
        closed_form=solve(task, NORMS[ov]).held_out_margin if balanced else math.nan,
        solver=solver_margin(task, ov),
        computed_limit=limit_margin(task, ov),
        gradient_descent=margin_ratio(run, STEPS),
        accuracy=float(run.history["held_out_implication/accuracy"].iloc[-1]),
    )


def draw(numbers: dict[str, Any]) -> Picture:
    """Left balanced tasks, right the counterexample."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 4.0), width_ratios=(5, 4), layout="constrained")
    draw_balanced(left, numbers["m_train"], numbers["balanced"])
    draw_counterexample(right, numbers["counterexample"])
    fig.legend(handles=legend_handles(), loc="outside lower center", ncols=2, frameon=False)
    return fig


def draw_balanced(ax: Axes, m_train: list[int], found: dict[str, list[dict[str, Any]]]) -> None:
    """Margins against the number of training implications per pair."""
    for ov, margins in found.items():
        color = COLORS[ov]
        ax.plot(m_train, [m["closed_form"] for m in margins], ":", color=color, lw=1.6)
        ax.plot(m_train, [m["gradient_descent"] for m in margins], "D", ms=5.5, color=color, mec="white")
        for way in ("solver", "computed_limit"):
            ax.plot(m_train, [m[way] for m in margins], "x", ms=5, color="0.15")
    ax.axhline(0, color="0.6", lw=0.8, zorder=0)
    ax.annotate("one is enough", (1, 0.5), (1.5, 0.4), fontsize=8, va="center",
                arrowprops={"arrowstyle": "-", "color": "0.5", "shrinkB": 5})  # fmt: skip
    ax.text(-0.1, -0.06, "none: nothing is deduced", va="top", fontsize=8)
    ax.set(xlabel="told implications a pair, $m_{train}$", ylabel="untold margin / training margin")
    ax.set_ylim(-0.17, 1.08)
    ax.set_title(f"balanced: {N_PAIRS} pairs, {M_TEST} untold each", loc="left")


def draw_counterexample(ax: Axes, found: dict[str, dict[str, Any]]) -> None:
    """Bars by method; below zero the wrong implication is preferred."""
    ways = {"solver": "smallest norm,\ncomputed", "gradient_descent": "gradient\ndescent"}
    for k, (ov, margins) in enumerate(found.items()):
        heights = [margins[way] for way in ways]
        places = np.arange(len(ways)) + 0.4 * (k - 0.5)
        bars = ax.bar(places, heights, 0.38, color=COLORS[ov], label=NAMES[ov])
        ax.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    ax.axhline(0, color="0.15", lw=1)
    bottom = ax.get_ylim()[0] * 1.12
    ax.axhspan(bottom, 0, color=HELD_OUT, alpha=0.07, zorder=0, lw=0)
    ax.set_ylim(bottom, -0.12 * bottom)
    ax.text(0.03, 0.04, "below 0: a wrong\nimplication wins", transform=ax.transAxes, color=HELD_OUT,
            fontsize=8)  # fmt: skip
    ax.set_xticks(range(len(ways)), list(ways.values()))
    ax.set_title("unbalanced: one told of 21,\nbeside a pair of 50 told", loc="left")


def legend_handles() -> list[Line2D | Patch]:
    """Legend entries for colours and markers."""
    return [
        *(Patch(color=COLORS[ov], label=NAMES[ov]) for ov in OV_KINDS),
        Line2D([], [], ls=":", color="0.15", label="smallest norm, closed form"),
        Line2D([], [], ls="", marker="x", ms=5, color="0.15", label="smallest norm, computed in two ways"),
        Line2D([], [], ls="", marker="D", ms=5, color="0.15", label=f"{STEPS:,} steps of gradient descent"),
    ]


DRAWING = Drawing(
    "One told implication a pair is enough where pairs are of equal size; where they are not, it can be "
    "too few",
    draw,
)


def by_way(margins: list[Margins], ways: tuple[str, ...]) -> dict[str, list[float] | int]:
    """Rounded values; computed solutions that were not reached are counted instead."""
    found = {way: [float(getattr(m, way)) for m in margins] for way in ways}
    missing = sum(math.isnan(v) for values in found.values() for v in values)
    shown = {way: [round(v, 6) for v in values if not math.isnan(v)] for way, values in found.items()}
    return {**shown, "limits_not_reached": missing}


def claims(balanced: dict[OvKind, list[Margins]], unbalanced: dict[OvKind, Margins]) -> list[Claim]:
    """The claims of the figure; a computed solution that was not reached fails its claim."""
    exact, trained = ("closed_form", "solver", "computed_limit"), ("gradient_descent",)
    some, source = balanced["factorized"][1:], "docs/theory.md; balanced tasks: Theorem 2 of the paper"
    enough = all(getattr(m, way) > TOLERANCE for m in some for way in exact + trained)
    none = [balanced[ov][0] for ov in OV_KINDS]
    silent = all(abs(getattr(m, way)) <= TOLERANCE for m in none for way in exact + trained)
    one, other = unbalanced["factorized"], unbalanced["non_factorized"]
    negative = one.gradient_descent < 0 and all(
        abs(getattr(one, way) - EXPECTED_COUNTEREXAMPLE) <= TOLERANCE for way in exact[1:]
    )
    table = [
        (
            "sample_efficiency_balanced",
            "Factorized, balanced: one training implication a pair is enough",
            f"held-out margin > {TOLERANCE} for m_train = 1..{M_TRAIN[-1]}, all four ways",
            by_way(some, (*exact, *trained, "accuracy")),
            enough,
        ),
        (
            "sample_efficiency_none",
            "Without training implications nothing is deduced, under either norm",
            f"held-out margin 0 within {TOLERANCE}, both models, all four ways",
            by_way(none, (*exact, *trained, "accuracy")),
            silent,
        ),
        (
            "sample_efficiency_counterexample",
            "Unbalanced pairs (1, 20) and (50, 0): told implications in every pair are not enough",
            f"factorized: held-out margin {EXPECTED_COUNTEREXAMPLE} by solver and by L-BFGS, "
            f"negative after {STEPS:,} steps of gradient descent",
            by_way([one], (*exact[1:], *trained, "accuracy"))
            | {f"non_factorized_{k}": v for k, v in by_way([other], (*exact[1:], *trained)).items()},
            negative,
        ),
    ]
    return [
        Claim(name, statement, source, expected, measured, TOLERANCE, bool(holds), PICTURE)
        for name, statement, expected, measured, holds in table
    ]


def make(runs: Path, figures: Path) -> tuple[dict[OvKind, list[Margins]], dict[OvKind, Margins]]:
    where = runs / "sample_efficiency"
    balanced: dict[OvKind, list[Margins]] = {
        ov: [measure(noise_free_task(N_PAIRS, m, M_TEST), ov, where / f"{ov}_{m}") for m in M_TRAIN]
        for ov in OV_KINDS
    }
    unbalanced: dict[OvKind, Margins] = {
        ov: measure(COUNTEREXAMPLE, ov, where / f"{ov}_counterexample") for ov in OV_KINDS
    }
    numbers = {
        "gradient_descent_steps": STEPS,
        "m_train": list(M_TRAIN),
        "balanced": {ov: [asdict(m) for m in margins] for ov, margins in balanced.items()},
        "counterexample": {ov: asdict(margins) for ov, margins in unbalanced.items()},
    }
    DRAWING.write(figures / PICTURE, numbers)
    return balanced, unbalanced


FIGURE = Figure(
    pictures=(PICTURE,),
    draw=make,
    claims=lambda measured: claims(*measured),
    cost="slow",
    drawings={PICTURE: DRAWING},
)


if __name__ == "__main__":
    main()
