"""The pictures of the study of mitigations."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from analyses.house.drawing import WIDTH, Drawing
from analyses.mitigation.criteria import SETTINGS, VARIANTS

KEEPS, NEITHER, CONTROL = "#0173b2", "#de8f05", "#949494"

SILENT, KEPT = 0.06, 0.2
"""Blue points have a smaller unwanted β and a larger wanted one; chosen after the results were seen."""

BEFORE_AND_AFTER = ("unwanted_beta", "after_unwanted_beta")
"""What the second picture shows of a method, before and after going on."""

GROUPS = {
    "experts, read\nown matrix": (("experts, read", "own matrix"), (-8, 9), "right"),
    "known features": (("known features",), (-9, -3), "right"),
    "penalty,\nweight 10": (("penalty, weight 10",), (-9, -5), "right"),
    "weight 1": (("penalty, all subjects",), (9, -4), "left"),
    "penalty, 1 subject a pair": (("penalty, 1 subject a pair",), (10, 1), "left"),
    "counter-examples,\n1 and 2 subjects a pair": (
        ("counter-examples, 1 a pair", "counter-examples, 2 a pair"),
        (-8, 14),
        "right",
    ),
    "one matrix": (("one matrix",), (9, -3), "left"),
    "Muon": (("Muon",), (9, -3), "left"),
    "large start": (("large start",), (10, -4), "left"),
    "projected\ngradients": (("projected gradients",), (10, -8), "left"),
    "nothing, small start, no tail,\nexperts that write": (
        ("nothing", "experts, write", "small start", "without the tail"),
        (-8, 12),
        "right",
    ),
    "random: experts,\nprojection, cut": (
        ("experts by subject", "random projection", "without random directions"),
        (13, -16),
        "left",
    ),
    "counter-examples\nof the wanted": (("counter-examples of r2",), (10, -10), "left"),
    "features of\nthe unwanted": (("features of the unwanted",), (-22, 17), "center"),
    "experts of\nthe unwanted": (("experts {unwanted, r1}",), (16, 17), "center"),
}
"""Label in the picture -> the methods it stands for, where it stands beside the first one, in points, and its
alignment. "without the top" is left out: it has forgotten what was told."""


def draw_pareto(numbers: dict[str, Any]) -> Figure:
    """β of unwanted (across) and wanted (up) untold answers: good methods are at the left, and up."""
    found = numbers[SETTINGS[0].name]
    fig, ax = plt.subplots(figsize=(WIDTH, 5.2), layout="constrained")
    ax.axvspan(-SILENT, SILENT, ymin=0.48, color=KEEPS, alpha=0.12, lw=0)
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ax.axvline(0, color="0.8", lw=0.8, zorder=0)
    ax.plot([-0.4, 0.9], [-0.4, 0.9], color="0.6", ls=":", lw=1, zorder=0)
    ax.text(0.80, 0.83, "both alike", rotation=45, fontsize=8, color="0.45", ha="center", va="center")
    for label, (methods, offset, align) in GROUPS.items():
        for method in methods:
            each = found[method]
            x, y = each["values"]["unwanted_beta"], each["values"]["wanted_beta"]
            at = mean(x), mean(y)
            color = CONTROL if each["control"] else KEEPS if abs(at[0]) < SILENT and at[1] > KEPT else NEITHER
            ax.plot([min(x), max(x)], [at[1]] * 2, color=color, lw=1)
            ax.plot([at[0]] * 2, [min(y), max(y)], color=color, lw=1)
            ax.plot(*at, "o", ms=7, color=color, mfc="white" if each["control"] else color)
        first = found[methods[0]]
        ax.annotate(
            label,
            (mean(first["values"]["unwanted_beta"]), mean(first["values"]["wanted_beta"])),
            xytext=offset,
            textcoords="offset points",
            fontsize=8,
            ha=align,
            va="center",
            color="0.45" if first["control"] else "0.15",
        )
    ax.text(0.08, 0.85, "keeps the wanted,\nloses the unwanted", color=KEEPS, fontsize=9, va="center")
    ax.set(xlim=(-0.4, 0.92), ylim=(-0.4, 0.92))
    ax.set(xlabel="β of the unwanted implication (untold over told)", ylabel="β of the wanted implication")
    return fig


def returning(found: Mapping[str, Any]) -> list[str]:
    """The methods that were to silence the unwanted implication, by how much of it comes back."""
    labels = [label for label in found if label in VARIANTS and VARIANTS[label].returns is not None]
    return sorted(labels, key=lambda label: mean(found[label]["after_unwanted_beta"]))


def draw_going_on(numbers: dict[str, Any]) -> Figure:
    """β of the unwanted implication before and after going on, of the methods that were to silence it."""
    fig, ax = plt.subplots(figsize=(WIDTH, 3.0), layout="constrained")
    ax.axvline(0, color="0.8", lw=0.8, zorder=0)
    for row, both in enumerate(numbers.values()):
        before, after = (both[name] for name in BEFORE_AND_AFTER)
        ax.annotate(
            "",
            (mean(after), row),
            (mean(before), row),
            arrowprops={"arrowstyle": "-|>", "color": "0.5", "lw": 1.4, "shrinkA": 4, "shrinkB": 4},
        )
        first = row == 0
        ax.plot(
            before, [row] * len(before), "o", ms=6, color=KEEPS, label="with the method" if first else None
        )
        ax.plot(
            after,
            [row] * len(after),
            "D",
            ms=6,
            color=NEITHER,
            label="after as many steps without" if first else None,
        )
    ax.set_yticks(range(len(numbers)), list(numbers))
    ax.set(xlabel="β of the unwanted implication", ylim=(-0.6, len(numbers) - 0.4))
    ax.legend(frameon=False, loc="lower right")
    return fig


PARETO_DRAWING = Drawing(
    "Experts that read apart, a matrix of its own, known features and a strong penalty keep the wanted "
    "implication and lose the other",
    draw_pareto,
)
GOING_ON_DRAWING = Drawing(
    "Without the method some of the unwanted implication comes back, most after a matrix of its own, none "
    "yet after Muon",
    draw_going_on,
)
