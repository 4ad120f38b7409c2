"""β as a memory of the start: a small start deduces more than the theorem's solution, a large one less.

β of the factorized model at four training losses against the size of its start. Lines: the reduced flow of
infinitely wide models, whose start has one number. Points: gradient descent, entries of this size / √d.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from analyses.house.claims import Claim
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
from ocr_interp.viz.style import figure_style, save_figure

PICTURE = "saddle_memory_of_the_start"
COLORS = ("#fdae6b", "#f16913", "#a63603", "#3f0d00")
MARKERS = dict(zip(WIDTHS, ("o", "s"), strict=True))


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
    with figure_style():
        fig, ax = plt.subplots(figsize=(6.2, 4.2), layout="constrained")
        for k, (loss, color) in enumerate(zip(LOSSES, COLORS, strict=True)):
            ax.plot(SIZES, measured.of_flow[:, k], color=color, lw=2, label=f"loss $10^{{-{loss}}}$")
            for w, width in enumerate(WIDTHS if loss in TRAINED_LOSSES else ()):
                ax.plot(WITH_POINTS, measured.of_descent[w, :, k], MARKERS[width], color=color, ms=5)
        task = noise_free(TASK)
        for beta, name in ((saddle_solution(task).beta, "saddle"), (solve(task).beta, "max-margin solution")):
            ax.axhline(beta, color="0.25", ls=":", lw=1.2)
            ax.text(SIZES[0], beta + 0.01, name, fontsize=9, color="0.25")
        for width, marker in MARKERS.items():
            ax.plot([], [], marker, color="0.4", ms=5, label=f"descent, d_head {width}")
        ax.set(xscale="log", ylim=(0, 0.87), ylabel="held-out coefficient β")
        ax.set_xlabel("size of the start: standard deviation of the entries × √d_head")
        ax.set_title("A small start deduces more than the theorem says, a large one less", loc="left")
        ax.legend(frameon=False, fontsize=9, loc="lower left")
        numbers = {
            "size": SIZES,
            "log10_loss": [-loss for loss in LOSSES],
            "flow": measured.of_flow,
            "descent": {str(width): measured.of_descent[w] for w, width in enumerate(WIDTHS)},
            "size_of_descent": WITH_POINTS,
        }
        save_figure(fig, figures / PICTURE, numbers)
        plt.close(fig)
    return measured


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


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, cost="slow")


if __name__ == "__main__":
    main()
