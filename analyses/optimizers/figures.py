"""The figures of the optimiser study; the two about theory are in `optimizers.theory_figures`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from analyses.house.drawing import WIDTH, Drawing
from analyses.house.looks import COLORS, NAMES
from analyses.optimizers.claims import PLAIN, PREDICTED, SILENT
from analyses.optimizers.predictions import muon_fixed_point
from analyses.optimizers.runs import (
    FEW_PAIRS,
    MIDDLE_TASK,
    MIXED,
    OPTIMIZERS,
    OV_KINDS,
    SMALL,
    SWITCHES,
    TASKS,
    Study,
)
from ocr_interp.viz.curves import plot_band
from ocr_interp.viz.style import figure_style, save_figure

Sizes = tuple[int, int, int]
REASONING, OPPOSITE = "#dceaf5", "#f9e0db"
GREY = "0.6"
RATE_MARKERS = {"low": "v", "middle": "o", "high": "^"}
SWITCH_COLORS = ("#56b4e9", "#0173b2", "#08306b")

ROWS: dict[str, dict[str, Any]] = {
    "(10, 1, 3)": {"part": "main", "sizes": TASKS[0]},
    "(10, 2, 2)": {"part": "main", "sizes": TASKS[1]},
    "(10, 3, 1)": {"part": "main", "sizes": TASKS[2]},
    "(4, 2, 6)": {"part": "few pairs", "sizes": FEW_PAIRS[0]},
    "(4, 4, 4)": {"part": "few pairs", "sizes": FEW_PAIRS[1]},
    "(4, 6, 2)": {"part": "few pairs", "sizes": FEW_PAIRS[2]},
    "(20, 1, 3)": {"part": "paper's task"},
    "(10, 1, 3), noise": {"part": "noise"},
    "(10, 1, 3), trained attention": {"part": "trained attention"},
    "(10, 1, 3), 30,000 steps": {"part": "long"},
}
"""Rows of the summary, from top to bottom."""


TITLES = {
    "optimizer_beta": (
        "On the factorized model all optimisers but Muon deduce; Muon pushes the untold implication away"
    ),
    "optimizer_summary": (
        "Every optimiser but Muon deduces on the factorized model, at every task, rate and start; "
        "Muon does the opposite"
    ),
    "optimizer_mixed": (
        "Switching early, the second optimiser decides; switching late, gradient descent changes "
        "nothing after Muon"
    ),
}
"""The sentence of every picture that is drawn here."""


def draw_all(study: Study, figures: Path) -> None:
    """Writes the three figures of the runs."""
    mixed = select(study.curves, part="mixed")
    BETA.write(figures / "optimizer_beta", _curve_numbers(_middle(study.curves)))
    MIXED_DRAWING.write(figures / "optimizer_mixed", _curve_numbers(mixed, "variant"))
    with figure_style():
        drawn = {
            "optimizer_summary": (_summary(study.cells), _summary_numbers(study.cells)),
        }
        for name, (fig, numbers) in drawn.items():
            save_figure(fig, figures / name, {"title": TITLES[name], **numbers})
    plt.close("all")


def select(frame: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows with these values."""
    for name, value in values.items():
        frame = frame.loc[[entry == value for entry in frame[name]]]
    return frame


def histories(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """One table per run."""
    return [group for _, group in frame.groupby("run", sort=False)]


def joined(key: Any) -> str:
    """The values of a group as one key of a JSON object."""
    return " | ".join(str(part) for part in key)


def predicted_beta(norm: str, sizes: Sizes) -> float:
    """The predicted β: by the norm; for Muon, by the fixed point of its steps."""
    _, a, b = sizes
    nuclear = min((a / b) ** 0.5, 1.0)
    return {"nuclear": nuclear, "gamma_2": 1.0, "spectral": muon_fixed_point(sizes)}.get(norm, 0.0)


def shade(ax: Axes) -> None:
    """The ranges of β: reasoning, silence, the opposite."""
    ax.axvspan(SILENT, 9, color=REASONING, lw=0)
    ax.axvspan(-9, -SILENT, color=OPPOSITE, lw=0)


def _middle(curves: pd.DataFrame) -> pd.DataFrame:
    return select(curves, part="main", sizes=MIDDLE_TASK, rate="middle", start=SMALL)


def _beta(numbers: dict[str, Any]) -> Figure:
    """β and held-out accuracy over training, one column per optimiser."""
    fig, axes = plt.subplots(
        2, 5, figsize=(WIDTH, 3.7), sharex=True, sharey="row", layout="constrained", height_ratios=(3, 2)
    )
    a_b = MIDDLE_TASK[1] / MIDDLE_TASK[2]
    lines = {"γ₂: 1": 1.0, "nuclear:\n√(1/3)": a_b**0.5, "Frobenius: 0": 0.0, "spectral:\n−1/3": -a_b}
    for column, name in enumerate(OPTIMIZERS):
        above, below = axes[:, column]
        above.set_title(name, fontweight="bold", fontsize=8)
        for text, value in lines.items():
            above.axhline(value, color="0.45", ls=":", lw=1)
            if column == 4:
                above.text(1.05, value, text, transform=above.get_yaxis_transform(), va="center", fontsize=7)
        for kind in OV_KINDS:
            runs = _tables(numbers[joined((name, kind))])
            plot_band(above, runs, "beta", COLORS[kind], NAMES[kind])
            plot_band(below, runs, "held_out_implication/accuracy", COLORS[kind], NAMES[kind])
            fitted = np.median([run.loc[run["train_margin"] > 0, "step"].min() for run in runs])
            above.plot([fitted], [-0.46], marker="^", color=COLORS[kind], ms=6, clip_on=False, ls="")
        above.set(xscale="log", ylim=(-0.5, 1.1))
        below.set(ylim=(-0.05, 1.05), xlabel="step")
        for ax in (above, below):
            ax.legend().remove()
    axes[0, 0].set_ylabel("held-out coefficient β")
    axes[1, 0].set_ylabel("held-out\naccuracy")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    handles.append(Line2D([], [], marker="^", color="0.4", ls="", ms=6))
    labels.append("training set fitted from here on")
    fig.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return fig


BETA = Drawing(TITLES["optimizer_beta"], _beta)


def _tables(numbers: dict[str, Any]) -> list[pd.DataFrame]:
    """The numbers of some runs as one table for each."""
    columns = {name: values for name, values in numbers.items() if name != "step"}
    return [
        pd.DataFrame({"step": numbers["step"], **{name: values[k] for name, values in columns.items()}})
        for k in range(len(numbers["beta"]))
    ]


def _summary(cells: pd.DataFrame) -> Figure:
    """β at the end of every run."""
    fig, axes = plt.subplots(2, 5, figsize=(14, 8.2), sharex=True, sharey=True, layout="constrained")
    for row, kind in zip(axes, OV_KINDS, strict=True):
        for ax, name in zip(row, OPTIMIZERS, strict=True):
            shade(ax)
            ax.axvline(0, color="0.5", lw=0.8)
            ax.set_title(name, loc="left", fontweight="bold")
            norm = PREDICTED[name, kind][1]
            for y, (label, values) in enumerate(ROWS.items()):
                runs = select(cells, optimizer=name, ov=kind, **values)
                _dots(ax, runs, y, COLORS[kind])
                if "trained" not in label and "noise" not in label:
                    at = predicted_beta(norm, runs["sizes"].iloc[0])
                    ax.plot([at, at], [y - 0.38, y + 0.38], color="k", lw=1.8, zorder=4)
        row[0].set_ylabel(NAMES[kind], fontweight="bold", color=COLORS[kind])
    axes[0, 0].set(yticks=range(len(ROWS)), yticklabels=list(ROWS), xlim=(-2.6, 1.25))
    axes[0, 0].set_xticks([-2, -1, 0, 1])
    axes[0, 0].invert_yaxis()
    for ax in axes[1]:
        ax.set_xlabel("β at the end")
    handles = [Line2D([], [], marker=m, color="0.3", ls="", ms=5) for m in RATE_MARKERS.values()]
    labels = [f"{rate} rate" for rate in RATE_MARKERS]
    handles += [Line2D([], [], marker="s", color="0.3", ls="", ms=5, mfc="none")]
    handles += [Line2D([], [], marker="x", color=GREY, ls="", ms=6)]
    handles += [Line2D([], [], marker="|", color="k", ls="", ms=12, mew=1.8)]
    labels += ["ten times larger start", "training set not fitted or diverged (no evidence)", "predicted"]
    handles += [Rectangle((0, 0), 1, 1, color=color) for color in (REASONING, OPPOSITE)]
    labels += ["reasoning: β > 0.1", "the opposite: β < −0.1"]
    fig.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return fig


def _dots(ax: Axes, runs: pd.DataFrame, y: float, color: str) -> None:
    """One mark per run; a run that does not fit its training set is a grey cross at the left edge."""
    places = {"low": -0.24, "middle": 0.0, "high": 0.24}
    columns = ["rate", "start", "seed", "beta", "fitted"]
    for rate, start, seed, beta, fitted in runs[columns].itertuples(index=False):
        at = y + (places[rate] if start == SMALL else 0.12) + 0.02 * (seed - 2)
        if not fitted:
            ax.plot(-2.45 + 0.05 * seed, at, "x", color=GREY, ms=5)
            continue
        marker = RATE_MARKERS[rate] if start == SMALL else "s"
        ax.plot(beta, at, marker, color=color, ms=4, mfc="none" if marker == "s" else color, alpha=0.8)


def _mixed(numbers: dict[str, Any]) -> Figure:
    """β over training when one optimiser is followed by another, factorized."""
    fig, axes = plt.subplots(2, 4, figsize=(WIDTH, 4.4), sharex=True, sharey="row", layout="constrained")
    for (first, second), (above, below) in zip(MIXED, axes.T, strict=True):
        above.set_title(f"{first},\nthen {second}", loc="left", fontweight="bold", fontsize=7.5)
        above.axhspan(SILENT, 9, color=REASONING, lw=0)
        above.axhspan(-9, -SILENT, color=OPPOSITE, lw=0)
        for switch, color in zip(SWITCHES, SWITCH_COLORS, strict=True):
            for suffix, dashes in (("", "-"), (", eps 1e-18", (0, (3, 1.5)))):
                key = joined((f"{first}, then {second}", OV_KINDS[0], f"switch at {switch}{suffix}"))
                label = f"switch at {switch:,}" + (", Muon's eps 1e-18" if suffix else "")
                for ax, column in ((above, "beta"), (below, "held_out_implication/accuracy")):
                    if key in numbers:
                        plot_band(ax, _tables(numbers[key]), column, color, label, linestyle=dashes)
                    ax.axvline(switch, color=color, lw=0.9, ls=":")
        above.set(xscale="log", ylim=(-0.5, 1.0))
        below.set(ylim=(-0.05, 1.05), xlabel="training step")
        for ax in (above, below):
            ax.legend().remove()
    axes[0, 0].set_ylabel("held-out coefficient β")
    axes[1, 0].set_ylabel("held-out accuracy")
    handles, labels = axes[0, 1].get_legend_handles_labels()
    handles += [Rectangle((0, 0), 1, 1, color=color) for color in (REASONING, OPPOSITE)]
    labels += ["reasoning", "the opposite"]
    fig.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return fig


MIXED_DRAWING = Drawing(TITLES["optimizer_mixed"], _mixed)


def _curve_numbers(curves: pd.DataFrame, *more: str) -> dict[str, Any]:
    columns = ("beta", "train_margin", "held_out_implication/accuracy")
    numbers: dict[str, Any] = {}
    for key, group in curves.groupby(["optimizer", "ov", *more], sort=False):
        runs = histories(group)
        numbers[joined(key)] = {
            "step": runs[0]["step"].to_numpy(),
            **{column: [run[column].to_numpy() for run in runs] for column in columns},
        }
    return numbers


def _summary_numbers(cells: pd.DataFrame) -> dict[str, Any]:
    columns = ["sizes", "rate", "start", "seed", "fitted", "beta", "accuracy", "accuracy_in_set"]
    plain = cells.loc[cells["part"].isin(PLAIN)]
    return {
        joined(key): group[columns].to_dict("list")
        for key, group in plain.groupby(["optimizer", "ov", "part"], sort=False)
    }
