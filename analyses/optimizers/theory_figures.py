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
from analyses.optimizers.figures import histories, joined, predicted_beta, select, shade
from analyses.optimizers.predictions import NORMS, BetaRange, beta_range
from analyses.optimizers.runs import FEW_PAIRS, OPTIMIZERS, OV_KINDS, PAPER_TASK, SCHATTEN, Study, baselines
from ocr_interp.viz.curves import plot_band
from ocr_interp.viz.style import figure_style, save_figure

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
    with figure_style():
        numbers = _limit_numbers(study, ranges, paths)
        numbers = {"title": LIMITS_TITLE, **numbers}
        save_figure(_limits(study, ranges, paths), figures / "optimizer_limits", numbers)
    plt.close("all")
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


def _limits(study: Study, ranges: dict[Any, list[BetaRange]], paths: dict[Any, MuonPath]) -> Figure:
    """Above: the range of β for each norm. Below: Muon's β over training, exact and torch's; variants."""
    fig, axes = plt.subplots(2, 4, figsize=(14.5, 8), layout="constrained")
    for ax, sizes in zip(axes[0], TASKS, strict=True):
        _range_panel(ax, sizes, ranges)
    axes[0, 0].set_yticks(range(len(NORMS)), [NORM_NAMES[n] for n in NORMS])
    for ax in axes[0, 1:]:
        ax.set_yticks(range(len(NORMS)), [])
    for ax, sizes in zip(axes[1, :3], FEW_PAIRS, strict=True):
        _path_panel(ax, sizes, study.curves, paths)
    axes[1, 0].set_ylabel("held-out coefficient β")
    axes[1, 0].legend(frameon=False, fontsize=8.5, loc="lower left", title="Muon")
    _variant_panel(axes[1, 3], study.cells)
    return fig


def _range_panel(ax: Axes, sizes: tuple[int, int, int], ranges: dict[Any, list[BetaRange]]) -> None:
    shade(ax)
    for y, norm in enumerate(NORMS):
        for found, width in zip(ranges[sizes, norm][::-1], (2, 5, 9), strict=True):
            ends = [found.low, max(found.high, found.low + 0.02)]
            ax.plot(ends, [y, y], color=NORM_COLORS[norm], lw=width, solid_capstyle="butt")
    ax.plot(predicted_beta("spectral", sizes), 2, "x", color="k", ms=8, mew=2)
    ax.axvline(0, color="0.5", lw=0.8)
    ax.set(xlim=(-2.8, 2.2), ylim=(4.6, -0.6))
    ax.set_xlabel("β: bold at the smallest norm, thinner\nwithin 1 %, within 10 %")
    ax.set_title(f"allowed at {sizes}", loc="left", fontweight="bold")


def _path_panel(
    ax: Axes, sizes: tuple[int, int, int], curves: pd.DataFrame, paths: dict[Any, MuonPath]
) -> None:
    for name, kind in zip(EXACT, OV_KINDS[::-1], strict=True):
        path = paths[sizes, name]
        ax.plot(path.step, path.beta, color=COLORS[kind], ls=(0, (3, 1.5)), lw=1.8, label=f"{name}")
        runs = histories(select(curves, part="limit", ov=kind, sizes=sizes))
        label = f"as shipped, {kind.replace('_', '-')}"
        plot_band(ax, [r.loc[r["step"] > 0] for r in runs], "beta", COLORS[kind], label)
    low, high = predicted_beta("spectral", sizes), -min(sizes[1] / sizes[2], 1.0)
    if low == high:
        ax.axhline(low, color="0.3", ls=":", lw=1.2)
    else:
        ax.axhspan(low, high, color="0.88", lw=0)
    ax.text(9_800, 0.05, "dotted or grey: spectral norm", ha="right", fontsize=8.5, color="0.3")
    ax.set(ylim=(-3.0, 0.2), xlabel="training step", ylabel="")
    ax.set_title(f"Muon's way at {sizes}", loc="left", fontweight="bold")
    ax.legend().remove()


def _variant_panel(ax: Axes, cells: pd.DataFrame) -> None:
    """β of variants, at (10, 1, 3) and (4, 2, 6), where 0.577 and -1/3 are predicted."""
    found = select(cells, part="variants", fitted=True)
    names = list(dict.fromkeys(zip(found["optimizer"], found["variant"], strict=True)))
    for y, (optimizer, variant) in enumerate(names):
        for kind in OV_KINDS:
            runs = select(found, optimizer=optimizer, variant=variant, ov=kind)
            shift = -0.12 if kind == OV_KINDS[0] else 0.12
            ax.plot(runs["beta"], np.full(len(runs), y + shift), "o", ms=4.5, color=COLORS[kind], alpha=0.8)
    shade(ax)
    ax.axvline(-1 / 3, color="0.3", ls=":", lw=1.2)
    ax.set(xlim=(-0.6, 1.1), xlabel="β at (10, 1, 3) and (4, 2, 6)")
    ax.set_yticks(range(len(names)), [f"{o}: {v.strip()}" for o, v in names], fontsize=8.5)
    ax.invert_yaxis()
    ax.set_title("one setting changed", loc="left", fontweight="bold")


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
