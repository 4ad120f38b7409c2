"""The pictures of routed experts."""

from __future__ import annotations

import matplotlib.figure
import matplotlib.pyplot as plt
import numpy as np

from analyses.parameterisation.routing_criteria import EXPERTS, SIDES, SIZES
from analyses.parameterisation.routing_measured import Measured

CHANCE = 1 / SIZES[0]
LEARNS, QUIET = "#0173b2", "#de8f05"


def draw_sides(found: dict[str, Measured]) -> matplotlib.figure.Figure:
    """Accuracy by routing and side, one dot per seed."""
    fig, ax = plt.subplots(figsize=(6.6, 3.4), layout="constrained")
    for y, (name, each) in enumerate(found.items()):
        color = {"deduced": LEARNS, "silent": QUIET, "split": "#949494"}[SIDES[name][1]]
        ax.plot(each.accuracy, np.full(len(each.accuracy), y), "o", color=color, ms=6, alpha=0.8)
    ax.axvline(CHANCE, color="0.25", ls=":", lw=1.2)
    ax.set_yticks(range(len(found)), list(found))
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.set(
        xlabel="accuracy of untold implications (dotted: chance; colour: as predicted)",
        xlim=(-0.03, 1.03),
        title="By relation reading apart silences, by subject writing apart does",
    )
    return fig


GROUPING = {
    "one expert": "one expert",
    "r1+r2 | r3, read": "{r1, r2} and {r3} read apart",
    "r1+r2 | r3, write": "{r1, r2} and {r3} write apart",
    "one each, read": "all three read apart",
}


def draw_relations(found: dict[str, Measured]) -> matplotlib.figure.Figure:
    """Accuracy of r2's and of r3's implications by grouping of the relations."""
    fig, ax = plt.subplots(figsize=(6.6, 2.8), layout="constrained")
    for y, each in enumerate(found.values()):
        for shift, (relation, color) in zip((-0.14, 0.14), (("r2", LEARNS), ("r3", QUIET)), strict=True):
            accuracy, label = each.by_relation[relation], f"of {relation}" if y == 0 else None
            ax.plot(
                accuracy, np.full(len(accuracy), y + shift), "o", color=color, ms=6, alpha=0.8, label=label
            )
    ax.axvline(CHANCE, color="0.25", ls=":", lw=1.2)
    ax.set_yticks(range(len(found)), [GROUPING[name] for name in found])
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.set(xlabel="accuracy of untold implications (dotted: chance)", xlim=(-0.03, 1.03))
    ax.set_title("Reading apart keeps r2 and loses r3; writing apart keeps both")
    ax.legend(loc="center")
    return fig


def draw_random(found: dict[str, Measured]) -> matplotlib.figure.Figure:
    """Accuracy under random routing over the number of experts, beside the formula."""
    fig, ax = plt.subplots(figsize=(6.6, 3.4), layout="constrained")
    line = np.linspace(1, max(EXPERTS), 100)
    ax.plot(line, 1 / line + (1 - 1 / line) * CHANCE, color="0.25", label="1/E + (1 − 1/E)/n")
    for n in EXPERTS:
        accuracy = found[str(n)].accuracy
        ax.plot(np.full(len(accuracy), n), accuracy, "o", color=LEARNS, ms=6, alpha=0.5)
        label = "mean of 5 draws" if n == 1 else None
        ax.plot(n, np.mean(accuracy), "_", color=LEARNS, ms=26, mew=2.5, label=label)
    ax.axhline(CHANCE, color="0.25", ls=":", lw=1.2)
    ax.set(xlabel="experts E, subjects assigned at random", ylabel="accuracy of untold implications")
    ax.set_title("Random experts: an untold subject needs a told one of its pair in its expert")
    ax.set_xticks(EXPERTS)
    ax.set_ylim(0, 1.05)
    ax.legend()
    return fig


def draw_learned(found: dict[str, Measured]) -> matplotlib.figure.Figure:
    """Accuracy over how far apart the router sends the two relations."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(6.6, 3.4), sharey=True, layout="constrained")
    for y, each in enumerate(found.values()):
        distances = [value for value in each.distance if value is not None]
        left.plot(distances, np.full(len(distances), y), "o", color="#029e73", ms=6, alpha=0.7)
        right.plot(each.accuracy, np.full(len(each.accuracy), y), "o", color=LEARNS, ms=6, alpha=0.7)
    right.axvline(CHANCE, color="0.25", ls=":", lw=1.2)
    left.set_yticks(range(len(found)), list(found))
    left.set_ylim(len(found) - 0.5, -0.5)
    left.set(xlabel="r1 and r2 routed apart", xlim=(-0.04, 1.04))
    right.set(xlabel="accuracy of untold implications", xlim=(-0.04, 1.04))
    fig.suptitle("Under learned routers all is deduced; only hard routing silences", fontsize="medium")
    return fig
