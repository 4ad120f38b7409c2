"""Muon against AdamW in a language model: hallucination against generalization. Drawn by `llm.figures`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.llm.finished.results import CHANCE, FACTS, HELD_OUT, NAMES, TOLD_LOGPROB, Group, Kind
from analyses.llm.table_1 import OTHER_RATES, SLOWER_RATE
from ocr_interp.viz.style import save_figure

CAUSAL = "city_language"
SPURIOUS = {"profession_color": "o", "sport_music": "s"}
STYLES = {CAUSAL: "-", "profession_color": "--", "sport_music": ":"}
OPTIMIZERS = ("adamw", "muon")
BATCHES = (8, 24)
WAYS: dict[str, tuple[dict[str, Any], str]] = {
    "AdamW": ({}, "#0173b2"),
    "AdamW at 6e-5": ({"lr": SLOWER_RATE}, "#56b4e9"),
    "AdamW at 3e-5": ({"lr": OTHER_RATES[0]}, "#949494"),
    "Muon": ({"optimizer": "muon"}, "#de8f05"),
}
"""The compared kinds of runs: fields of `Kind`, and a color."""
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


def draw(groups: dict[Kind, Group], figures: Path) -> None:
    """One row per batch size: hallucination against generalization at equal steps, then both by fit."""
    fig, axes = plt.subplots(len(BATCHES), 2, figsize=(9.6, 7.6), gridspec_kw={"wspace": 0.3, "hspace": 0.42})
    points, curves = [], []
    for row, batch in zip(axes, BATCHES, strict=True):
        points += _draw_trade(row[0], groups, batch)
        curves += _draw_by_fit(row[1], groups, batch)
    _legend(fig)
    save_figure(fig, figures / "llm_optimizers", {"points": points, "by_fit": curves})
    plt.close(fig)


def _ways(groups: dict[Kind, Group], data: str, batch: int) -> dict[str, Group]:
    """The groups of a data set and batch size that have runs."""
    found = {label: groups.get(Kind(data, batch=batch, **fields)) for label, (fields, _) in WAYS.items()}
    return {label: group for label, group in found.items() if group is not None}


def _draw_trade(ax: Axes, groups: dict[Kind, Group], batch: int) -> list[dict[str, Any]]:
    """Draws the groups measured at the step of `MATCHED`: large is the mean over seeds, small one seed."""
    causal, points = _ways(groups, CAUSAL, batch), []
    for data, marker in SPURIOUS.items():
        spurious = _ways(groups, data, batch)
        steps = {
            what: last_common_step(group for label, group in ways.items() if label in MATCHED)
            for what, ways in (("causal", causal), ("spurious", spurious))
            if MATCHED & ways.keys()
        }
        means: dict[str, tuple[float, float]] = {}
        for label, (_, color) in WAYS.items():
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
            x, y = row["causal"]["rank"], row["spurious"]["rank"]
            means[label] = float(np.mean(x)), float(np.mean(y))
            ax.scatter(*means[label], marker=marker, s=75, color=color, zorder=3)
            ax.scatter(x, y, marker=marker, s=14, color=color, alpha=0.55, lw=0)
        if means.keys() >= MATCHED:
            arrow = {"arrowstyle": "->", "color": "#888888", "lw": 1}
            ax.annotate("", means["Muon"], means["AdamW"], arrowprops=arrow)
    control = groups.get(Kind(CAUSAL, control="facts_only"))
    if control is not None:
        ax.axvline(float(np.mean(control.by_seed())), color="#999999", lw=0.8, ls=":")
        ax.text(float(np.mean(control.by_seed())) + 0.005, 0.06, "facts only", fontsize=8, color="#666666")
    ax.axhline(CHANCE, color="#555555", lw=0.8, ls="--")
    widest = max([0.3, *(rank for row in points for rank in row["causal"]["rank"])])
    ax.set_xlim(-0.02, 1.25 * widest)
    ax.set_ylim(0, 2.4)
    steps_said = f", step {points[0]['spurious']['step']}" if points else ""
    ax.set_title(f"batch {batch}{steps_said}", fontsize=10, loc="left")
    ax.set_xlabel("City-Language: held-out mean rank\n(left: knows the language)")
    ax.set_ylabel("spurious set: held-out mean rank\n(up: does not hallucinate; chance 2)")
    return points


def _draw_by_fit(ax: Axes, groups: dict[Kind, Group], batch: int) -> list[dict[str, Any]]:
    """Held-out implications against how well the told ones are known, along training."""
    curves = []
    for data, style in STYLES.items():
        for label, group in _ways(groups, data, batch).items():
            steps, told = group.curve(TOLD_LOGPROB)
            mean = {"told": -told.mean(0), "held_out": group.curve(HELD_OUT)[1].mean(0)}
            ax.plot(mean["told"], mean["held_out"], style, marker=".", color=WAYS[label][1], lw=1.6)
            curves.append(
                {"data": data, "optimizer": label, "batch": batch, "seeds": group.seeds, "step": steps} | mean
            )
    ax.axhline(CHANCE, color="#555555", lw=0.8, ls="--")
    ax.set_xscale("log")
    ax.invert_xaxis()
    ax.set_ylim(0, 2.4)
    ax.set_title(f"batch {batch}, along training", fontsize=10, loc="left")
    ax.set_xlabel("loss of told implications, nats (training goes to the right)")
    ax.set_ylabel("held-out implications: mean rank")
    return curves


def _legend(fig: Figure) -> None:
    """Draws one legend for all panels: colors, markers, lines."""
    ax = fig.add_axes((0, -0.06, 1, 0.04))
    ax.axis("off")
    for label, (_, color) in WAYS.items():
        ax.plot([], [], color=color, lw=4, label=label)
    for data, style in STYLES.items():
        ax.plot([], [], style, marker=SPURIOUS.get(data, ""), color="#555555", label=NAMES[data])
    ax.legend(frameon=False, fontsize=9, loc="center", ncol=4, columnspacing=1.3)
