"""The pictures of the study of mitigations."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt

from analyses.mitigation.criteria import SELECTIVE, VARIANTS

GOOD, OTHER = "#029e73", "#949494"


def draw_pareto(found: Mapping[str, Any]) -> plt.Figure:
    """β of unwanted (across) and wanted (up) untold answers: good methods are up and left."""
    fig, ax = plt.subplots(figsize=(6.6, 5.2), layout="constrained")
    for label, each in found.items():
        x, y = each["unwanted_beta"], each["wanted_beta"]
        color = GOOD if label in SELECTIVE else OTHER
        fill = "none" if each.control else color
        ax.plot(mean(x), mean(y), "o", ms=8, color=color, mfc=fill)
        ax.plot([min(x), max(x)], [mean(y)] * 2, color=color, lw=1)
        ax.plot([mean(x)] * 2, [min(y), max(y)], color=color, lw=1)
        ax.annotate(label, (mean(x), mean(y)), xytext=(6, 3), textcoords="offset points", fontsize=7)
    return fig


def draw_going_on(found: Mapping[str, Any]) -> plt.Figure:
    """β of unwanted answers before and after going on, of the methods that silenced them."""
    labels = [label for label in found if VARIANTS[label].returns is not None]
    fig, ax = plt.subplots(figsize=(6.6, 3.4), layout="constrained")
    for row, label in enumerate(labels):
        ax.plot(found[label]["unwanted_beta"], [row] * 5, "o", color=GOOD)
        ax.plot(found[label]["after_unwanted_beta"], [row] * 5, "o", color=OTHER)
    ax.set_yticks(range(len(labels)), labels)
    return fig
