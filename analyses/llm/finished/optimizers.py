"""Muon against AdamW in a language model: hallucination against generalization. Drawn by `llm.figures`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyses.house.drawing import WIDTH, Drawing
from analyses.llm.finished.results import CHANCE, FACTS, HELD_OUT, NAMES, TOLD_LOGPROB, Group, Kind
from analyses.llm.table_1 import OTHER_RATES, SLOWER_RATE

CAUSAL = "city_language"
SPURIOUS = ("profession_color", "sport_music")
DATA = (CAUSAL, *SPURIOUS)
OPTIMIZERS = ("adamw", "muon")
BATCHES = (8, 24)
WAYS: dict[str, tuple[dict[str, Any], str, str]] = {
    "AdamW": ({}, "#0173b2", "o"),
    "AdamW at 6e-5": ({"lr": SLOWER_RATE}, "#56b4e9", "s"),
    "AdamW at 3e-5": ({"lr": OTHER_RATES[0]}, "#949494", "v"),
    "Muon": ({"optimizer": "muon"}, "#de8f05", "D"),
}
"""The compared kinds of runs: fields of `Kind`, a color and a marker."""
MATCHED = {"AdamW", "Muon"}
"""These two are compared at the last step at which both were measured."""


def matched(groups: dict[Kind, Group], data: str, batch: int) -> dict[str, Group] | None:
    """Both optimizers' groups of a data set and batch size, with their common seeds."""
    return common_seeds({name: groups.get(Kind(data, optimizer=name, batch=batch)) for name in OPTIMIZERS})


def common_seeds(found: dict[str, Group | None]) -> dict[str, Group] | None:
    """The groups with their common seeds; None if a group is missing or there is no common seed."""
    present = {name: group for name, group in found.items() if group is not None}
    seeds = set.intersection(*(set(group.seeds) for group in present.values())) if present else set()
    if len(present) < len(found) or not seeds:
        return None
    return {name: group.of_seeds(seeds) for name, group in present.items()}


def last_common_step(groups: Iterable[Group]) -> int:
    """The last step at which all groups were measured."""
    return int(max(set.intersection(*(set(group.curve(HELD_OUT)[0].tolist()) for group in groups))))


def numbers_of(groups: dict[Kind, Group]) -> dict[str, Any]:
    """At equal steps, hallucination and generalization by seed; along training, both by fit."""
    points, curves = [], []
    for batch in BATCHES:
        points += _points(groups, batch)
        curves += _curves(groups, batch)
    return {"points": points, "by_fit": curves}


def draw(numbers: dict[str, Any]) -> Figure:
    """Held-out implications against the loss of told ones: a row per batch size, a column per data set."""
    shape = len(BATCHES), len(DATA)
    fig, axes = plt.subplots(*shape, figsize=(WIDTH, 4.6), sharex=True, sharey=True, layout="constrained")
    for curve in numbers["by_fit"]:
        ax = axes[BATCHES.index(curve["batch"]), DATA.index(curve["data"])]
        _, color, marker = WAYS[curve["optimizer"]]
        ax.plot(curve["told"], curve["held_out"], marker=marker, ms=3, color=color, lw=1.4)
    for row, batch in zip(axes, BATCHES, strict=True):
        row[0].set_ylabel(f"batch {batch}: mean rank\nof untold implications")
        for ax in row:
            ax.axhline(CHANCE, color="#555555", lw=0.8, ls="--")
    for ax, data in zip(axes[0], DATA, strict=True):
        ax.set_title(NAMES[data] + ("" if data == CAUSAL else " (spurious)"), loc="left")
    axes[0, 0].set(xscale="log", ylim=(0, 2.4), xlim=(5, 3e-4))
    axes[1, 1].set_xlabel("loss of told implications, nats (training goes to the right)")
    handles = [
        Line2D([], [], color=color, marker=marker, ms=4, label=label)
        for label, (_, color, marker) in WAYS.items()
    ]
    handles.append(Line2D([], [], color="#555555", lw=0.8, ls="--", label="chance"))
    fig.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    return fig


DRAWING = Drawing(
    "At the same rate Muon hallucinates less than AdamW; AdamW at a smaller rate does most or all of that "
    "too",
    draw,
)


def _ways(groups: dict[Kind, Group], data: str, batch: int) -> dict[str, Group]:
    """The groups of a data set and batch size that have runs."""
    found = {label: groups.get(Kind(data, batch=batch, **fields)) for label, (fields, *_) in WAYS.items()}
    return {label: group for label, group in found.items() if group is not None}


def _points(groups: dict[Kind, Group], batch: int) -> list[dict[str, Any]]:
    """The groups measured at the step of `MATCHED`, by seed."""
    causal, points = _ways(groups, CAUSAL, batch), []
    for data in SPURIOUS:
        spurious = _ways(groups, data, batch)
        steps = {
            what: last_common_step(group for label, group in ways.items() if label in MATCHED)
            for what, ways in (("causal", causal), ("spurious", spurious))
            if MATCHED & ways.keys()
        }
        for label in WAYS:
            pair = common_seeds({"causal": causal.get(label), "spurious": spurious.get(label)})
            if pair is None or not all(steps.get(w) in g.curve(HELD_OUT)[0] for w, g in pair.items()):
                continue  # AdamW at 3e-5 was measured at other steps
            row: dict[str, Any] = {"optimizer": label, "batch": batch, "data": data}
            row["seeds"] = pair["causal"].seeds
            for what, group in pair.items():
                ranks = {"rank": HELD_OUT, "fact_rank": FACTS}
                row[what] = {name: group.at_step(steps[what], column) for name, column in ranks.items()}
                row[what]["step"] = steps[what]
            points.append(row)
    return points


def _curves(groups: dict[Kind, Group], batch: int) -> list[dict[str, Any]]:
    """Held-out implications and how well the told ones are known, along training, means over seeds."""
    curves = []
    for data in DATA:
        for label, group in _ways(groups, data, batch).items():
            steps, told = group.curve(TOLD_LOGPROB)
            mean = {"told": -told.mean(0), "held_out": group.curve(HELD_OUT)[1].mean(0)}
            curves.append(
                {"data": data, "optimizer": label, "batch": batch, "seeds": group.seeds, "step": steps} | mean
            )
    return curves
