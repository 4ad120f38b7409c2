"""SmolLM2-135M from city to language: how much a few heads and MLPs keep when all others are patched.

Drawn from the JSON of `analyses.whole_models.city_columns_run`; no model is needed. Until that run was made
there is no picture and no claim.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from analyses.house.claims import Claim
from analyses.house.drawing import Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.whole_models.carriers import TIMES, city_claim
from analyses.whole_models.city_columns_criteria import FEW, INSUFFICIENT, MANY, RANDOM, SUFFICIENT
from ocr_interp.viz.style import current_style

RESULT = Path(__file__).resolve().parents[1] / "results" / "circuits" / "city_columns.json"
PICTURE = "circuit_city_columns"
PLACES = {"after": "after the city", "city": "at the city", "both": "at both places"}


def draw(runs: Path, figures: Path) -> dict[str, Any]:
    """Draws what is kept by the number of nodes at each place. `runs` is not used."""
    if not RESULT.is_file():
        return {}
    content = json.loads(RESULT.read_text(encoding="utf-8"))
    found = {key: content[key] for key in ("kept", *TIMES)}
    DRAWING.write(figures / PICTURE, found)
    return found


def picture(found: dict[str, Any]) -> Picture:
    """One panel for each state of the model: share kept by the number of nodes, by place."""
    fig, axes = plt.subplots(1, 2, figsize=(6.6, 3.0), sharey=True, layout="constrained")
    for ax, when in zip(axes, TIMES, strict=True):
        _draw_state(ax, found["kept"], found[when])
        ax.set_title(f"{when} fine-tuning", fontsize=9)
    axes[0].set_ylabel("share of the answer kept,\nall others patched", fontsize=9)
    axes[1].legend(frameon=False, fontsize=7.5, loc="lower right", bbox_to_anchor=(1.0, 0.06))
    return fig


def _draw_state(ax: Axes, counts: list[int], one: dict[str, Any]) -> None:
    style = current_style()
    for k, (place, label) in enumerate(PLACES.items()):
        ax.plot(counts, one[place], "o-", ms=3.5, lw=1.4, color=style.colour(k), label=label)
    random = one["random after"]
    ax.plot([FEW] * len(random), random, ".", ms=4, color="black", label=f"random {FEW}, after the city")
    ax.axhline(1, color="0.4", lw=0.6, ls=":")
    ax.axhline(0, color="0.4", lw=0.6)
    ax.set_xscale("log")
    ax.set_xticks(
        [1, 2, 5, 10, 20, 40, 100, 300], ["1", "2", "5", "10", "20", "40", "100", "300"], fontsize=7.5
    )
    ax.minorticks_off()
    ax.set_xlabel("heads and MLPs kept, of 300")


def claims(found: dict[str, Any]) -> list[Claim]:
    """The criteria, which were written down before the run."""
    if not found:
        return []
    few, many = found["kept"].index(FEW), found["kept"].index(MANY)
    suffice = {when: round(found[when]["after"][few], 3) for when in TIMES}
    diffuse = {when: round(found[when]["city"][many], 3) for when in TIMES}
    random = {when: round(max(found[when]["random after"]), 3) for when in TIMES}
    return [
        _claim(
            "few",
            f"{FEW} heads and MLPs after the city suffice, with the city's own column as it is",
            f"with all others after the city patched at least {SUFFICIENT:g} is kept, before and after "
            "fine-tuning, on other names",
            suffice,
            all(value >= SUFFICIENT for value in suffice.values()),
        ),
        _claim(
            "random",
            f"random sets of {FEW} heads and MLPs after the city do not suffice",
            f"each keeps at most {RANDOM:g}",
            random,
            all(value <= RANDOM for value in random.values()),
        ),
        _claim(
            "city",
            f"at the city {MANY} of 300 heads and MLPs do not suffice: what the city is, is computed by many",
            f"with all others at the city patched at most {INSUFFICIENT:g} is kept",
            diffuse,
            all(value <= INSUFFICIENT for value in diffuse.values()),
        ),
    ]


def _claim(name: str, statement: str, expected: str, shown: dict[str, Any], holds: bool) -> Claim:
    return city_claim("columns", name, statement, expected, shown, holds, PICTURE)


def sentence(numbers: dict[str, Any]) -> str:
    """Whether FEW nodes at each place keep most of the answer together, before and after."""
    few = numbers["kept"].index(FEW)
    if min(numbers[when]["both"][few] for when in TIMES) < 0.5:
        return "How much of a city's language is kept by few heads and MLPs, at the city and after it"
    return f"{FEW} heads and MLPs at the city and {FEW} after it keep most of its language"


DRAWING = Drawing(sentence, picture)
FIGURE = Figure(
    pictures=(PICTURE,) if RESULT.is_file() else (),
    draw=draw,
    claims=claims,
    drawings={PICTURE: DRAWING} if RESULT.is_file() else {},
)


if __name__ == "__main__":
    main()
