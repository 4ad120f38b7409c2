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
    PAPER_TASK,
    SMALL,
    SWITCHES,
    TASKS,
    Study,
)
from ocr_interp.viz.curves import plot_band

Sizes = tuple[int, int, int]
REASONING, OPPOSITE = "#dceaf5", "#f9e0db"
GREY = "0.6"
SWITCH_COLORS = ("#56b4e9", "#0173b2", "#08306b")

ROWS: dict[str, tuple[str, Sizes]] = {
    "10, 1, 3": ("main", TASKS[0]),
    "10, 2, 2": ("main", TASKS[1]),
    "10, 3, 1": ("main", TASKS[2]),
    "4, 2, 6": ("few pairs", FEW_PAIRS[0]),
    "4, 4, 4": ("few pairs", FEW_PAIRS[1]),
    "4, 6, 2": ("few pairs", FEW_PAIRS[2]),
    "20, 1, 3": ("paper's task", PAPER_TASK),
    "10, 1, 3,\nnoise": ("noise", TASKS[0]),
    "10, 1, 3,\ntrained attention": ("trained attention", TASKS[0]),
    "10, 1, 3,\n30,000 steps": ("long", TASKS[0]),
}
"""Rows of the summary, from top to bottom: the part of the study and the task."""


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
    SUMMARY.write(figures / "optimizer_summary", _summary_numbers(study.cells))


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


def _summary(numbers: dict[str, Any]) -> Figure:
    """β at the end of every run: one panel per optimiser, one row per task, both models in it."""
    fig, axes = plt.subplots(1, 5, figsize=(WIDTH, 4.6), sharex=True, sharey=True, layout="constrained")
    for ax, name in zip(axes, OPTIMIZERS, strict=True):
        shade(ax)
        ax.axvline(0, color="0.5", lw=0.8)
        ax.set_title(name, fontweight="bold", fontsize=8)
        for y, (label, (part, sizes)) in enumerate(ROWS.items()):
            for kind, shift in zip(OV_KINDS, (-0.19, 0.19), strict=True):
                runs = pd.DataFrame(numbers[joined((name, kind, part))])
                _dots(ax, runs.loc[[tuple(of) == sizes for of in runs["sizes"]]], y + shift, COLORS[kind])
                if "trained" not in label and "noise" not in label:
                    at = predicted_beta(PREDICTED[name, kind][1], sizes)
                    ax.plot(at, y + shift, "|", color="k", ms=9, mew=1.5, zorder=4)
        ax.set_xlabel("β at the end")
    axes[0].set(yticks=range(len(ROWS)), yticklabels=list(ROWS), xlim=(-2.6, 1.25))
    axes[0].set_ylabel("task: pairs, told and untold subjects per pair")
    axes[0].set_xticks([-2, -1, 0, 1])
    axes[0].invert_yaxis()
    look = {"ls": "", "ms": 4}
    handles = [Line2D([], [], marker="o", color=COLORS[k], label=NAMES[k], **look) for k in OV_KINDS]
    handles.append(Line2D([], [], marker="|", color="k", ls="", ms=9, mew=1.5, label="predicted"))
    handles.append(Line2D([], [], marker="x", color=GREY, label="training set not fitted", **look))
    patches = [Rectangle((0, 0), 1, 1, color=color) for color in (REASONING, OPPOSITE)]
    labels = [str(handle.get_label()) for handle in handles]
    labels += ["reasoning: β > 0.1", "the opposite: β < −0.1"]
    fig.legend([*handles, *patches], labels, loc="outside lower center", ncols=3, frameon=False)
    return fig


def _dots(ax: Axes, runs: pd.DataFrame, y: float, color: str) -> None:
    """One mark per run; a run that does not fit its training set is a grey cross at the left edge."""
    fitted = runs.loc[runs["fitted"]]
    ax.plot(fitted["beta"], np.full(len(fitted), y), "o", color=color, ms=3, mew=0, alpha=0.7)
    n_lost = len(runs) - len(fitted)
    ax.plot(-2.45 + 0.16 * np.arange(n_lost), np.full(n_lost, y), "x", color=GREY, ms=3.5)


SUMMARY = Drawing(TITLES["optimizer_summary"], _summary)


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
