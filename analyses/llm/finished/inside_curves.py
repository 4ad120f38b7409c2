"""Pictures of the inspected runs: ΔW truncated by k, and probes and patching by layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analyses.llm.finished.inside_claims import LAYERS_PICTURE, TRUNCATION_PICTURE
from analyses.llm.finished.inside_results import Runs
from analyses.llm.finished.results import CHANCE
from ocr_interp.viz.style import save_figure

LOOK = {
    "held_out_fact": ("facts (told)", "#0173b2"),
    "training_implication": ("implications, told", "#029e73"),
    "held_out_implication": ("implications, never told", "#de8f05"),
}
ENDS = {"only the top {k} kept": "-", "the top {k} removed": ":"}
PLACE_COLORS = {"name": "#0173b2", "last": "#de8f05"}
PLACE_WORDS = {"name": "last token of the name", "last": "last token of the prompt"}


def truncated_runs(inspected: Sequence[Runs]) -> list[Runs]:
    """Those with truncation."""
    return [runs for runs in inspected if any(c["kind"] == "truncation" for c in runs.cuts().values())]


def draw_truncation(inspected: Sequence[Runs], figures: Path) -> None:
    """Mean ranks by k: the top k singular values of every ΔW alone, and without them."""
    columns = min(3, len(inspected))
    rows = -(-len(inspected) // columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(6.6, 0.7 + 2.0 * rows), sharey=True, squeeze=False, layout="constrained"
    )
    numbers = {}
    for ax, runs in zip(axes.flat, inspected, strict=False):
        curves = _curves(runs)
        numbers[runs.key] = curves
        for (end, style), (split, (_, color)) in ((e, s) for e in ENDS.items() for s in LOOK.items()):
            own = curves[end]
            ax.plot(own["k"], own[split], style, color=color, lw=1.6, marker="o", ms=3)
        ax.axhline(CHANCE, color="#aaaaaa", lw=0.8, ls="--", zorder=0)
        ax.set_xscale("log", base=2)
        ks = curves[next(iter(ENDS))]["k"]
        ax.set_xticks(ks, [str(k) for k in ks])
        ax.minorticks_off()
        ax.set_title(runs.title_with_model, fontsize=9)
        ax.set_xlabel("k singular values of every ΔW", fontsize=8.5)
    for ax in axes.flat[len(inspected) :]:
        ax.set_visible(False)
    axes[0][0].set_ylim(-0.1, None)
    fig.supylabel("mean rank (0 is best)", fontsize=9)
    handles = [Line2D([], [], color=color, lw=1.6) for _, color in LOOK.values()]
    handles += [Line2D([], [], color="#444444", lw=1.6, ls=style) for style in ENDS.values()]
    labels = [label for label, _ in LOOK.values()] + [end.format(k="k") for end in ENDS]
    fig.legend(handles, labels, frameon=False, fontsize=8, ncol=3, loc="outside lower center")
    save_figure(fig, figures / TRUNCATION_PICTURE, {"mean rank": numbers, "chance": CHANCE})
    plt.close(fig)


def _curves(runs: Runs) -> dict[str, dict[str, list[Any]]]:
    """End of the spectrum -> k, and the mean over seeds of every split."""
    found: dict[str, dict[str, list[Any]]] = {end: {"k": [], **{s: [] for s in LOOK}} for end in ENDS}
    for what, cut in runs.cuts().items():
        for end in ENDS:
            match = re.search(end.format(k=r"(\d+)"), what)
            if cut["kind"] == "truncation" and match:
                found[end]["k"].append(int(match[1]))
                for split in LOOK:
                    found[end][split].append(float(np.nanmean(cut[split])))
    return found


def layered_runs(inspected: Sequence[Runs]) -> list[Runs]:
    """Those with probes and patching."""
    return [runs for runs in inspected if runs.layers()]


def draw_layers(inspected: Sequence[Runs], figures: Path) -> None:
    """By layer: how well probes read the fact of untold names, and the rank of the donor's implication."""
    fig, axes = plt.subplots(
        2, len(inspected), figsize=(6.6, 4.4), sharex="col", sharey="row", squeeze=False, layout="constrained"
    )
    numbers = {}
    for column, runs in zip(axes.T, inspected, strict=True):
        of = runs.layers()[0]
        numbers[runs.key] = of
        _draw_probes(column[0], of)
        for k, place in enumerate(of["places"]):
            column[1].plot([row[k] for row in of["donor"]], color=PLACE_COLORS[place], lw=1.8)
        column[1].axhline(of["donor_unpatched"], color="#aaaaaa", lw=0.8, ls="--", zorder=0)
        column[0].set_title(runs.title_with_model, fontsize=9)
        column[1].set_xlabel("layer", fontsize=9)
    axes[0][0].set_ylabel("names whose fact\na probe reads", fontsize=9)
    axes[1][0].set_ylabel("rank of the donor's\nimplication", fontsize=9)
    axes[0][0].set_ylim(0, 1.02)
    axes[1][0].set_ylim(-0.1, None)
    handles = [Line2D([], [], color=PLACE_COLORS[place], lw=1.8) for place in PLACE_WORDS]
    handles += [
        Line2D([], [], color="#555555", lw=1, ls=":"),
        Line2D([], [], color="#aaaaaa", lw=1, ls="--"),
    ]
    labels = [*PLACE_WORDS.values(), "before fine-tuning", "chance (above), unpatched (below)"]
    fig.legend(handles, labels, frameon=False, fontsize=8, ncol=2, loc="outside lower center")
    save_figure(fig, figures / LAYERS_PICTURE, numbers)
    plt.close(fig)


def _draw_probes(ax: Axes, of: dict[str, Any]) -> None:
    for k, place in enumerate(of["places"]):
        for state, style, width in (("probe_before", ":", 1), ("probe_after", "-", 1.8)):
            ax.plot([row[k] for row in of[state]], style, color=PLACE_COLORS[place], lw=width)
    ax.axhline(of["chance"], color="#aaaaaa", lw=0.8, ls="--", zorder=0)
