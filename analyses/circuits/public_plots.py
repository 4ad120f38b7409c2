"""Every public drawing of one small model, side by side: what `ocr_interp.viz` can draw, and the call for it.

The model is trained here in seconds; it is an example and not a result.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from mpl_toolkits.mplot3d import Axes3D

from analyses.house.figure import Figure
from analyses.house.reproduce import main
from ocr_interp import FactRecallTask, ModelConfig, Run, TrainConfig, attribute, solve, sweep, train, viz
from ocr_interp.ablation import Site, Zero, run_ablation_study
from ocr_interp.graphs import mechanism_graph
from ocr_interp.viz import PairGeometry, figure_style, save_figure

TASK = FactRecallTask(6, 1, 3, n_noise=2, seq_len=6)
RECIPE = TrainConfig(steps=400, batch_size=60, lr=0.02, log_every=20, device="cpu")
SHORT = TrainConfig(steps=100, batch_size=60, log_every=20, device="cpu")
COLUMNS, SIZE = 2, (9.6, 22.0)
PLACES = {"left": 0.13, "right": 0.98, "top": 0.985, "bottom": 0.005, "wspace": 0.62, "hspace": 0.5}
TITLE: dict[str, Any] = {"fontsize": 8, "loc": "left", "family": "monospace", "pad": 14}
SOLID = ("plot_pair_geometry",)


def calls(run: Run) -> dict[str, tuple[str, Callable[[Any], Any]]]:
    """Name of each public plot function -> the call as it is written, and the call."""
    solution, circuit = solve(TASK), run.circuit
    pair = PairGeometry.of(solution.input_embeddings(), solution.output_embeddings(), TASK)
    hidden = {kind: Site("blocks.0.attn.hook_v", tokens=(kind,)) for kind in ("r1", "r2")}
    specs = {f"values of {kind} zero": Zero().at(site) for kind, site in hidden.items()}
    study = run_ablation_study(run, specs, progress=False)
    axes = {"lr": [0.01, 0.02, 0.05], "seed": [0, 1, 2]}
    rates = sweep(axes, task=TASK, train=SHORT, certificates=False, progress=False)
    strength = viz.OwnAnswerStrength.of(run.subjects_and_relations_W, TASK)
    flat = circuit.embeddings().coordinates(["s1", "r1", "s1+r1", "b0", "c0"])
    one = attribute(run, ["noise0", "noise1", "s1", "r2", "EOS"], "c0", "c1")
    graph = mechanism_graph(run).readable()
    lines = {"saddle": run.saddle.beta, "max-margin": solution.beta} if run.saddle else None
    return {
        "plot_heatmap": ("ax, run.circuit", lambda ax: viz.plot_heatmap(ax, circuit)),
        "plot_spectrum": ("ax, run.circuit", lambda ax: viz.plot_spectrum(ax, circuit)),
        "plot_energy_shares": (
            "ax, run.circuit.energy",
            lambda ax: viz.plot_energy_shares(ax, circuit.energy),
        ),
        "plot_pair_geometry": ("ax, pair", lambda ax: viz.plot_pair_geometry(ax, pair)),
        "plot_coordinates": ("ax, coordinates", lambda ax: viz.plot_coordinates(ax, flat)),
        "plot_alignment": (
            "ax, run.circuit.alignment(solution)",
            lambda ax: viz.plot_alignment(ax, circuit.alignment(solution)),
        ),
        "plot_runs": ('ax, run, "beta", lines=…', lambda ax: viz.plot_runs(ax, run, "beta", lines=lines)),
        "plot_sweep": (
            'ax, result, "train_loss", hue="lr"',
            lambda ax: viz.plot_sweep(ax, rates, "train_loss", hue="lr"),
        ),
        "plot_study": ('ax, study, "accuracy"', lambda ax: viz.plot_study(ax, study, "accuracy")),
        "plot_attribution": ("ax, attribution", lambda ax: viz.plot_attribution(ax, one)),
        "plot_mechanism": (
            "ax, strength, …",
            lambda ax: viz.plot_mechanism(ax, strength, "#0173b2", abs(strength.training_fact)),
        ),
        "plot_circuit": ("ax, graph.readable()", lambda ax: viz.plot_circuit(ax, graph)),
    }


def make(runs: Path, figures: Path) -> None:
    """Draws all of them; nothing is read from the folder of runs."""
    run = train(TASK, ModelConfig(d_head=12), RECIPE, progress=False)
    made = calls(run)
    whole = "plot_circuit"  # needs the width of the page
    with figure_style(font_scale=0.9):
        picture = Picture(figsize=SIZE)
        rows = -(-(len(made) - 1) // COLUMNS) + 1
        grid = picture.add_gridspec(rows, COLUMNS, **PLACES, height_ratios=[1.0] * (rows - 1) + [1.6])
        for k, (name, (written, draw)) in enumerate(made.items()):
            place = grid[-1, :] if name == whole else grid[k // COLUMNS, k % COLUMNS]
            solid = {"projection": "3d"} if name in SOLID else {}
            ax: Axes | Axes3D = picture.add_subplot(place, **solid)
            ax.set_title(f"{name}({written})", parse_math=False, **TITLE)
            draw(ax)
        numbers = {"title": "What ocr_interp.viz draws, on axes of your own", "functions": list(made)}
        save_figure(picture, figures / "public_plots", numbers)


FIGURE = Figure(pictures=("public_plots",), draw=make)

if __name__ == "__main__":
    main()
