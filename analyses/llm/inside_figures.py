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
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.stats import binom

from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure as FigureOfStudy
from analyses.house.reproduce import main
from analyses.llm.finished.inside_claims import (
    LAYERS_PICTURE,
    TRUNCATION_PICTURE,
    inside_claims,
    picture_of_cuts,
)
from analyses.llm.finished.inside_curves import (
    LAYERS,
    TRUNCATION,
    layer_numbers,
    layered_runs,
    truncated_runs,
    truncation_numbers,
)
from analyses.llm.finished.inside_results import METHODS, RESULTS, Runs, read_runs
from analyses.llm.finished.results import CHANCE
from analyses.llm.studies.plan import SMOLLM2, TITLES

LOOK = {
    "held_out_fact": ("facts (told)", "o", "#0173b2"),
    "training_implication": ("implications, told", "s", "#029e73"),
    "held_out_implication": ("implications, never told", "D", "#de8f05"),
}
SECTIONS = ("none", "parts", "heads", "directions", "mean")
STATES = ("before", "after", "change")
CIRCUITS_PICTURE = "llm_token_circuits"
GROUPS = {"most changed": "#de8f05", "random": "#6e6e6e"}
GROUP_WORDS = {"most changed": "most changed heads", "random": "random other heads"}
METHOD_MARKS = ("o", "s", "^", "D", "v", "P")
SHARE = "change among top 5%"
SMALL_SHARE = 0.05
"""The share of assignments with the largest change; a head is among them by chance with this probability."""


def draw(runs: list[Runs], figures: Path) -> None:
    """Draws what the inspected runs have (`pictures`)."""
    for model in dict.fromkeys(run.model for run in runs):
        numbers = {run.key: _shown(run.cuts()) for run in runs if run.model == model}
        drawing = cuts_drawing(model)
        drawing.write(figures / picture_of_cuts(model), {"mean rank by seed": numbers, "chance": CHANCE})
    if truncated_runs(runs):
        TRUNCATION.write(figures / TRUNCATION_PICTURE, truncation_numbers(truncated_runs(runs)))
    if layered_runs(runs):
        LAYERS.write(figures / LAYERS_PICTURE, layer_numbers(layered_runs(runs)))
    found = [run for run in runs if run.circuits()]
    if found:
        names = list(found[0].circuits()[0]["contrasts"])
        numbers = {
            run.key: {name: {group: _heads(run, name, group) for group in GROUPS} for name in names}
            for run in found
        }
        CIRCUITS.write(figures / CIRCUITS_PICTURE, numbers)


def pictures(runs: list[Runs]) -> tuple[str, ...]:
    """Names of the pictures that the inspected runs give."""
    found = [picture_of_cuts(model) for model in dict.fromkeys(run.model for run in runs)]
    found += [CIRCUITS_PICTURE] if any(run.circuits() for run in runs) else []
    found += [TRUNCATION_PICTURE] if truncated_runs(runs) else []
    return (*found, *([LAYERS_PICTURE] if layered_runs(runs) else []))


# --- cuts -------------------------------------------------------------------------------------------


def draw_cuts(numbers: dict[str, Any]) -> Figure:
    """Mean ranks after every cut of one model: one row per cut, one panel per data set and method."""
    cuts = numbers["mean rank by seed"]
    kind = {what: cut["kind"] for found in cuts.values() for what, cut in found.items()}
    rows = _ordered(kind)
    size = (WIDTH, 1.6 + 0.2 * len(rows))
    fig, axes = plt.subplots(1, len(cuts), figsize=size, sharey=True, sharex=True, squeeze=False)
    fig.set_layout_engine("constrained")
    y = {what: -float(k) - 0.6 * SECTIONS.index(kind[what]) for k, what in enumerate(rows)}
    for ax, (key, found) in zip(axes[0], cuts.items(), strict=True):
        for what, cut in found.items():
            _draw_cut(ax, y[what], cut)
        narrow = len(cuts) > 3
        for what in (row for row in rows if row not in found):
            missing = (
                "not trained" if kind[what] == "parts" else "not\nmeasured" if narrow else "not measured"
            )
            ax.text(
                CHANCE / 2,
                y[what],
                missing,
                ha="center",
                va="center",
                fontsize=6.5,
                color="#6e6e6e",
            )
        for where in (0.0, CHANCE):
            ax.axvline(where, color="#aaaaaa", lw=0.8, ls="-" if where == 0 else "--", zorder=0)
        title = _panel_title(key, found)
        ax.set_title(title.replace("-", "-\n", 1) if narrow else title, fontsize=7.5)
        ax.set_xlabel("mean rank")
        ax.set_xticks([0, 1, 2])
        ax.tick_params(axis="y", length=0)
    axes[0][0].set_yticks(list(y.values()), [_shortened(what) for what in rows], fontsize=7)
    for label, what in zip(axes[0][0].get_yticklabels(), rows, strict=True):
        label.set_color("#6e6e6e" if "random" in what else "#000000")
    handles, labels = _legend(axes[0][0])
    fig.legend(handles, labels, frameon=False, ncols=4, loc="outside lower center", columnspacing=1)
    return fig


def cuts_sentence(numbers: dict[str, Any]) -> str:
    """Whether in every panel putting the MLPs back loses most, in the sum of the three mean ranks."""
    most = True
    for cuts in numbers["mean rank by seed"].values():
        parts = [cuts.get(f"{part} put back") for part in ("MLP", "OV", "QK")]
        lost = [_sum_of_ranks(cut) for cut in parts if cut is not None]
        most &= len(lost) == len(parts) and lost[0] > max(lost[1:])
    if not most:
        return "What is left of facts and implications after every part of the update is put back"
    return "Putting the MLP update back loses more of what was learned than putting back OV or QK"


def _sum_of_ranks(cut: dict[str, Any]) -> float:
    return sum(float(np.mean(values)) for name, values in cut.items() if name != "kind")


def cuts_drawing(model: str) -> Drawing:
    """The picture of a model's cuts."""

    def sentence(numbers: dict[str, Any]) -> str:
        of = "" if model == SMOLLM2 else f", {TITLES[model]}"
        return cuts_sentence(numbers) + of

    return Drawing(sentence, draw_cuts)


def _panel_title(key: str, found: dict[str, Any]) -> str:
    """Data set, method and number of seeds, from the key of a run's numbers."""
    *_, data, method = key.split(", ")
    seeds = max(len(cut["held_out_fact"]) for cut in found.values())
    return f"{data.replace('_', '-').title()}\n{METHODS[method]}, {seeds} seed{'s' if seeds > 1 else ''}"


def _shown(cuts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The cuts that have a row; truncation has a picture of its own."""
    return {what: cut for what, cut in cuts.items() if cut["kind"] in SECTIONS}


def _ordered(kind: dict[str, str]) -> list[str]:
    """Rows by section, in the order of the results."""
    return [what for section in SECTIONS for what, found in kind.items() if found == section]


def _shortened(what: str) -> str:
    turned = re.sub(r"of (\d+) heads (\d+) (.*) removed", r"\2 \3 of \1 heads removed", what)
    turned = turned.replace(", drawn at random,", " (random)")
    turned = turned.replace(", at most half of a layer,", " (≤ ½ layer)")
    turned = turned.replace("embeddings and norms", "embeddings, norms")
    turned = turned.replace("random heads of the same layers", "random, same layers")
    return turned.replace("every ΔW x replaced by its mean over names", "ΔW x: mean over names")


def _draw_cut(ax: Axes, y: float, cut: dict[str, Any]) -> None:
    """The means over seeds of one cut, joined if held-out implications differ from facts; seeds as dots."""
    ranks = {split: np.array(cut[split], dtype=np.float64) for split in LOOK}  # None of the JSON is NaN
    means = {split: float(np.nanmean(each)) for split, each in ranks.items() if not np.isnan(each).all()}
    ends = [means[split] for split in ("held_out_fact", "held_out_implication") if split in means]
    ax.plot(ends, [y] * len(ends), color="#cccccc", lw=2.5, zorder=1, solid_capstyle="butt")
    for split, mean in means.items():
        _, marker, color = LOOK[split]
        size = {"o": 24, "s": 14, "D": 14}[marker]
        ax.scatter(mean, y, marker=marker, s=size, color=color, zorder=3, edgecolor="white", lw=0.5)
        if len(ranks[split]) > 1:
            ax.scatter(ranks[split], [y] * len(ranks[split]), s=4, color=color, alpha=0.6, zorder=2)


def _legend(ax: Axes) -> tuple[list[Any], list[str]]:
    handles: list[Any] = [ax.scatter([], [], marker=m, color=color, s=36) for _, m, color in LOOK.values()]
    handles += ax.plot([], [], color="#aaaaaa", lw=0.8, ls="--")
    return handles, [*(label for label, *_ in LOOK.values()), f"chance ({CHANCE:g}; 0 is best)"]


# --- token circuits ---------------------------------------------------------------------------------


def draw_circuits(numbers: dict[str, Any]) -> Figure:
    """Share of heads whose change is beyond chance: most changed heads beside random ones, by data set."""
    sets = list(dict.fromkeys(run.rsplit(", ", 1)[0] for run in numbers))
    names = list(next(iter(numbers.values())))
    fig, axes = plt.subplots(
        1, len(sets), figsize=(WIDTH, 1.7 + 0.42 * len(names)), sharey=True, sharex=True, squeeze=False
    )
    methods = list(dict.fromkeys(run.rsplit(", ", 1)[1] for run in numbers))
    for ax, name_of_set in zip(axes[0], sets, strict=True):
        for run, circuits in numbers.items():
            if run.rsplit(", ", 1)[0] == name_of_set:
                _draw_shares(ax, circuits, METHOD_MARKS[methods.index(run.rsplit(", ", 1)[1])])
        ax.axvline(SMALL_SHARE, color="0.4", lw=0.9, ls=":")
        ax.set_title(name_of_set.replace("_", "-").title(), loc="left")
    axes[0][len(sets) // 2].set_xlabel(
        "share of heads whose change is among the 5 % largest over all pairings"
    )
    shares = [heads[SHARE] or 0.0 for run in numbers.values() for c in run.values() for heads in c.values()]
    axes[0][0].set_xlim(-0.02, max(0.3, *shares) + 0.02)
    axes[0][0].set_yticks(range(len(names)), [name.replace(" to ", " → ") for name in names])
    axes[0][0].set_ylim(len(names) - 0.5, -0.5)
    marks = zip(methods, METHOD_MARKS, strict=False)
    handles: list[Any] = [Patch(color=color, label=GROUP_WORDS[group]) for group, color in GROUPS.items()]
    handles += [
        Line2D([], [], ls="", marker=mark, color="0.3", label=METHODS.get(name, name)) for name, mark in marks
    ]
    handles.append(Line2D([], [], color="0.4", lw=0.9, ls=":", label="chance"))
    handles.append(Patch(color="0.92", label="what chance gives in 97.5 % of cases"))
    fig.set_layout_engine("constrained")
    fig.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return fig


def _draw_shares(ax: Axes, circuits: dict[str, Any], mark: str) -> None:
    """One mark per circuit and group; behind each what chance gives to as many heads."""
    for y, groups in enumerate(circuits.values()):
        for group, color in GROUPS.items():
            share = groups[group][SHARE]
            if share is None:
                continue
            shift = (list(GROUPS).index(group) - 0.5) * 0.36 + (0.09 if mark == METHOD_MARKS[1] else -0.09)
            n = _counted(groups[group])
            ax.barh(y + shift, _by_chance(n) / n, 0.18, color="0.92", lw=0, zorder=0)
            ax.plot(share, y + shift, mark, ms=5, color=color)


def _counted(heads: dict[str, Any]) -> int:
    """How many heads of a group have a contrast."""
    return sum(value is not None for value in heads["change"])


def _by_chance(n: int) -> int:
    """How many of n heads at most are beyond chance in 97.5 % of cases, were they independent."""
    return int(binom.ppf(0.975, n, SMALL_SHARE))


def circuits_sentence(numbers: dict[str, Any]) -> str:
    """Whether any group of heads pairs more than chance."""
    every = [heads for run in numbers.values() for circuit in run.values() for heads in circuit.values()]
    known = [heads for heads in every if heads[SHARE] is not None]
    counts = [(heads[SHARE], _counted(heads)) for heads in known]
    beyond = sum(round(share * n) > _by_chance(n) for share, n in counts)
    found = "no" if not beyond else "little"
    rest = (
        "neither in the most changed heads nor in others"
        if not beyond
        else f"{beyond} of {len(known)} groups of heads exceed chance"
    )
    return f"Fine-tuning adds {found} pairing of names or facts with their answers on the direct path: {rest}"


CIRCUITS = Drawing(circuits_sentence, draw_circuits)


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
    return {**{state: found[:, k] for k, state in enumerate(STATES)}, SHARE: small}


def make(runs: Path, figures: Path) -> list[Runs]:
    """Draws the inspected runs; `runs` is not used, since these runs keep no weights."""
    inspected = read_runs(RESULTS)
    draw(inspected, figures)
    return inspected


INSPECTED = read_runs(RESULTS)
KNOWN = {
    CIRCUITS_PICTURE: CIRCUITS,
    TRUNCATION_PICTURE: TRUNCATION,
    LAYERS_PICTURE: LAYERS,
    **{picture_of_cuts(run.model): cuts_drawing(run.model) for run in INSPECTED},
}
FIGURE = FigureOfStudy(
    pictures=pictures(INSPECTED),
    draw=make,
    claims=inside_claims,
    drawings={name: KNOWN[name] for name in pictures(INSPECTED)},
)


if __name__ == "__main__":
    main()
