"""β as a memory of the start: a small start deduces more than the theorem's solution, a large one less.

β of the factorized model at four training losses against the size of its start. Lines: the reduced flow of
infinitely wide models, whose start has one number. Points: gradient descent, entries of this size / √d.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.saddle.criteria import TASK
from analyses.saddle.memory_criteria import (
    LOSSES,
    POINTS_WITHIN,
    SIZES,
    TRAINED_LOSSES,
    WIDTHS,
    WITH_POINTS,
)
from analyses.saddle.runs import descend, flow, noise_free
from ocr_interp import solve
from ocr_interp.theory import saddle_solution

PICTURE = "saddle_memory_of_the_start"
COLORS = ("#fdae6b", "#f16913", "#a63603", "#3f0d00")
MARKERS = {str(width): marker for width, marker in zip(WIDTHS, ("o", "s"), strict=True)}


@dataclass(frozen=True)
class Measured:
    """β [size, loss] of the flow, and [width, size, loss] of descent, for WITH_POINTS sizes."""

    of_flow: np.ndarray
    of_descent: np.ndarray


def make(runs: Path, figures: Path) -> Measured:
    of_flow = []
    for size in SIZES:
        path = flow(TASK, size, 2.6)
        lost = -path.log_loss / np.log(10)
        start = int(np.argmin(lost))
        of_flow.append(np.interp(LOSSES, lost[start:], path.beta[start:]))
    of_descent = [
        [
            [d.at_log10_loss(-loss) for loss in TRAINED_LOSSES]
            for d in (
                descend(runs, TASK, TRAINED_LOSSES[-1] + 4.0, entries=size / width**0.5, d_head=width)
                for size in WITH_POINTS
            )
        ]
        for width in WIDTHS
    ]
    measured = Measured(np.array(of_flow), np.array(of_descent))
    numbers = {
        "size": SIZES,
        "log10_loss": [-loss for loss in LOSSES],
        "flow": measured.of_flow,
        "descent": {str(width): measured.of_descent[w] for w, width in enumerate(WIDTHS)},
        "size_of_descent": WITH_POINTS,
    }
    DRAWING.write(figures / PICTURE, numbers)
    return measured


def draw(numbers: dict[str, Any]) -> Picture:
    """β by size of the start, one line per training loss; descent as marks."""
    fig, ax = plt.subplots(figsize=(WIDTH, 4.0), layout="constrained")
    flow_of, sizes = np.array(numbers["flow"]), numbers["size"]
    for k, (loss, color) in enumerate(zip(numbers["log10_loss"], COLORS, strict=True)):
        ax.plot(sizes, flow_of[:, k], color=color, lw=2, label=f"flow, loss $10^{{{loss}}}$")
        for width, of_width in numbers["descent"].items():
            beta = np.array(of_width)
            if k < beta.shape[1]:
                ax.plot(numbers["size_of_descent"], beta[:, k], MARKERS[width], color=color, ms=5)
    task = noise_free(TASK)
    for beta, name in ((saddle_solution(task).beta, "saddle"), (solve(task).beta, "max-margin solution")):
        ax.axhline(beta, color="0.25", ls=":", lw=1.2)
        ax.text(sizes[-1], beta + 0.01, name, fontsize=8, color="0.25", ha="right")
    for width, marker in MARKERS.items():
        ax.plot([], [], marker, color="0.4", ms=5, label=f"descent, d_head {width}")
    ax.set(xscale="log", ylim=(0, 0.87), ylabel="held-out coefficient β")
    ax.set_xlabel("size of the start: standard deviation of the entries × √d_head")
    ax.legend(frameon=False, loc="lower left")
    return fig


DRAWING = Drawing(
    "A small start deduces more than the max-margin solution, a large one less, even at a training loss of "
    "1e-100",
    draw,
)


def claims(measured: Measured) -> list[Claim]:
    """β falls with the size of the start, and wide models follow the flow."""
    late = measured.of_flow[:, -1]
    best = solve(noise_free(TASK)).beta
    interpolated = np.array(
        [
            [np.interp(np.log(s), np.log(SIZES), measured.of_flow[:, k]) for k in range(len(TRAINED_LOSSES))]
            for s in WITH_POINTS
        ]
    )
    off = np.abs(measured.of_descent - interpolated)
    return [
        Claim(
            id="memory_of_the_start",
            statement="At a training loss of 1e-100 β still falls with the size of the start: above the "
            "max-margin "
            "solution's for small starts, below it for large ones",
            source="derived (docs/theory.md §10)",
            expected="β of the flow decreases with the size at every loss, and crosses the max-margin "
            "solution's",
            measured={
                "beta_at_1e-100": late.tolist(),
                "max_margin": best,
                "largest_rise_by_loss": np.diff(measured.of_flow, axis=0).max(axis=0).tolist(),
            },
            tolerance=0.0,
            holds=bool((np.diff(measured.of_flow, axis=0) < 0).all() and late[0] > best > late[-1]),
            figure=PICTURE,
        ),
        Claim(
            id="memory_of_the_start_at_finite_width",
            statement="Models of finite width follow the flow of infinite width at equal entries × √d_head",
            source="derived (docs/theory.md §10)",
            expected=f"β of descent within {POINTS_WITHIN} of the flow at width {WIDTHS[-1]}, every size "
            "and loss",
            measured={f"largest_difference_width_{w}": float(off[k].max()) for k, w in enumerate(WIDTHS)},
            tolerance=POINTS_WITHIN,
            holds=bool(off[-1].max() <= POINTS_WITHIN),
            figure=PICTURE,
        ),
    ]


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, cost="slow", drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
