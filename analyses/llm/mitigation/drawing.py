"""The pictures of the mitigation study, from the rows of their JSONs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from analyses.house.drawing import WIDTH, Drawing

PICTURE, GEMMA_PICTURE = "llm_mitigation", "llm_mitigation_gemma"
LAYERS_PICTURE, OTHERS_PICTURE = "llm_mitigation_layers", "llm_mitigation_others"
PARETO_PICTURE = "llm_mitigation_pareto"
TITLES = {
    "profession": "workplace and color of professions",
    "month": "sign and color\nof months",
    "city": "language and color\nof cities",
    "profession_on_gemma": "workplace and\ncolor, Gemma",
}
CAUSAL_COLOR, SPURIOUS_COLOR = "#0173b2", "#d55e00"
KEY = (
    ("o", CAUSAL_COLOR, "causal (wanted at 0)"),
    ("D", SPURIOUS_COLOR, "spurious (wanted at 2)"),
)
N_LAYERS = {"profession": 30, "profession_on_gemma": 18}
"""Of SmolLM2-135M and of Gemma 3 270M."""
TAKEN = 0.3
"""Least difference of mean ranks to one LoRA at which a method takes something away that was deduced."""
MODELS = {"profession": "SmolLM2-135M", "profession_on_gemma": "Gemma 3 270M"}


def separation(table: Sequence[dict[str, Any]], method: str) -> float:
    """Mean over people of the spurious rank minus the causal one."""
    own = [row for row in table if row["method"] == method]
    return float(np.mean([row["spurious"]["mean"] - row["causal"]["mean"] for row in own]))


def by_separation(table: Sequence[dict[str, Any]]) -> list[str]:
    """The methods of a table, the one that separates most last; of equal ones the first by name first."""
    return sorted({row["method"] for row in table}, key=lambda name: (separation(table, name), name))


def _marks(ax: Axes, rows: Sequence[dict[str, Any]], names: Sequence[str], limits: dict[str, float]) -> None:
    """One row per method: every seed as a small mark, the mean as a large one; hollow if facts are lost."""
    ax.axvspan(limits["spurious_at_least"], 2.6, color=SPURIOUS_COLOR, alpha=0.07, lw=0)
    ax.axvspan(-0.1, limits["causal_at_most"], color=CAUSAL_COLOR, alpha=0.07, lw=0)
    for row in rows:
        y = names.index(row["method"])
        known = row["told"]["mean"] <= limits["told_at_most"]
        for relation, color, marker in (("causal", CAUSAL_COLOR, "o"), ("spurious", SPURIOUS_COLOR, "D")):
            values = row[relation]["by_seed"]
            ax.plot(values, [y] * len(values), marker, ms=3, color=color, alpha=0.5)
            ax.plot(row[relation]["mean"], y, marker, ms=6, color=color, mfc=color if known else "white")
    ax.set_xlim(-0.1, 2.6)
    ax.set_ylim(-0.6, max(len(names), 1) - 0.4)


def _key(fig: Picture, rows: Sequence[dict[str, Any]], limits: dict[str, float]) -> None:
    handles = [Line2D([], [], marker=m, ls="", color=c, label=label) for m, c, label in KEY]
    if any(row["told"]["mean"] > limits["told_at_most"] for row in rows):
        handles.append(
            Line2D([], [], marker="o", ls="", color="#777777", mfc="white", label="told ones not known")
        )
    fig.legend(handles=handles, frameon=False, ncol=3, loc="outside lower center")


def _methods(numbers: dict[str, Any]) -> Picture:
    rows = numbers["rows"]
    names = by_separation(rows)
    titles = {row["method"]: row["title"] for row in rows}
    height = 1.4 + 0.2 * max(len(names), 1)
    fig, ax = plt.subplots(figsize=(WIDTH, height), layout="constrained")
    _marks(ax, rows, names, numbers["limits"])
    ax.set_yticks(range(len(names)), [titles[name] for name in names])
    ax.set_xlabel("untold answers about professions, mean rank (0: right one first, 2: guessed)")
    _key(fig, rows, numbers["limits"])
    return fig


def on_front(rows: Sequence[dict[str, Any]], limits: dict[str, float]) -> list[str]:
    """The methods that no other beats in both ranks, among those that know what they were told."""
    able = [row for row in rows if row["told"]["mean"] <= limits["told_at_most"]]
    points = {row["method"]: (row["causal"]["mean"], -row["spurious"]["mean"]) for row in able}
    return [
        name
        for name, own in points.items()
        if not any(a <= own[0] and b <= own[1] and (a, b) != own for a, b in points.values())
    ]


def _pareto(numbers: dict[str, Any]) -> Picture:
    """Spurious against causal rank, a panel per model; named: one LoRA, what none beats, what loses."""
    of = {one: [row for row in numbers["rows"] if row["people"] == one] for one in MODELS}
    limits, x = numbers["limits"], "causal: mean rank (0: known)"
    fig, axes = plt.subplots(1, len(of), figsize=(WIDTH, 4.2), sharey=True, layout="constrained")
    for ax, (one, rows) in zip(axes, of.items(), strict=True):
        front = numbers["front"].get(one, [])
        size = (-0.05 - limits["causal_at_most"], 2.3 - limits["spurious_at_least"])
        corner = (limits["causal_at_most"], limits["spurious_at_least"])
        ax.add_patch(Rectangle(corner, *size, color="#029e73", alpha=0.12, lw=0))
        for row in rows:
            known = row["told"]["mean"] <= limits["told_at_most"]
            best = row["method"] in front
            color = "#029e73" if best else SPURIOUS_COLOR if row["method"] == "lora" else "#888888"
            at = (row["causal"]["mean"], row["spurious"]["mean"])
            ax.plot(*at, "o", ms=7 if best else 5, color=color, mfc=color if known else "white")
        ends = sorted((r["causal"]["mean"], r["spurious"]["mean"]) for r in rows if r["method"] in front)
        if ends:
            ax.step(*zip(*ends, strict=True), where="post", color="#029e73", lw=1)
        lost = [row["method"] for row in rows if row["spurious"]["mean"] >= limits["spurious_at_least"]]
        _name(ax, [row for row in rows if row["method"] in (*front, *lost, "lora")])
        ax.set_title(MODELS[one], loc="left")
        ax.set(xlim=(-0.05, 1.0), ylim=(-0.75, 2.3), yticks=(0, 0.5, 1, 1.5, 2), xlabel=x)
    axes[0].set_ylabel("spurious: mean rank (2: guessed)")
    fig.legend(handles=_pareto_key(), frameon=False, ncols=2, loc="outside lower center", fontsize=8)
    return fig


def _name(ax: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Numbers the points, above or on the left where one on the right is close, and lists their methods."""
    ordered = sorted(rows, key=lambda row: -row["spurious"]["mean"])
    points = [(row["causal"]["mean"], row["spurious"]["mean"]) for row in ordered]
    for k, (x, y) in enumerate(points, 1):
        beside = [right - x for right, above in points if right > x and abs(above - y) < 0.25]
        nearest = min(beside, default=1.0)
        place = (-5, 4, "right") if nearest < 0.02 else (0, 6, "center") if nearest < 0.06 else (5, 4, "left")
        ax.annotate(str(k), (x, y), place[:2], textcoords="offset points", ha=place[2], fontsize=8)
    words = [f"{k}  {row['title'].removeprefix('experts ')}" for k, row in enumerate(ordered, 1)]
    ax.text(0.98, 0.02, "\n".join(words), transform=ax.transAxes, ha="right", va="bottom", fontsize=7)


def _pareto_key() -> list[Line2D]:
    looks: dict[str, dict[str, Any]] = {
        "no method is better in both": {"marker": "o", "color": "#029e73", "ls": "-", "lw": 1},
        "one LoRA": {"marker": "o", "color": SPURIOUS_COLOR, "ls": ""},
        "other methods": {"marker": "o", "color": "#888888", "ls": ""},
        "hollow: told ones not known": {"marker": "o", "color": "#888888", "mfc": "white", "ls": ""},
    }
    return [Line2D([], [], label=label, **style) for label, style in looks.items()]


def _near(rows: Sequence[dict[str, Any]], margin: float) -> list[dict[str, Any]]:
    """The methods that know what was told, lose the spurious one, and keep the causal one as one LoRA does.

    In the mean of their seeds: the limits of the study, and its margin above one LoRA for the causal rank.
    """
    plain = next((row["causal"]["mean"] for row in rows if row["method"] == "lora"), None)
    if plain is None:
        return []
    return [row for row in rows if row["lost_and_told"] and row["causal"]["mean"] <= plain + margin]


def _pareto_sentence(numbers: dict[str, Any]) -> str:
    """Whether experts by relation alone lose what does not follow and keep what one LoRA has, by model."""
    near = {
        one: _near(
            [row for row in numbers["rows"] if row["people"] == one], numbers["limits"]["causal_margin"]
        )
        for one in MODELS
    }
    every = [row for rows in near.values() for row in rows]
    if not every or not all(r["told_which_is_spurious"] and "experts" in r["title"] for r in every):
        return "Which methods keep what follows and lose what does not, on two models"
    claim = "experts by relation alone lose what does not follow and keep what one LoRA has"
    if all(near.values()):
        return f"On both models {claim}"
    (one,), (other,) = ([k for k, rows in near.items() if bool(rows) == found] for found in (True, False))
    return f"On {MODELS[one]} {claim}; on {MODELS[other]} nothing does and knows all it was told"


def _layers(numbers: dict[str, Any]) -> Picture:
    """A row of panels per model; left: the layers in which experts are apart; right: ranks."""
    of = {one: [row for row in numbers["rows"] if row["people"] == one] for one in MODELS}
    of = {one: sorted(rows, key=lambda row: row["spurious"]["mean"]) for one, rows in of.items() if rows}
    heights = [len(rows) for rows in of.values()] or [1]
    fig, axes = plt.subplots(
        len(heights), 2, figsize=(WIDTH, 1.5 + 0.28 * sum(heights) + 0.3 * len(heights)), squeeze=False,
        height_ratios=heights, layout="constrained",
    )  # fmt: skip
    for (left, right), (one, rows) in zip(axes, of.items(), strict=bool(of)):
        n_layers = N_LAYERS[one]
        for y, row in enumerate(rows):
            for layer in range(n_layers):
                apart = row["first_layer_apart"] <= layer < row["last_layer_apart"]
                color = "#029e73" if apart else "#e4e4e4"
                left.add_patch(Rectangle((layer - 0.42, y - 0.3), 0.84, 0.6, color=color, lw=0))
        left.set_xlim(-1, n_layers)
        left.set_title(MODELS[one], loc="left", fontsize=9)
        left.set_yticks(range(len(rows)), [row["title"].removeprefix("experts ") for row in rows])
        _marks(right, rows, [row["method"] for row in rows], numbers["limits"])
        left.set_ylim(right.get_ylim())
        right.set_yticks([])
    axes[-1, 0].set_xlabel("layers with experts apart (green),\none LoRA (gray)")
    axes[-1, 1].set_xlabel("untold answers, mean rank\n(0: the right one first, 2: guessed)")
    _key(fig, numbers["rows"], numbers["limits"])
    return fig


def _others(numbers: dict[str, Any]) -> Picture:
    rows = numbers["rows"]
    people = [name for name in TITLES if any(row["people"] == name for row in rows)]
    names = by_separation(rows)
    titles = {row["method"]: row["title"] for row in rows}
    fig, axes = plt.subplots(
        1,
        max(len(people), 1),
        figsize=(WIDTH, 1.7 + 0.22 * max(len(names), 1)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, one in zip(axes[0], people, strict=bool(people)):
        _marks(ax, [row for row in rows if row["people"] == one], names, numbers["limits"])
        ax.set_title(TITLES[one], fontsize=9)
    axes[0, 0].set_yticks(range(len(names)), [titles[name] for name in names])
    axes[0, len(people) // 2].set_xlabel("untold answers, mean rank\n(0: the right one first, 2: guessed)")
    _key(fig, rows, numbers["limits"])
    return fig


def _methods_sentence(numbers: dict[str, Any]) -> str:
    """The methods that lose what does not follow and keep what one LoRA has."""
    rows = numbers["rows"]
    on = " on Gemma 3" if rows and rows[0]["people"].endswith("on_gemma") else ""
    near = _near(rows, numbers["limits"]["causal_margin"])
    if not near:
        return f"No method{on} knows what was told, keeps what one LoRA has, and loses what does not follow"
    if len(near) > 1 and all(row["title"].startswith("experts") for row in near):
        return f"LoRA experts by relation{on} lose what does not follow, and keep what one LoRA has"
    seeds = " (one seed)" if all(len(row["seeds"]) == 1 for row in near) else ""
    titles = ", ".join(row["title"] for row in near)
    return f"What loses what does not follow{on}, and keeps what one LoRA has: {titles}{seeds}"


def _others_sentence(numbers: dict[str, Any]) -> str:
    """Of whom experts that read apart lose a spurious implication that one LoRA deduces."""
    spurious = {(row["people"], row["method"]): row["spurious"]["mean"] for row in numbers["rows"]}
    lost = [
        people
        for (people, method), mean in spurious.items()
        if method == "read_by_relation"
        and mean >= numbers["limits"]["spurious_at_least"]
        and mean - spurious.get((people, "lora"), mean) >= TAKEN
    ]
    names = {"month": "of months", "city": "of cities", "profession_on_gemma": "on Gemma 3"}
    if not lost:
        return "Causal against spurious implication of other people and on Gemma 3, by method"
    where = " and ".join(names[one] for one in names if one in lost)
    return f"Experts by relation that read apart lose what does not follow, {where} too"


def _layers_sentence(numbers: dict[str, Any]) -> str:
    """Whether on each model the arms apart in the first layers alone lose the spurious implication."""
    lost = {
        people: {
            row["first_layer_apart"] > 0
            for row in numbers["rows"]
            if row["people"] == people
            and row["last_layer_apart"] > 0
            and row["spurious"]["mean"] >= numbers["limits"]["spurious_at_least"]
        }
        for people in {row["people"] for row in numbers["rows"]}
    }
    if lost and all(found == {False} for found in lost.values()):
        return "Experts apart in the first layers do not deduce colors; apart in later layers alone they do"
    return "In which layers experts are apart, and what is deduced"


DRAWINGS = {
    PICTURE: Drawing(_methods_sentence, _methods),
    GEMMA_PICTURE: Drawing(_methods_sentence, _methods),
    PARETO_PICTURE: Drawing(_pareto_sentence, _pareto),
    LAYERS_PICTURE: Drawing(_layers_sentence, _layers),
    OTHERS_PICTURE: Drawing(_others_sentence, _others),
}
