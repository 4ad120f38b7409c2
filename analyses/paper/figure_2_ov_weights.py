"""Figure 2: the OV weights of both trained models, and the mechanism that they show.

The held-out implication block was never told. The factorized model fills it, the other one does not.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture

from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.looks import COLORS
from analyses.house.reproduce import main
from analyses.paper.runs import load_all, named
from ocr_interp import FactRecallTask
from ocr_interp.viz.heatmaps import plot_ov_circuit
from ocr_interp.viz.mechanism import OwnAnswerStrength, plot_mechanism

PICTURE = "figure_2_ov_weights"
SHOWN_SEED = 0
UNIT = r"$\mathrm{diag}(a)\,W_{OV}$ / smallest training margin"
SHORT_UNIT = r"$\mathrm{diag}(a)\,W_{OV}$ / margin"
TITLES = {
    "non_factorized": "Non-factorized, one matrix $W_{OV}$: what was never told stays empty",
    "factorized": "Factorized, $W_V W_O$: what was never told is filled in",
}


def make(runs: Path, figures: Path) -> None:
    trained = {name: load_all(runs, name) for name in TITLES}
    circuits = {
        name: [run.subjects_and_relations_W / run.history["train_margin"].iloc[-1] for run in found]
        for name, found in trained.items()
    }
    strengths = {
        name: [OwnAnswerStrength.of(W, run.task) for W, run in zip(circuits[name], found, strict=True)]
        for name, found in trained.items()
    }
    order = "rows s0..s79, r1, r2; columns b0..b19, c0..c19"
    numbers: dict[str, Any] = {"unit": UNIT, "circuit_order": order}
    for name, found in trained.items():
        numbers[name] = {
            "shown_seed": SHOWN_SEED,
            "steps": found[SHOWN_SEED].step,
            "circuit_over_margin": circuits[name][SHOWN_SEED],
            "own_answer_strength_by_seed": [dataclasses.asdict(s) for s in strengths[name]],
            "held_out_implication_loss_by_seed": [
                run.history["held_out_implication/loss"].iloc[-1] for run in found
            ],
        }
    DRAWING.write(figures / PICTURE, numbers)


def draw_weights(numbers: dict[str, Any]) -> Picture:
    """Heat maps of both circuits on one scale, and beside each who writes what."""
    task = FactRecallTask()
    limit = float(np.quantile(np.abs(numbers["factorized"]["circuit_over_margin"]), 0.995))
    fig, axes = plt.subplots(2, 2, figsize=(WIDTH, 5.4), width_ratios=(2.3, 1), layout="constrained")
    for (heat, diagram), name in zip(axes, TITLES, strict=True):
        found = numbers[name]
        plot_ov_circuit(heat, np.array(found["circuit_over_margin"]), task, limit, SHORT_UNIT)
        loss = np.mean(found["held_out_implication_loss_by_seed"])
        guess = f"guessing: ln {task.n_implications} = {np.log(task.n_implications):.2f}"
        heat.set_title(
            f"{TITLES[name]}\nheld-out implication loss {loss:.2g} ({guess})",
            loc="left",
            fontsize=8,
            pad=14,
        )
        shown = OwnAnswerStrength(**found["own_answer_strength_by_seed"][found["shown_seed"]])
        plot_mechanism(diagram, shown, COLORS[name], shown.training_fact)
        diagram.set_title("own answer\nminus the others", fontsize=7.5)
    return fig


DRAWING = Drawing(
    "Two factors fill in the implications that were never told (red), one matrix leaves them empty",
    draw_weights,
)

FIGURE = Figure(pictures=(PICTURE,), draw=make, experiments=named(*TITLES), drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
