"""Figure 2: the OV weights of both trained models, and the mechanism that they show.

The held-out implication block was never told. The factorized model fills it, the other one does not.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from analyses.house.figure import Figure
from analyses.house.looks import COLORS
from analyses.house.reproduce import main
from analyses.paper.runs import load_all, named
from ocr_interp.viz.heatmaps import plot_ov_circuit
from ocr_interp.viz.mechanism import OwnAnswerStrength, plot_mechanism
from ocr_interp.viz.style import figure_style, save_figure

SHOWN_SEED = 0
UNIT = r"$\mathrm{diag}(a)\,W_{OV}$ / smallest training margin"
TITLES = {
    "non_factorized": "Non-factorized: one matrix $W_{OV}$. What was never told stays empty.",
    "factorized": "Factorized: $W_V W_O$. What was never told is filled in.",
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
    limit = float(np.quantile(np.abs(circuits["factorized"][SHOWN_SEED]), 0.995))
    numbers = {}
    with figure_style():
        fig, axes = plt.subplots(2, 2, figsize=(12, 7.4), width_ratios=(3.4, 1), layout="constrained")
        for (heat, diagram), name in zip(axes, TITLES, strict=True):
            run = trained[name][SHOWN_SEED]
            loss = [r.history["held_out_implication/loss"].iloc[-1] for r in trained[name]]
            plot_ov_circuit(heat, circuits[name][SHOWN_SEED], run.task, limit, UNIT)
            heat.set_title(
                f"{TITLES[name]} Held-out implication loss {np.mean(loss):.3g} "
                f"(guessing: ln {run.task.n_implications} = {np.log(run.task.n_implications):.2f})",
                loc="left",
                fontsize=10.5,
                pad=16,
            )
            shown = strengths[name][SHOWN_SEED]
            plot_mechanism(diagram, shown, COLORS[name], shown.training_fact)
            diagram.set_title("own answer minus the others", fontsize=9.5)
            numbers[name] = {
                "shown_seed": SHOWN_SEED,
                "steps": run.step,
                "circuit_over_margin": circuits[name][SHOWN_SEED],
                "own_answer_strength_by_seed": [dataclasses.asdict(s) for s in strengths[name]],
                "held_out_implication_loss_by_seed": loss,
            }
    order = "rows s0..s79, r1, r2; columns b0..b19, c0..c19"
    save_figure(fig, figures / "figure_2_ov_weights", {"unit": UNIT, "circuit_order": order, **numbers})


FIGURE = Figure(pictures=("figure_2_ov_weights",), draw=make, experiments=named(*TITLES))


if __name__ == "__main__":
    main()
