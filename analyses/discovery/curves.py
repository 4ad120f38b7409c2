"""Faithfulness by number of edges: our scores beside plain implementations of the published methods.

The five induction models; each circuit is found on some prompts and judged on others by real ablation, ours
by the library, the published ones by their own forward pass. Criteria: `curves_criteria`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from analyses.discovery.criteria import SEEDS
from analyses.discovery.curve_measuring import Curves, measure
from analyses.discovery.curves_criteria import SAME_CURVE, SAME_SCORES, SIZES, THRESHOLDS
from analyses.discovery.kept import kept
from analyses.house.claims import Claim
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from ocr_interp.viz.style import figure_style, save_figure

PICTURE = "discovery_curves"
OURS = {"exact": "exact effects, ours", "eap": "EAP, ours", "eap_ig": "EAP-IG, ours"}
PUBLISHED = {"eap_ig": "EAP-IG as published", "factors": "gradients by factors (auto-circuit)"}


def measured(seed: int, runs: Path) -> Curves:
    """One seed, read from `runs` if it was measured there by the same code."""
    sources = ("curve_measuring", "plain_methods", "curves_criteria", "criteria", "measuring")
    return Curves(**kept(runs / "discovery" / f"curves_{seed}.json", sources, lambda: measure(seed, runs)))


def make(runs: Path, figures: Path) -> list[Curves]:
    found = [measured(seed, runs) for seed in SEEDS]
    draw(found, figures)
    return found


def draw(found: list[Curves], figures: Path) -> None:
    """Means over seeds by size; ACDC's circuits as points, since it has thresholds and no sizes."""
    with figure_style():
        fig, ax = plt.subplots(figsize=(6.6, 3.6), layout="constrained")
        for (name, label), colour in zip(OURS.items(), ("0.55", "#de8f05", "#0173b2"), strict=True):
            ax.plot(
                SIZES,
                _mean(found, "ours", name),
                color=colour,
                lw=3.2 if name == "eap_ig" else 1.4,
                label=label,
            )
        for (name, label), colour, line in zip(
            PUBLISHED.items(), ("black", "#029e73"), ("--", "-"), strict=True
        ):
            ax.plot(SIZES, _mean(found, "published", name), color=colour, ls=line, lw=1.4, label=label)
        points = np.array([point for one in found for point in one.acdc])
        ax.plot(points[:, 0], points[:, 1], "x", color="#cc78bc", ms=4, label="ACDC, by threshold and seed")
        ax.set(xscale="log", xlabel="edges", ylabel="faithfulness on other prompts", ylim=(-0.1, 1.15))
        ax.set_xticks([5, 10, 25, 50, 100, 257], ["5", "10", "25", "50", "100", "all 257"])
        ax.minorticks_off()
        ax.set_title(title(found), loc="left", fontsize=10)
        ax.legend(frameon=False, loc="lower right", fontsize=8)
        save_figure(fig, figures / PICTURE, numbers(found))
        plt.close(fig)


def title(found: list[Curves]) -> str:
    """What the picture says."""
    same = all(gap <= SAME_CURVE for gap in gaps(found))
    return f"Our curve of EAP-IG is {'' if same else 'not '}that of the published method"


def numbers(found: list[Curves]) -> dict[str, Any]:
    """All that is drawn, and by seed what the claims are about."""
    return {
        "title": title(found),
        "sizes": list(SIZES),
        "thresholds": list(THRESHOLDS),
        "mean difference of EAP-IG's curves": gaps(found),
        "seeds": [vars(one) for one in found],
    }


def gaps(found: list[Curves]) -> list[float]:
    """The mean over sizes of the difference of our and the published curve of EAP-IG, each seed."""
    return [float(np.abs(np.subtract(one.ours["eap_ig"], one.published["eap_ig"])).mean()) for one in found]


def _mean(found: list[Curves], whose: str, name: str) -> np.ndarray:
    return np.mean([getattr(one, whose)[name] for one in found], axis=0)


def claims(found: list[Curves]) -> list[Claim]:
    """Equal scores at equal points, and equal curves, every seed."""
    source = "written before (analyses/discovery/curves_criteria.py)"
    largest = {name: [one.differences[name] for one in found] for name in found[0].differences}
    of_size = np.abs([np.subtract(one.ours["eap_ig"], one.published["eap_ig"]) for one in found])
    return [
        Claim(
            id="discovery_same_scores",
            statement="Exact effects, EAP and EAP-IG are those of a plain implementation",
            source=source,
            expected=f"largest difference <= {SAME_SCORES:g} of the largest score, every seed",
            measured=largest,
            tolerance=SAME_SCORES,
            holds=all(value <= SAME_SCORES for values in largest.values() for value in values),
        ),
        Claim(
            id="discovery_same_curve",
            statement="Faithfulness of EAP-IG's circuits by size is that of the published method",
            source=source,
            expected=f"mean difference over {len(SIZES)} sizes <= {SAME_CURVE:g}, every seed",
            measured={
                "mean_difference": gaps(found),
                "largest_difference_by_size": of_size.max(0).tolist(),
                "edges_left_of_25": [one.live[SIZES.index(25)] for one in found],
            },
            tolerance=SAME_CURVE,
            holds=max(gaps(found)) <= SAME_CURVE,
            figure=PICTURE,
        ),
    ]


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, cost="slow")


if __name__ == "__main__":
    main()
