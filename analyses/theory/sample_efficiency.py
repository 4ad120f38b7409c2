"""Sample efficiency: in balanced tasks one training implication per pair is enough, and none is not.

"Any m_train > 0 is enough" is a statement about balanced tasks. The counterexample is an unbalanced task
with training implications for every pair, whose held-out margin is negative under both norms.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analyses.house.claims import Claim
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
from ocr_interp.viz.style import HELD_OUT, figure_style, save_figure

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


def draw_balanced(ax: Axes, found: dict[OvKind, list[Margins]]) -> None:
    """Margins against the number of training implications per pair."""
    for ov, margins in found.items():
        color = COLORS[ov]
        ax.plot(M_TRAIN, [m.closed_form for m in margins], ":", color=color, lw=1.6)
        ax.plot(M_TRAIN, [m.gradient_descent for m in margins], "D", ms=6, color=color, mec="white")
        ax.plot(M_TRAIN, [m.solver for m in margins], "s", ms=10, mfc="none", mec="0.15")
        ax.plot(M_TRAIN, [m.computed_limit for m in margins], "x", ms=5, color="0.15")
    ax.axhline(0, color="0.6", lw=0.8, zorder=0)
    ax.text(-0.12, -0.05, "none told: nothing is deduced", va="top")
    ax.text(1.25, 0.5, "one a pair is enough", va="center")
    ax.set(xlabel="training implications a pair, $m_{train}$", ylabel="held-out margin / training margin")
    ax.set_ylim(-0.17, 1.08)
    ax.set_title(f"Balanced: {N_PAIRS} pairs, {M_TEST} held-out subjects each", loc="left")


def draw_counterexample(ax: Axes, found: dict[OvKind, Margins]) -> None:
    """Bars by method; below zero the wrong implication is preferred."""
    ways = {
        "solver": "solver",
        "computed_limit": "by\nL-BFGS",
        "gradient_descent": f"gradient descent,\n{STEPS:,} steps",
    }
    for k, (ov, margins) in enumerate(found.items()):
        heights = [getattr(margins, way) for way in ways]
        bars = ax.bar(np.arange(3) + 0.4 * (k - 0.5), heights, 0.38, color=COLORS[ov], label=NAMES[ov])
        ax.bar_label(bars, fmt="%.3f", padding=3, fontsize=9)
    ax.axhline(0, color="0.15", lw=1)
    bottom = ax.get_ylim()[0] * 1.12
    ax.axhspan(bottom, 0, color=HELD_OUT, alpha=0.07, zorder=0, lw=0)
    ax.set_ylim(bottom, -0.12 * bottom)
    ax.text(0.02, 0.04, "the wrong implication wins", transform=ax.transAxes, color=HELD_OUT)
    ax.set_xticks(range(3), list(ways.values()))
    ax.set_title("Unbalanced: (1 told, 20 held out) beside (50, 0)", loc="left")


def legend_handles() -> list[Line2D]:
    """Legend entries for colours and markers."""
    return [
        *(Line2D([], [], color=COLORS[ov], lw=5, label=NAMES[ov]) for ov in OV_KINDS),
        Line2D([], [], ls=":", color="0.15", label="closed form"),
        Line2D([], [], ls="", marker="s", ms=9, fillstyle="none", color="0.15", label="solver"),
        Line2D([], [], ls="", marker="x", ms=5, color="0.15", label="max-margin solution by L-BFGS"),
        Line2D([], [], ls="", marker="D", color="0.15", label=f"gradient descent, {STEPS:,} steps"),
    ]


def make_figure(
    balanced: dict[OvKind, list[Margins]], unbalanced: dict[OvKind, Margins], figures: Path
) -> None:
    with figure_style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
        draw_balanced(left, balanced)
        draw_counterexample(right, unbalanced)
        fig.legend(handles=legend_handles(), loc="outside lower center", ncols=6, frameon=False)
        numbers = {
            "gradient_descent_steps": STEPS,
            "m_train": list(M_TRAIN),
            "balanced": {ov: [asdict(m) for m in margins] for ov, margins in balanced.items()},
            "counterexample": {ov: asdict(margins) for ov, margins in unbalanced.items()},
        }
        save_figure(fig, figures / PICTURE, numbers)


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
    make_figure(balanced, unbalanced, figures)
    return balanced, unbalanced


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=lambda measured: claims(*measured), cost="slow")


if __name__ == "__main__":
    main()
