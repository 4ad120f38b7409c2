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
from scipy.stats import spearmanr

from analyses.house.claims import Claim
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.whole_models.city_language_criteria import CORRELATION, RATIO, SEED, SHARED, TOP
from ocr_interp.viz.style import current_style, figure_style, save_figure

RESULT = Path(__file__).resolve().parents[1] / "results" / "circuits" / "city_language.json"
PICTURE = "circuit_city_language"
SOURCE = "this library; direct logit attribution, Elhage et al. 2021"
CHANCE_DRAWS = 1000


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
    }


def draw(runs: Path, figures: Path) -> dict[str, Any]:
    """Draws the contributions before and after, and what falls without the top heads; nothing before the run
    has left its JSON. `runs` is not used."""
    if not RESULT.is_file():
        return {}
    found = measured(json.loads(RESULT.read_text(encoding="utf-8")))
    with figure_style():
        fig, axes = plt.subplots(1, 2, figsize=(6.6, 3.3), width_ratios=(1.7, 1))
        _draw_parts(axes[0], found)
        _draw_falls(axes[1], found)
        fig.tight_layout(w_pad=1.5)
        save_figure(fig, figures / PICTURE, found)
        plt.close(fig)
    return found


def _draw_parts(ax: Axes, found: dict[str, Any]) -> None:
    style = current_style()
    old, new = np.array(found["before"]), np.array(found["after"])
    kinds = np.array(found["kinds"])
    for kind, marker, label, colour in (("head", "o", "heads", 0), ("mlp", "s", "MLPs", 1)):
        chosen = kinds == kind
        ax.scatter(
            old[chosen], new[chosen], marker=marker, s=14, color=style.colour(colour), label=label, lw=0
        )
    ends = [min(old.min(), new.min()), max(old.max(), new.max())]
    ax.plot(ends, ends, color="0.7", lw=0.8, zorder=0)
    both = np.abs(old) + np.abs(new)
    for k in np.argsort(-both, kind="stable")[:6]:
        right = old[k] > np.mean(ends)
        ax.annotate(
            found["parts"][k],
            (old[k], new[k]),
            xytext=(-5 if right else 5, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            va="center",
            fontsize=7,
        )
    ax.set_xlabel("contribution before (logits)")
    ax.set_ylabel("contribution after (logits)")
    ax.set_title(f"{found['shared']} of the {TOP} largest parts are the same", fontsize=9)
    ax.legend(frameon=False, fontsize=8, loc="upper left")


def _draw_falls(ax: Axes, found: dict[str, Any]) -> None:
    style = current_style()
    for x, when in enumerate(("before", "after")):
        falls = found["falls"][when]
        ax.bar(
            x - 0.2, falls["top"], width=0.36, color=style.colour(0), label="top heads" if x == 0 else None
        )
        ax.bar(
            x + 0.2,
            np.mean(falls["random"]),
            width=0.36,
            color=style.neutral,
            label="random heads" if x == 0 else None,
        )
        ax.scatter([x + 0.2] * len(falls["random"]), falls["random"], s=8, color="black", zorder=3)
    ax.axhline(0, color="black", lw=0.6)
    ax.set_xticks([0, 1], ["before", "after"])
    ax.set_ylabel("logit difference lost")
    ax.set_title(f"without {TOP} heads", fontsize=9)
    ax.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncol=2)


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


FIGURE = Figure(pictures=(PICTURE,), draw=draw, claims=claims)


if __name__ == "__main__":
    main()
