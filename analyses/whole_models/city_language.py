"""SmolLM2-135M from city to language: the heads and MLPs that carry it, before and after fine-tuning.

Drawn from the JSON of `analyses.whole_models.city_language_run`; no model is needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from scipy.stats import spearmanr

from analyses.house.claims import Claim
from analyses.house.drawing import Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.whole_models.city_language_criteria import CORRELATION, RATIO, SEED, SHARED, TOP
from ocr_interp.viz.style import current_style

RESULT = Path(__file__).resolve().parents[1] / "results" / "circuits" / "city_language.json"
PICTURE = "circuit_city_language"
SOURCE = "this library; direct logit attribution, Elhage et al. 2021"
CHANCE_DRAWS = 1000
SHOWN = 9
"""Parts that have a line of their own."""


def measured(content: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the claims."""
    before, after = content["before"], content["after"]
    names = [name for name, kind in before["kinds"].items() if kind in ("head", "mlp")]
    old, new = (np.array([each["parts"][name] for name in names]) for each in (before, after))
    tops = [[names[k] for k in np.argsort(-np.abs(values), kind="stable")[:TOP]] for values in (old, new)]
    generator = np.random.default_rng(SEED)
    chance = [
        len(set(tops[0]) & set(generator.choice(names, TOP, replace=False))) for _ in range(CHANCE_DRAWS)
    ]
    falls = {
        when: {
            "top": each["all_heads"] - each["without_top"],
            "random": [each["all_heads"] - value for value in each["without_random"]],
        }
        for when, each in (("before", before), ("after", after))
    }
    return {
        "parts": names,
        "before": old.tolist(),
        "after": new.tolist(),
        "total": [before["total"], after["total"]],
        "top before": tops[0],
        "top after": tops[1],
        "shared": len(set(tops[0]) & set(tops[1])),
        "shared by chance, 99th percentile": float(np.percentile(chance, 99)),
        "rank correlation": float(cast(Any, spearmanr(old, new)).statistic),
        "falls": falls,
        "faithfulness of 40 edges": [before["faithfulness"], after["faithfulness"]],
        "kinds": [before["kinds"][name] for name in names],
        "change": _most_changed(content["change"]),
    }


def _most_changed(rows: list[list[Any]]) -> dict[str, list[Any]]:
    """Of every part the circuit that changed most for these tokens: its kind, and its change between the
    tokens over that of random changes of the same weights."""
    found: dict[str, list[Any]] = {}
    for unit, kind, _, tokens, random in rows:
        ratio = tokens / random if random else 0.0
        if unit not in found or ratio > found[unit][1]:
            found[unit] = [kind, ratio]
    return found


def draw(runs: Path, figures: Path) -> dict[str, Any]:
    """Draws the contributions before and after, and what falls without the top heads; nothing before the run
    has left its JSON. `runs` is not used."""
    if not RESULT.is_file():
        return {}
    found = measured(json.loads(RESULT.read_text(encoding="utf-8")))
    DRAWING.write(figures / PICTURE, found)
    return found


def picture(found: dict[str, Any]) -> Picture:
    """Contributions of the largest parts, how much they changed for these tokens, and what cuts cost."""
    fig, axes = plt.subplots(
        1, 3, figsize=(6.6, 3.0), width_ratios=(1.9, 1, 1), layout="constrained", squeeze=False
    )
    old, new = np.array(found["before"]), np.array(found["after"])
    order = np.argsort(-np.maximum(np.abs(old), np.abs(new)), kind="stable")
    chosen, rest = order[:SHOWN], order[SHOWN:]
    names = [found["parts"][k] for k in chosen]
    _draw_parts(axes[0, 0], names, old, new, chosen, rest)
    _draw_changes(axes[0, 1], names, found["change"])
    _draw_falls(axes[0, 2], found["falls"])
    return fig


def _draw_parts(
    ax: Axes, names: list[str], old: np.ndarray, new: np.ndarray, chosen: np.ndarray, rest: np.ndarray
) -> None:
    style = current_style()
    before, after = ([*values[chosen], values[rest].sum()] for values in (old, new))
    places = np.arange(len(before))
    ax.hlines(places, before, after, color="0.75", lw=1.6, zorder=1)
    ax.plot(before, places, "o", ms=4.5, color=style.neutral, label="before", zorder=2)
    ax.plot(after, places, "o", ms=5.5, color=style.colour(0), label="after", zorder=3)
    ax.axvline(0, color="0.4", lw=0.6, zorder=0)
    ax.set_yticks(places, [*names, f"{len(rest)} others"], fontsize=7.5)
    ax.invert_yaxis()
    ax.set_xlabel("adds to the language (logits)")
    ax.legend(frameon=False, fontsize=7.5, loc="lower right", bbox_to_anchor=(1.0, 0.12))


def _draw_changes(ax: Axes, names: list[str], change: dict[str, list[Any]]) -> None:
    style, places = current_style(), np.arange(len(names))
    ratios = [change[name][1] for name in names]
    ax.barh(places, ratios, height=0.6, color=style.colour(0))
    for place, name in zip(places, names, strict=True):
        kind, ratio = change[name]
        ax.text(ratio + 0.15, float(place), kind, va="center", fontsize=7)
    ax.axvline(1, color="0.2", lw=0.9, ls="--")
    ax.set_yticks([])
    ax.set_ylim(len(names) + 0.5, -0.5)
    ax.set_xlim(0, 1.25 * max(ratios))
    ax.set_xlabel("changed for these tokens\n(random changes: 1)")


def _draw_falls(ax: Axes, falls: dict[str, Any]) -> None:
    style = current_style()
    for x, when in enumerate(("before", "after")):
        one = falls[when]
        ax.bar(x - 0.2, one["top"], width=0.36, color=style.colour(0), label=None if x else "these")
        mean = float(np.mean(one["random"]))
        ax.bar(x + 0.2, mean, width=0.36, color=style.neutral, label=None if x else "random")
        ax.scatter([x + 0.2] * len(one["random"]), one["random"], s=8, color="black", zorder=3)
    ax.axhline(0, color="black", lw=0.6)
    ax.set_xticks([0, 1], ["before", "after"], fontsize=7.5)
    ax.set_ylabel(f"lost without {TOP} heads (logits)")
    ax.legend(frameon=False, fontsize=7.5, loc="upper left", handlelength=1.0, borderpad=0.1)


TITLE = (
    "From city to language: heads of layers 23 and 29 write most of it, and fine-tuning makes two of them "
    "louder and the last MLP quieter"
)
DRAWING = Drawing(TITLE, picture)


def claims(found: dict[str, Any]) -> list[Claim]:
    """The criteria, which were written down before the run."""
    if not found:
        return []
    falls = found["falls"]
    ratios = {when: falls[when]["top"] - RATIO * max(falls[when]["random"]) for when in ("before", "after")}
    shown = {when: [falls[when]["top"], max(falls[when]["random"])] for when in falls}
    return [
        _claim(
            "parts",
            f"from city to language: the {TOP} largest of 300 heads and MLPs stay the same in fine-tuning",
            f"at least {SHARED} of {TOP} are shared",
            {"shared": found["shared"], "by chance (99%)": found["shared by chance, 99th percentile"]},
            found["shared"] >= SHARED,
        ),
        _claim(
            "order",
            "from city to language: contributions of all parts keep their order in fine-tuning",
            f"Spearman correlation at least {CORRELATION:g}",
            {"rank correlation": round(found["rank correlation"], 3)},
            found["rank correlation"] >= CORRELATION,
        ),
        _claim(
            "heads",
            f"from city to language: without the {TOP} heads of largest contribution more is lost than "
            "without random ones of the same layers",
            f"the logit difference falls at least {RATIO:g} times as much as for any of 5 random sets",
            {when: [round(value, 3) for value in values] for when, values in shown.items()},
            all(value >= 0 and falls[when]["top"] > 0 for when, value in ratios.items()),
        ),
    ]


def _claim(name: str, statement: str, expected: str, shown: dict[str, Any], holds: bool) -> Claim:
    return Claim(
        f"city_language_{name}", f"SmolLM2-135M {statement}", SOURCE, expected, shown, 0.0, holds, PICTURE
    )


FIGURE = Figure(pictures=(PICTURE,), draw=draw, claims=claims, drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
