"""The figures of the optimiser study about theory: distances from each norm, and Muon's fixed point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analyses.house.drawing import WIDTH, Drawing
from analyses.house.looks import COLORS, NAMES
from analyses.optimizers.claims import PREDICTED
from analyses.optimizers.exact import MuonPath, orthogonal_path
from analyses.optimizers.figures import histories, joined, predicted_beta, select
from analyses.optimizers.predictions import NORMS, BetaRange, beta_range
from analyses.optimizers.runs import FEW_PAIRS, OPTIMIZERS, OV_KINDS, PAPER_TASK, SCHATTEN, Study, baselines
from ocr_interp.viz.curves import plot_band

NORM_NAMES = {
    "nuclear": "nuclear",
    "frobenius": "Frobenius",
    "spectral": "spectral",
    "entry": "largest entry of $W_{OV}$",
    "gamma_2": "γ₂, of the factors",
}
NORM_COLORS: dict[str, str] = dict(
    zip(NORMS, ("#0173b2", "#de8f05", "#cc78bc", "#029e73", "#029e73"), strict=True)
)
SLACKS = (1e-5, 0.01, 0.1)
TASKS = (PAPER_TASK, *FEW_PAIRS)
EXACT = {"exact, non-factorized": None, "exact, factorized": 0}
"""Paths along the exact polar factor: name -> seed of the factors."""


def draw_theory(study: Study, figures: Path) -> dict[Any, MuonPath]:
    """Writes both figures; returns the exact paths by (task, name)."""
    ranges = {(s, norm): [beta_range(s, norm, slack) for slack in SLACKS] for s in TASKS for norm in NORMS}
    paths = {
        (s, name): orthogonal_path(s, "exact", 10_000, 5e-3, 100, seed)
        for s in FEW_PAIRS
        for name, seed in EXACT.items()
    }
    GEOMETRY.write(figures / "optimizer_geometry", _geometry_numbers(study.cells))
    LIMITS.write(figures / "optimizer_limits", _limit_numbers(study, ranges, paths))
    return paths


LIMITS_TITLE = (
    "Only with few pairs does the spectral norm decide β, and Muon as shipped can miss what it decides"
)
GEOMETRY_TITLE = (
    "At the end the norm of an optimiser's own geometry is often not the one nearest to its minimum"
)


def draw_geometry(numbers: dict[str, Any]) -> Figure:
    """Shares of runs by the norm that is nearest to its minimum: one bar per optimiser and kind of model."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.0), sharey=True, layout="constrained")
    for ax, kind in zip(axes, OV_KINDS, strict=True):
        norms = (*SCHATTEN, "gamma_2" if kind == OV_KINDS[0] else "entry")
        for y, name in enumerate(OPTIMIZERS):
            nearest = _nearest(numbers, name, kind, norms)
            left = 0.0
            for norm in norms:
                share = nearest.count(norm) / len(nearest)
                own = norm == PREDICTED[name, kind][1]
                ax.barh(y, share, 0.62, left, color=NORM_COLORS[norm], alpha=1.0 if own else 0.45, lw=0)
                if share:
                    said = f"{'own: ' if own and share > 0.3 else ''}{nearest.count(norm)}"
                    ax.text(
                        left + share / 2,
                        y,
                        said,
                        ha="center",
                        va="center",
                        fontsize=7.5,
                        color="w" if own else "k",
                    )
                left += share
        ax.set(xlim=(0, 1), xlabel="share of runs (numbers: runs)")
        ax.set_title(NAMES[kind], loc="left", color=COLORS[kind])
    axes[0].set_yticks(range(len(OPTIMIZERS)), list(OPTIMIZERS))
    axes[0].invert_yaxis()
    names = {n: NORM_NAMES[n] for n in SCHATTEN} | {"entry": "largest entry (γ₂ of the factors, left)"}
    handles = [Patch(color=NORM_COLORS[n], label=text) for n, text in names.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, title="nearest norm")
    return fig


def _nearest(numbers: dict[str, Any], optimizer: str, kind: str, norms: tuple[str, ...]) -> list[str]:
    """The norm with the smallest relative excess, by run, over all tasks."""
    found = []
    for sizes in FEW_PAIRS:
        runs = numbers[joined((optimizer, kind, sizes))]
        excess = np.array([runs[f"excess_{norm}"] for norm in norms])
        found += [norms[k] for k in excess.argmin(axis=0)]
    return found


GEOMETRY = Drawing(GEOMETRY_TITLE, draw_geometry)


def draw_limits(numbers: dict[str, Any]) -> Figure:
    """Above: the β that the spectral norm allows, by task. Below: Muon's β over training."""
    fig = plt.figure(figsize=(WIDTH, 5.0), layout="constrained")
    halves: Any = fig.subfigures(2, 1, height_ratios=(2, 3))
    above, below = halves
    _allowed(above.subplots(), numbers)
    axes = below.subplots(1, 3, sharey=True)
    for ax, sizes in zip(axes, FEW_PAIRS, strict=True):
        _path_panel(ax, sizes, numbers)
    axes[0].set_ylabel("held-out coefficient β")
    handles, labels = axes[0].get_legend_handles_labels()
    below.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return fig


def _allowed(ax: Axes, numbers: dict[str, Any]) -> None:
    for y, sizes in enumerate(TASKS):
        widths = zip(numbers["ranges"][f"{sizes} | spectral"]["beta"][::-1], (2, 5, 9), strict=True)
        for (low, high), width in widths:
            line = [low, max(high, low + 0.02)]
            ax.plot(line, [y, y], color=NORM_COLORS["spectral"], lw=width, solid_capstyle="butt")
        ax.plot(predicted_beta("spectral", sizes), y, "x", color="k", ms=6, mew=1.6)
    ax.axvline(0, color="0.5", lw=0.8)
    ax.set(xlim=(-2.8, 2.2), ylim=(len(TASKS) - 0.4, -0.6), xlabel="held-out coefficient β")
    ax.set_yticks(range(len(TASKS)), [f"{n} pairs, {a} told, {b} untold" for n, a, b in TASKS])
    what = "β at the smallest spectral norm (thinner: within 1 %, 10 %); ×: predicted for Muon's steps"
    ax.set_title(what, loc="right", fontsize=8)


def _path_panel(ax: Axes, sizes: tuple[int, int, int], numbers: dict[str, Any]) -> None:
    """Muon's β at one task: as shipped by torch, and along the exact polar factor."""
    for name, kind in zip(EXACT, OV_KINDS[::-1], strict=True):
        path, shipped = numbers["exact"][f"{sizes} | {name}"], numbers["as_shipped"][f"{sizes} | {kind}"]
        said = "factorized" if kind == OV_KINDS[0] else "non-factorized"
        ax.plot(
            *(path["step"], path["beta"]),
            color=COLORS[kind],
            ls=(0, (3, 1.5)),
            lw=1.4,
            label=f"exact steps, {said}",
        )
        later = [k for k, step in enumerate(shipped["step"]) if step > 0]
        runs = [
            pd.DataFrame({"step": [shipped["step"][k] for k in later], "beta": [beta[k] for k in later]})
            for beta in shipped["beta"]
        ]
        plot_band(ax, runs, "beta", COLORS[kind], f"Muon as shipped, {said}")
    low, high, *_ = sorted((predicted_beta("spectral", sizes), -min(sizes[1] / sizes[2], 1.0)))
    label = "smallest spectral norm"
    ax.axhspan(low - 0.015, high + 0.015, color="0.8", lw=0, zorder=0, label=label)
    ax.set(ylim=(-2.8, 0.1), xlabel="training step", ylabel="")
    ax.set_xticks([0, 5_000, 10_000], ["0", "5,000", "10,000"])
    ax.set_title("{} pairs, {} told, {} untold".format(*sizes), loc="left")
    ax.legend().remove()


LIMITS = Drawing(LIMITS_TITLE, draw_limits)


def _geometry_numbers(cells: pd.DataFrame) -> dict[str, Any]:
    few = select(cells, part="few pairs", fitted=True)
    columns = [f"{what}_{norm}" for what in ("excess", "cosine") for norm in SCHATTEN]
    columns += ["excess_entry", "excess_gamma_2"]
    numbers: dict[str, Any] = {
        "predicted_solutions_themselves": {str(sizes): baselines(sizes) for sizes in FEW_PAIRS}
    }
    for key, group in few.groupby(["optimizer", "ov", "sizes"], sort=False):
        numbers[joined(key)] = {column: group[column].to_numpy() for column in columns}
    return numbers


def _limit_numbers(
    study: Study, ranges: dict[Any, list[BetaRange]], paths: dict[Any, MuonPath]
) -> dict[str, Any]:
    numbers: dict[str, Any] = {"slacks": SLACKS, "ranges": {}, "exact": {}, "as_shipped": {}, "variants": {}}
    for (sizes, norm), found in ranges.items():
        ends = [[f.low, f.high] for f in found]
        numbers["ranges"][f"{sizes} | {norm}"] = {"smallest_norm": found[0].objective, "beta": ends}
    for (sizes, name), path in paths.items():
        numbers["exact"][f"{sizes} | {name}"] = {
            "step": path.step,
            "beta": path.beta,
            "margin": path.margin,
            "excess_spectral": path.excess_spectral,
        }
    for key, group in select(study.curves, part="limit").groupby(["sizes", "ov"], sort=False):
        runs = histories(group)
        numbers["as_shipped"][joined(key)] = {
            "step": runs[0]["step"].to_numpy(),
            "beta": [run["beta"].to_numpy() for run in runs],
        }
    for key, group in select(study.cells, part="variants").groupby(["optimizer", "variant", "ov", "sizes"]):
        numbers["variants"][joined(key)] = group["beta"].to_numpy()
    return numbers
