"""Public drawings of one small model: what `ocr_interp.viz` can draw, and the call for it.

The model is trained here in seconds; it is an example and not a result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Picture

from analyses.house.drawing import WIDTH
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from ocr_interp import FactRecallTask, ModelConfig, Run, TrainConfig, attribute, solve, sweep, train, viz
from ocr_interp.ablation import Site, Zero, run_ablation_study
from ocr_interp.graphs import mechanism_graph
from ocr_interp.viz import PairGeometry, figure_style, save_figure

TASK = FactRecallTask(6, 1, 3, n_noise=2, seq_len=6)
RECIPE = TrainConfig(steps=400, batch_size=60, lr=0.02, log_every=20, device="cpu")
SHORT = TrainConfig(steps=100, batch_size=60, log_every=20, device="cpu")
SOLID = ("plot_pair_geometry",)
Place = tuple[float, float, float, float]


@dataclass(frozen=True)
class Page:
    """A picture of some functions.

    Attributes:
        title: its sentence.
        height: in inches; the width is that of a page.
        places: name of a function -> left, top, width and height of its axes, in inches.
    """

    title: str
    height: float
    places: dict[str, Place]


MIDDLE = WIDTH / 2 + 0.1
"""Inches from the left at which the calls of a second column start."""

ABOVE = 0.3
"""Inches between a call and its drawing."""

PAGES = {
    "public_plots": Page(
        "ocr_interp.viz draws what an OV circuit holds, on axes of your own",
        7.5,
        {
            "plot_heatmap": (0.35, 0.85, 2.4, 1.5),
            "plot_spectrum": (3.95, 0.75, 2.5, 1.5),
            "plot_energy_shares": (1.08, 3.3, 2.5, 1.4),
            "plot_pair_geometry": (4.0, 3.2, 2.0, 1.6),
            "plot_coordinates": (0.55, 5.6, 2.3, 1.4),
            "plot_alignment": (4.75, 5.5, 1.75, 1.5),
        },
    ),
    "public_plots_runs": Page(
        "ocr_interp.viz draws runs, sweeps, ablations and prompts, on axes of your own",
        5.1,
        {
            "plot_runs": (0.55, 0.75, 2.5, 1.5),
            "plot_sweep": (3.95, 0.75, 2.5, 1.5),
            "plot_study": (1.15, 3.15, 1.9, 1.2),
            "plot_attribution": (4.0, 3.15, 2.45, 1.2),
        },
    ),
    "public_plots_circuit": Page(
        "ocr_interp.viz draws a circuit small or whole, on axes of your own",
        7.5,
        {"plot_mechanism": (1.1, 0.65, 4.4, 1.55), "plot_circuit": (0.0, 2.6, WIDTH, 4.9)},
    ),
}
"""Name of a picture -> what it has."""


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


def draw_page(page: Page, made: dict[str, tuple[str, Callable[[Any], Any]]]) -> Picture:
    """The drawings of a page, each below its call."""
    fig = Picture(figsize=(WIDTH, page.height))
    above: dict[str, Any] = {"ha": "left", "va": "top"}
    fig.text(0.01, 1 - 0.08 / page.height, page.title, **above, fontsize=9.5, fontweight="bold")
    for name, (left, top, width, height) in page.places.items():
        written, draw = made[name]
        box = (left / WIDTH, 1 - (top + height) / page.height, width / WIDTH, height / page.height)
        more: dict[str, Any] = {"projection": "3d"} if name in SOLID else {}
        ax = fig.add_axes(box, **more)
        call = f"{name}({written})"
        x, y = (MIDDLE if left > MIDDLE else 0.07) / WIDTH, 1 - (top - ABOVE) / page.height
        fig.text(x, y, call, **above, fontsize=6.5, family="monospace", parse_math=False)
        draw(ax)
    return fig


def make(runs: Path, figures: Path) -> None:
    """Draws all of them; nothing is read from the folder of runs."""
    run = train(TASK, ModelConfig(d_head=12), RECIPE, progress=False)
    made = calls(run)
    with figure_style(font_scale=0.85):
        for name, page in PAGES.items():
            picture = draw_page(page, made)
            save_figure(picture, figures / name, {"title": page.title, "functions": list(page.places)})


FIGURE = Figure(pictures=tuple(PAGES), draw=make)

if __name__ == "__main__":
    main()
