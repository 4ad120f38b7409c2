"""SmolLM2-135M from city to language: which heads and MLPs carry another city's language when patched.

Drawn from the JSON of `analyses.whole_models.carriers_run`; no model is needed. Until that run was made there
is no picture and no claim.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from analyses.house.claims import Claim
from analyses.house.drawing import Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.whole_models.carriers_criteria import LOST, RATIO, SHARED, TOP
from ocr_interp.viz.style import current_style

RESULT = Path(__file__).resolve().parents[1] / "results" / "circuits" / "carriers.json"
PICTURE = "circuit_carriers"
SOURCE = "this library; interchange of activations, Geiger et al. 2021"
TIMES = ("before", "after")
NAMED = 5
"""Nodes of each panel with their name."""


def measured(content: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the claims and of the picture."""
    found: dict[str, Any] = {"nodes": content["before"]["nodes"]}
    for when in TIMES:
        each = content[when]
        found[when] = {
            "city": each["shares"]["city"],
            "after the city": each["shares"]["after"],
            "top": each["top"],
            "together": each["lost_together"],
            "random": each["lost_random"],
        }
    found["shared"] = len(set(content["before"]["top"]) & set(content["after"]["top"]))
    return found


def draw(runs: Path, figures: Path) -> dict[str, Any]:
    """Draws what single nodes lose, and the carriers together beside random ones. `runs` is not used."""
    if not RESULT.is_file():
        return {}
    found = measured(json.loads(RESULT.read_text(encoding="utf-8")))
    DRAWING.write(figures / PICTURE, found)
    return found


def picture(found: dict[str, Any]) -> Picture:
    """Shares lost by layer, before and after, and by the carriers together."""
    fig, axes = plt.subplots(
        1, 3, figsize=(6.6, 2.9), width_ratios=(1.5, 1.5, 1), layout="constrained", squeeze=False
    )
    largest = max(max(found[when]["after the city"]) for when in TIMES)
    for ax, when in zip(axes[0], TIMES, strict=False):
        _draw_nodes(ax, found["nodes"], found[when]["after the city"], largest)
        ax.set_title(f"{when} fine-tuning", fontsize=8.5)
    axes[0, 0].set_ylabel("share lost when patched alone")
    _draw_together(axes[0, 2], found)
    return fig


def _draw_nodes(ax: Axes, names: list[str], shares: list[float], largest: float) -> None:
    style, values = current_style(), np.array(shares)
    is_head = np.array(["H" in name for name in names])
    layers = np.array([int(name.replace("MLP ", "L").removeprefix("L").partition("H")[0]) for name in names])
    for chosen, marker, label, k in ((is_head, "o", "heads", 0), (~is_head, "s", "MLPs", 1)):
        ax.plot(layers[chosen], values[chosen], marker, ms=3.5, color=style.colour(k), label=label, ls="none")
    named: list[float] = []
    for k in np.argsort(-values, kind="stable")[:NAMED]:
        if any(abs(values[k] - other) < 0.06 * largest for other in named):
            continue
        named.append(float(values[k]))
        left = layers[k] > 0.5 * layers.max()
        ax.annotate(
            names[k], (layers[k], values[k]), xytext=(-5 if left else 5, 0), textcoords="offset points",
            ha="right" if left else "left", va="center", fontsize=6.8,
        )  # fmt: skip
    ax.axhline(0, color="0.4", lw=0.6)
    ax.set_ylim(min(-0.05, 1.1 * values.min()), 1.15 * largest)
    ax.set_xlabel("layer")
    ax.legend(frameon=False, fontsize=7, loc="upper left")


def _draw_together(ax: Axes, found: dict[str, Any]) -> None:
    style = current_style()
    for x, when in enumerate(TIMES):
        one, first = found[when], x == 0
        ax.bar(x - 0.2, one["together"], 0.36, color=style.colour(0), label="these" if first else None)
        mean = float(np.mean(one["random"]))
        ax.bar(x + 0.2, mean, 0.36, color=style.neutral, label="random" if first else None)
        ax.scatter([x + 0.2] * len(one["random"]), one["random"], s=7, color="black", zorder=3)
    ax.axhline(0, color="black", lw=0.6)
    ax.set_xticks([0, 1], TIMES, fontsize=7.5)
    ax.set_title(f"{TOP} patched together", fontsize=8.5)
    ax.set_ylim(top=1.45)
    ax.legend(frameon=False, fontsize=7, loc="upper right")


def claims(found: dict[str, Any]) -> list[Claim]:
    """The criteria, which were written down before the run."""
    if not found:
        return []
    together = {when: found[when]["together"] for when in TIMES}
    random = {when: max(found[when]["random"]) for when in TIMES}
    shown = {when: round(value, 3) for when, value in together.items()}
    return [
        _claim(
            "together",
            f"the {TOP} heads and MLPs that lose most when patched alone carry most of it together, on other "
            "names",
            f"patched together they lose at least {LOST:g} of the difference, before and after fine-tuning",
            shown,
            all(value >= LOST for value in together.values()),
        ),
        _claim(
            "random",
            f"the {TOP} carriers lose far more than as many heads and MLPs of the same layers",
            f"at least {RATIO:g} times as much as any random set, before and after fine-tuning",
            {when: [shown[when], round(random[when], 3)] for when in TIMES},
            all(together[when] > 0 and together[when] >= RATIO * random[when] for when in TIMES),
        ),
        _claim(
            "shared",
            "fine-tuning keeps the carriers",
            f"at least {SHARED} of {TOP} are the same",
            {"shared": found["shared"]},
            found["shared"] >= SHARED,
        ),
    ]


def city_claim(
    study: str, name: str, statement: str, expected: str, shown: dict[str, Any], holds: bool, picture: str
) -> Claim:
    """A claim of a study that patches nodes between city and language."""
    statement = f"SmolLM2-135M from city to language: {statement}"
    return Claim(f"{study}_{name}", statement, SOURCE, expected, shown, 0.0, holds, picture)


def _claim(name: str, statement: str, expected: str, shown: dict[str, Any], holds: bool) -> Claim:
    return city_claim("carriers", name, statement, expected, shown, holds, PICTURE)


DRAWING = Drawing("Ten heads and MLPs carry the city to its language, before tuning and after", picture)
FIGURE = Figure(
    pictures=(PICTURE,) if RESULT.is_file() else (),
    draw=draw,
    claims=claims,
    drawings={PICTURE: DRAWING} if RESULT.is_file() else {},
)


if __name__ == "__main__":
    main()
