"""Pictures of the inspected runs: ΔW truncated by k, and probes and patching by layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyses.house.drawing import WIDTH, Drawing
from analyses.llm.finished.inside_results import METHODS, Runs
from analyses.llm.finished.results import CHANCE
from analyses.llm.studies.plan import SMOLLM2, TITLES

LOOK = {
    "held_out_fact": ("facts (told)", "#0173b2"),
    "training_implication": ("implications, told", "#029e73"),
    "held_out_implication": ("implications, never told", "#de8f05"),
}
ENDS = {"only the top {k} kept": "-", "the top {k} removed": ":"}
COLUMNS = 4
"""Runs side by side."""
FIRST_SEED, FURTHER_SEEDS = 1.8, 0.9
"""Widths of lines, in points."""
PLACE_COLORS = {"name": "#0173b2", "last": "#de8f05"}
PLACE_WORDS = {"name": "last token of the name", "last": "last token of the prompt"}


def truncated_runs(inspected: Sequence[Runs]) -> list[Runs]:
    """Those with truncation."""
    return [runs for runs in inspected if any(c["kind"] == "truncation" for c in runs.cuts().values())]


def truncation_numbers(inspected: Sequence[Runs]) -> dict[str, Any]:
    """The curves of every data set, method and seed."""
    return {"mean rank by seed": {runs.key: _curves(runs) for runs in inspected}, "chance": CHANCE}


def draw_truncation(numbers: dict[str, Any]) -> Figure:
    """Mean ranks by k: the top k singular values of every ΔW alone, and without them; means over seeds."""
    found = numbers["mean rank by seed"]
    columns = min(COLUMNS, len(found))
    rows = -(-len(found) // columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, 1.0 + 2.1 * rows), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (key, seeds) in zip(axes.flat, found.items(), strict=False):
        for (end, style), (split, (_, color)) in ((e, s) for e in ENDS.items() for s in LOOK.items()):
            own = [curves[end] for curves in seeds.values()]
            mean = np.nanmean([curves[split] for curves in own], axis=0)
            ax.plot(own[0]["k"], mean, style, color=color, lw=1.6, marker="o", ms=3)
        ax.axhline(numbers["chance"], color="#aaaaaa", lw=0.8, ls="--", zorder=0)
        ax.set_xscale("log", base=2)
        ks = next(iter(seeds.values()))[next(iter(ENDS))]["k"]
        ax.set_xticks(ks, [str(k) for k in ks])
        ax.minorticks_off()
        ax.set_title(_title(key, len(seeds)), fontsize=7.5)
        ax.set_xlabel("k singular values\nof every ΔW", fontsize=8)
    for ax in axes.flat[len(found) :]:
        ax.set_visible(False)
    axes[0][0].set_ylim(-0.1, None)
    for row in axes:
        row[0].set_ylabel("mean rank (0 is best)", fontsize=8)
    handles = [Line2D([], [], color=color, lw=1.6) for _, color in LOOK.values()]
    handles += [Line2D([], [], color="#444444", lw=1.6, ls=style) for style in ENDS.values()]
    labels = [label for label, _ in LOOK.values()] + [end.format(k="k") for end in ENDS]
    fig.legend(handles, labels, frameon=False, ncols=3, loc="outside lower center")
    return fig


def truncation_sentence(numbers: dict[str, Any]) -> str:
    """In how many runs what was deduced is lost before what was told, whichever end of the update is cut."""
    runs = [run for seeds in numbers["mean rank by seed"].values() for run in seeds.values()]
    removed, kept = (
        [_lost_sooner(run[end], numbers["chance"] / 2) for run in runs] for end in reversed(ENDS)
    )
    if not any(removed + kept):
        return "What is told and what is deduced, with the k largest directions of every update or without"
    lost = "what was deduced is lost before what was told"
    if removed == kept:
        where = "" if all(kept) else f", in {sum(kept)} of {len(runs)} runs"
        return f"Whichever end of every update is cut, {lost}{where}"
    return (
        f"Without the largest directions of every update {lost} in {sum(removed)} of {len(runs)} runs, with "
        f"them alone in {sum(kept)}"
    )


def _lost_sooner(curves: dict[str, list[Any]], half: float) -> bool:
    """Whether at the lightest cut that brings untold answers half of the way to chance told ones are known.

    Known is at most half as far from the top; light is what leaves facts best known.
    """
    told = map(max, zip(curves["held_out_fact"], curves["training_implication"], strict=True))
    cuts = sorted(zip(told, curves["held_out_implication"], strict=True))
    lost = next(((kept, untold) for kept, untold in cuts if untold > half), None)
    return lost is not None and lost[0] <= lost[1] / 2


def _curves(runs: Runs) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """Seed -> end of the spectrum -> k, and the mean rank of every split."""
    found = {}
    for k, seed in enumerate(runs.seeds):
        ends: dict[str, dict[str, list[Any]]] = {end: {"k": [], **{s: [] for s in LOOK}} for end in ENDS}
        for what, cut in runs.cuts().items():
            for end, curves in ends.items():
                match = re.search(end.format(k=r"(\d+)"), what)
                if cut["kind"] == "truncation" and match:
                    curves["k"].append(int(match[1]))
                    for split in LOOK:
                        curves[split].append(cut[split][k])
        found[f"seed {seed}"] = ends
    return found


def layered_runs(inspected: Sequence[Runs]) -> list[Runs]:
    """Those with probes and patching."""
    return [runs for runs in inspected if runs.layers()]


def layer_numbers(inspected: Sequence[Runs]) -> dict[str, Any]:
    """Probes and patching of every data set, method and seed."""
    return {runs.key: {f"seed {seed}": of for seed, of in runs.layers().items()} for runs in inspected}


def draw_layers(numbers: dict[str, Any]) -> Figure:
    """By layer: how well probes read the fact of untold names, and the rank of the donor's implication.

    A column for each data set and method, at most COLUMNS side by side, then further pairs of rows. Seeds
    after the first are thin lines.
    """
    blocks = -(-len(numbers) // COLUMNS)
    size, columns = (WIDTH, 0.9 + 3.5 * blocks), min(COLUMNS, len(numbers))
    fig, axes = plt.subplots(
        2 * blocks, columns, figsize=size, sharey="row", squeeze=False, layout="constrained"
    )
    for k, (key, seeds) in enumerate(numbers.items()):
        above, below = axes[2 * (k // columns)][k % columns], axes[2 * (k // columns) + 1][k % columns]
        for of, lw in zip(seeds.values(), (FIRST_SEED, *[FURTHER_SEEDS] * len(seeds)), strict=False):
            _draw_probes(above, of, lw)
            for place_at, place in enumerate(of["places"]):
                below.plot([row[place_at] for row in of["donor"]], color=PLACE_COLORS[place], lw=lw)
            below.axhline(of["donor_unpatched"], color="#aaaaaa", lw=lw / 2, ls="--", zorder=0)
        above.set_title(_title(key, len(seeds)), fontsize=7.5)
        above.tick_params(labelbottom=False)
        below.set_xlabel("layer")
    for k in range(len(numbers), blocks * columns):
        for row in (0, 1):
            axes[2 * (k // columns) + row][k % columns].set_visible(False)
    for above, below in zip(axes[::2], axes[1::2], strict=True):
        above[0].set_ylabel("names whose fact\na probe reads")
        below[0].set_ylabel("rank of the donor's\nimplication (0 is best)")
        above[0].set_ylim(0, 1.02)
        below[0].set_ylim(-0.1, 2.8)
    handles = [Line2D([], [], color=PLACE_COLORS[place], lw=FIRST_SEED) for place in PLACE_WORDS]
    handles += [
        Line2D([], [], color="#555555", lw=1, ls=":"),
        Line2D([], [], color="#aaaaaa", lw=1, ls="--"),
    ]
    labels = [*PLACE_WORDS.values(), "before fine-tuning", "chance (above), unpatched (below)"]
    fig.legend(handles, labels, frameon=False, ncols=2, loc="outside lower center")
    return fig


def layers_sentence(numbers: dict[str, Any]) -> str:
    """The layer from which patching the prompt's last token brings more than patching the name, by model."""
    turns: dict[str, list[int]] = {}
    depth: dict[str, int] = {}
    for key, of in ((key, of) for key, seeds in numbers.items() for of in seeds.values()):
        model = _model(key)
        name, last = (np.array(of["donor"])[:, of["places"].index(place)] for place in PLACE_WORDS)
        turn = int(np.argmax(last < name))
        depth[model] = len(of["donor"])
        if not turn or not (last < name)[turn:].all():
            return (
                "Where facts of untold names can be read, and where patching them brings the donor's "
                "implication"
            )
        turns.setdefault(model, []).append(turn)
    where = [
        f"layer {_listed(sorted(set(of)))} of {depth[model]} on {TITLES[model].split('-')[0]}"
        for model, of in turns.items()
    ]
    return f"What is known of a name moves from it to the prompt's last token at {', '.join(where)}"


def _listed(layers: list[int]) -> str:
    *first, last = map(str, layers)
    return f"{', '.join(first)} or {last}" if first else last


def _draw_probes(ax: Axes, of: dict[str, Any], lw: float) -> None:
    for k, place in enumerate(of["places"]):
        for state, style, width in (("probe_before", ":", lw / 2), ("probe_after", "-", lw)):
            ax.plot([row[k] for row in of[state]], style, color=PLACE_COLORS[place], lw=width)
    ax.axhline(of["chance"], color="#aaaaaa", lw=1, ls="--", zorder=0)


def _title(key: str, seeds: int) -> str:
    """The model, data set, method and number of seeds, from the key of a run's numbers."""
    *_, data, method = key.split(", ")
    of = f"{METHODS[method]}, {seeds} seed{'s' if seeds > 1 else ''}"
    return f"{TITLES[_model(key)]}\n{data.replace('_', '-').title()}\n{of}"


def _model(key: str) -> str:
    """SMOLLM2 or GEMMA, from the key of a run's numbers."""
    *model, _, _ = key.split(", ")
    return model[0] if model else SMOLLM2


TRUNCATION = Drawing(truncation_sentence, draw_truncation)
LAYERS = Drawing(layers_sentence, draw_layers)
