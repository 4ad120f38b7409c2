"""Figures of the results of `analyses.llm.inside`: the effect of every cut, and the heads' token circuits.

Truncation and layers are drawn by `finished.inside_curves`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from analyses.house.figure import Figure as FigureOfStudy
from analyses.house.reproduce import main
from analyses.llm.finished.inside_claims import (
    LAYERS_PICTURE,
    TRUNCATION_PICTURE,
    inside_claims,
    picture_of_cuts,
)
from analyses.llm.finished.inside_curves import draw_layers, draw_truncation, layered_runs, truncated_runs
from analyses.llm.finished.inside_results import RESULTS, Runs, read_runs
from analyses.llm.finished.results import CHANCE
from ocr_interp.viz.style import figure_style, save_figure

LOOK = {
    "held_out_fact": ("facts (told)", "o", "#0173b2"),
    "training_implication": ("implications, told", "s", "#029e73"),
    "held_out_implication": ("implications, never told", "D", "#de8f05"),
}
SECTIONS = ("none", "parts", "heads", "directions", "mean")
STATES = ("before", "after", "change")
CIRCUITS_PICTURE = "llm_token_circuits"
GROUPS = {"most changed": "#de8f05", "random": "#6e6e6e"}
SMALL_SHARE = 0.05


def draw(runs: list[Runs], figures: Path) -> None:
    """Draws what the inspected runs have (`pictures`)."""
    with figure_style():
        for model in dict.fromkeys(run.model for run in runs):
            draw_cuts([run for run in runs if run.model == model], figures / picture_of_cuts(model))
        if any(run.circuits() for run in runs):
            draw_circuits([run for run in runs if run.circuits()], figures)
        if truncated_runs(runs):
            draw_truncation(truncated_runs(runs), figures)
        if layered_runs(runs):
            draw_layers(layered_runs(runs), figures)


def pictures(runs: list[Runs]) -> tuple[str, ...]:
    """Names of the pictures that the inspected runs give."""
    found = [picture_of_cuts(model) for model in dict.fromkeys(run.model for run in runs)]
    found += [CIRCUITS_PICTURE] if any(run.circuits() for run in runs) else []
    found += [TRUNCATION_PICTURE] if truncated_runs(runs) else []
    return (*found, *([LAYERS_PICTURE] if layered_runs(runs) else []))


# --- cuts -------------------------------------------------------------------------------------------


def draw_cuts(runs: list[Runs], picture: Path) -> None:
    """Mean ranks after every cut of one model: one row per cut, one panel per data set and method."""
    cuts = [_shown(run.cuts()) for run in runs]
    kind = {what: cut["kind"] for found in cuts for what, cut in found.items()}
    rows = _ordered(kind)
    size = (3.6 + 2.2 * len(runs), 1.2 + 0.3 * len(rows))
    fig, axes = plt.subplots(1, len(runs), figsize=size, sharey=True, sharex=True, squeeze=False)
    y = {what: -float(k) - 0.6 * SECTIONS.index(kind[what]) for k, what in enumerate(rows)}
    for ax, run, found in zip(axes[0], runs, cuts, strict=True):
        for what, cut in found.items():
            _draw_cut(ax, y[what], cut)
        for what in (row for row in rows if row not in found):
            missing = "not trained" if kind[what] == "parts" else "not measured"
            ax.text(CHANCE / 2, y[what], missing, ha="center", va="center", fontsize=8, color="#6e6e6e")
        for where in (0.0, CHANCE):
            ax.axvline(where, color="#aaaaaa", lw=0.8, ls="-" if where == 0 else "--", zorder=0)
        ax.set_title(run.title, fontsize=10)
        ax.set_xlabel("mean rank")
        ax.set_xticks([0, 1, 2])
        ax.tick_params(axis="y", length=0)
    axes[0][0].set_yticks(list(y.values()), [_shortened(what) for what in rows])
    for label, what in zip(axes[0][0].get_yticklabels(), rows, strict=True):
        label.set_color("#6e6e6e" if "random" in what else "#000000")
    fig.tight_layout(w_pad=0.6)
    handles, labels = _legend(axes[0][0])
    _place_legend(fig, handles, labels, len(runs), (0.55, 0.01))
    numbers = {run.key: found for run, found in zip(runs, cuts, strict=True)}
    save_figure(fig, picture, {"mean rank by seed": numbers, "chance": CHANCE})
    plt.close(fig)


def _shown(cuts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The cuts that have a row; truncation has a picture of its own."""
    return {what: cut for what, cut in cuts.items() if cut["kind"] in SECTIONS}


def _ordered(kind: dict[str, str]) -> list[str]:
    """Rows by section, in the order of the results."""
    return [what for section in SECTIONS for what, found in kind.items() if found == section]


def _shortened(what: str) -> str:
    turned = re.sub(r"of (\d+) heads (\d+) (.*) removed", r"\2 \3 of \1 heads removed", what)
    turned = turned.replace(", drawn at random,", " (random)")
    return turned.replace(", at most half of a layer,", " (half a layer at most)")


def _draw_cut(ax: Axes, y: float, cut: dict[str, Any]) -> None:
    """The means over seeds of one cut, joined if held-out implications differ from facts; seeds as dots."""
    means = {split: float(np.nanmean(cut[split])) for split in LOOK if not np.isnan(cut[split]).all()}
    ends = [means[split] for split in ("held_out_fact", "held_out_implication") if split in means]
    ax.plot(ends, [y] * len(ends), color="#cccccc", lw=2.5, zorder=1, solid_capstyle="butt")
    for split, mean in means.items():
        _, marker, color = LOOK[split]
        size = {"o": 46, "s": 26, "D": 26}[marker]
        ax.scatter(mean, y, marker=marker, s=size, color=color, zorder=3, edgecolor="white", lw=0.5)
        if len(cut[split]) > 1:
            ax.scatter(cut[split], [y] * len(cut[split]), s=4, color=color, alpha=0.6, zorder=2)


def _legend(ax: Axes) -> tuple[list[Any], list[str]]:
    handles: list[Any] = [ax.scatter([], [], marker=m, color=color, s=36) for _, m, color in LOOK.values()]
    handles += ax.plot([], [], color="#aaaaaa", lw=0.8, ls="--")
    return handles, [*(label for label, *_ in LOOK.values()), f"chance ({CHANCE:g}; 0 is best)"]


def _place_legend(
    fig: Figure, handles: list[Any], labels: list[str], n_runs: int, at: tuple[float, float]
) -> None:
    """Places the legend below the panels, in as many columns as fit."""
    columns = len(labels) if n_runs > 2 else 1
    fig.legend(handles, labels, frameon=False, ncol=columns, loc="upper center", bbox_to_anchor=at)


# --- token circuits ---------------------------------------------------------------------------------


def draw_circuits(runs: list[Runs], figures: Path) -> None:
    """Own-answer contrasts of the most changed heads beside random ones, before and after."""
    names = list(runs[0].circuits()[0]["contrasts"])
    size = (1.4 + 2.5 * len(runs), 0.8 + 1.9 * len(names))
    fig, axes = plt.subplots(len(names), len(runs), figsize=size, sharex=True, sharey=True, squeeze=False)
    numbers: dict[str, Any] = {}
    for column, run in zip(axes.T, runs, strict=True):
        for ax, name in zip(column, names, strict=True):
            shown = {group: _heads(run, name, group) for group in GROUPS}
            numbers.setdefault(run.key, {})[name] = shown
            _draw_contrasts(ax, shown)
        column[0].set_title(run.title, fontsize=10)
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name.replace(" to ", "\nto own "), fontsize=9)
    fig.supylabel("own answer against others, standard deviations over assignments", fontsize=10)
    lowest, highest = axes[0][0].get_ylim()
    axes[0][0].set_ylim(min(lowest, -3) - 0.12 * (highest - lowest), max(highest, 3))
    handles: list[Any] = [axes[0][0].scatter([], [], color=color, s=30) for color in GROUPS.values()]
    handles.append(axes[0][0].plot([], [], color="black", lw=2)[0])
    handles.append(axes[0][0].plot([], [], " ")[0])
    labels = ["a most changed head", "a random other head", "mean"]
    labels.append("%: heads whose change is among the 5% of assignments with the largest (by chance 5%)")
    fig.tight_layout()
    _place_legend(fig, handles, labels, len(runs), (0.5, 0.005))
    save_figure(fig, figures / CIRCUITS_PICTURE, numbers)
    plt.close(fig)


def _heads(run: Runs, name: str, group: str) -> dict[str, Any]:
    """Contrasts of the heads of a group in all seeds by state, and how many changes are beyond chance."""
    values, shares = [], []
    for circuit in run.circuits():
        part = slice(circuit["n_chosen"]) if group == "most changed" else slice(circuit["n_chosen"], None)
        values += circuit["contrasts"][name][part]
        shares += circuit["shares"][name][part]
    found = np.array(values, dtype=float).reshape(-1, len(STATES))
    change = np.array(shares, dtype=float).reshape(-1, len(STATES))[:, 2]
    small = float(np.mean(change[~np.isnan(change)] <= SMALL_SHARE)) if not np.isnan(change).all() else np.nan
    return {**{state: found[:, k] for k, state in enumerate(STATES)}, "change among top 5%": small}


def _draw_contrasts(ax: Axes, shown: dict[str, dict[str, Any]]) -> None:
    for shift, (group, color) in zip((-0.2, 0.2), GROUPS.items(), strict=True):
        for x, state in enumerate(STATES):
            values = shown[group][state]
            values = values[~np.isnan(values)]
            if not len(values):
                continue
            spread = np.linspace(-0.13, 0.13, len(values)) if len(values) > 1 else np.zeros(1)
            ax.scatter(x + shift + spread, values, s=7, color=color, alpha=0.6, lw=0)
            ax.plot([x + shift - 0.16, x + shift + 0.16], [values.mean()] * 2, color="black", lw=2)
    ax.axhline(0, color="#aaaaaa", lw=0.8, zorder=0)
    ax.set_xticks(range(len(STATES)), STATES)
    mixed = blended_transform_factory(ax.transData, ax.transAxes)
    for shift, (group, color) in zip((-0.22, 0.22), GROUPS.items(), strict=True):
        share = shown[group]["change among top 5%"]
        at = {"transform": mixed, "ha": "center"}
        if not np.isnan(share):
            ax.text(2 + shift, 0.03, f"{100 * share:.0f}%", color=color, fontsize=8, **at)


def make(runs: Path, figures: Path) -> list[Runs]:
    """Draws the inspected runs; `runs` is not used, since these runs keep no weights."""
    inspected = read_runs(RESULTS)
    draw(inspected, figures)
    return inspected


FIGURE = FigureOfStudy(pictures=pictures(read_runs(RESULTS)), draw=make, claims=inside_claims)


if __name__ == "__main__":
    main()
