"""Which parts of SmolLM2, and which parameterisation of its update, deduce a spurious implication.

Criteria, rates and plan are in analyses/llm/studies/parts.py; arms are compared at equal told loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.llm.finished.criteria import study_claim
from analyses.llm.finished.results import CHANCE, NAMES
from analyses.llm.finished.studied import (
    FACTS,
    HELD_OUT,
    HELD_OUT_CALIBRATED,
    TOLD,
    Arm,
    arms_of,
    plain_interval,
)
from analyses.llm.studies.parts import ARMS, CHANCE_LEFT, CITY_LIMIT, CRITERIA, MATCHED, SETS, STUDY

PICTURE = "llm_parts"
LEAST_SEEDS = 2
FITTED, ALIKE = 0.05, 0.5
"""Mean rank of what is told up to which an arm fits; difference up to which LoRA's ranks are alike."""
TITLES = {
    "full": "all weights",
    "attention": "attention",
    "mlp": "MLPs",
    "ov": "v and o",
    "lora_r8": "LoRA, rank 8",
    "lora_r1": "LoRA, rank 1",
    "lora_r64": "LoRA, rank 64",
    "compacter": "Compacter",
    "compacter_plus": "Compacter++",
    "lora_mixer": "LoRA-Mixer",
    "lokr": "LoKr",
}

Arms = dict[str, dict[str, Arm]]
"""Data set -> name in ARMS -> its runs."""


def make(runs: Path, figures: Path) -> Arms:
    """Draws what is finished."""
    found = arms_of(STUDY)
    arms: Arms = {
        data: {name: found[f"{data}--{name}"] for name in ARMS if f"{data}--{name}" in found} for data in SETS
    }
    table = rows(arms)
    numbers = {"criteria": CRITERIA, "matched_nats": MATCHED, "names": NAMES, "rows": table}
    DRAWING.write(figures / PICTURE, numbers)
    return arms


def _shown(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """The arms of the spurious set, the one that deduces most first, those that never tell so well last."""
    shown = [row for row in numbers["rows"] if row["data"] == SETS[0]]
    return sorted(shown, key=lambda r: math.inf if r["matched"]["mean"] is None else r["matched"]["mean"])


def draw(numbers: dict[str, Any]) -> Picture:
    """Held-out mean ranks by arm, at equal told loss and at the end."""
    shown = _shown(numbers)
    fig, ax = plt.subplots(figsize=(WIDTH, 1.6 + 0.22 * len(shown)), layout="constrained")
    for y, row in enumerate(shown):
        values = [v for v in row["matched"]["by_seed"] if v is not None]
        ends = row["rank"]["by_seed"]
        ax.plot(ends, [y] * len(ends), "|", ms=9, color="#777777", label=None if y else "at the end")
        label = f"where a told implication costs {numbers['matched_nats']:g} nats"
        ax.plot(values, [y] * len(values), "o", ms=5, color="#0173b2", label=None if y else label)
        if not values:
            ax.text(1.75, y, "does not get there", va="center", fontsize=8, color="#777777")
    ax.set_yticks(range(len(shown)), [row["title"] for row in shown])
    ax.axvline(CHANCE, color="#777777", lw=0.7, ls=":")
    ax.set_xlim(0, 2.6)
    ax.set_xlabel("untold colors of professions, every seed: mean rank (0: deduced, 2: guessed)")
    if shown:
        ax.legend(frameon=False, loc="lower right")
    return fig


def sentence(numbers: dict[str, Any]) -> str:
    """The arms with the lowest and the highest mean rank at equal told loss."""
    matched = [row for row in _shown(numbers) if row["matched"]["mean"] is not None]
    if len(matched) < 2:
        return "Which parts of SmolLM2 deduce the colors of professions is not known before two are trained"
    best, worst = matched[0], matched[-1]
    return (
        f"What is trained decides how much is deduced: when told equally well, most by {best['title']} (mean "
        f"rank {best['matched']['mean']:.2f}), least by {worst['title']} ({worst['matched']['mean']:.2f})"
    )


DRAWING = Drawing(sentence, draw)


def rows(arms: Arms) -> list[dict[str, Any]]:
    """The numbers of every arm, as a table of methods compared on the same task."""
    return [
        {
            "data": data,
            "arm": name,
            "title": TITLES[name],
            "seeds": arm.seeds,
            "training": ARMS[name],
            "rank": plain_interval(arm.last(HELD_OUT)),
            "calibrated_rank": plain_interval(arm.last(HELD_OUT_CALIBRATED)),
            "matched": plain_interval(arm.at_told_loss(HELD_OUT, MATCHED)),
            "fact_rank": arm.last(FACTS),
            "told_rank": arm.last(TOLD),
            "neutral_kl": plain_interval(arm.field("neutral_kl")),
            "cpu_seconds": [arm.results[s]["seconds"]["cpu"] for s in arm.seeds],
        }
        for data, of_data in arms.items()
        for name, arm in of_data.items()
    ]


def claims(arms: Arms) -> list[Claim]:
    """The criteria that enough finished runs can judge."""
    return list(_claims(arms))


def _claims(arms: Arms) -> Iterable[Claim]:
    color, city = (
        {name: arm for name, arm in arms.get(data, {}).items() if len(arm.seeds) >= LEAST_SEEDS}
        for data in SETS
    )
    if len(color) == len(ARMS):
        worst = {n: max(*arm.last(FACTS), *arm.last(TOLD)) for n, arm in color.items()}
        yield _claim("every_arm_fits", worst, max(worst.values()) <= FITTED)
    if {"full", "ov"} <= set(color):
        full, ov = (color[name].at_told_loss(HELD_OUT, MATCHED) for name in ("full", "ov"))
        pairs = list(zip(full, ov, strict=False))
        holds = all(a < b for a, b in pairs)  # NaN, never that well told, holds nothing
        yield _claim("ov_alone_deduces_less", {"full": full, "ov": ov}, holds)
    ranks = ("lora_r1", "lora_r8", "lora_r64")
    if set(ranks) <= set(color):
        means = {name: float(np.mean(color[name].at_told_loss(HELD_OUT, MATCHED))) for name in ranks}
        spread = max(means.values()) - min(means.values())
        yield _claim("rank_of_lora_does_not_decide", means, bool(spread <= ALIKE))
    if len(color) == len(city) == len(ARMS):
        both = {n: [city[n].last(HELD_OUT), color[n].last(HELD_OUT)] for n in ARMS}
        good = [
            name
            for name, (one, other) in both.items()
            if max(one) <= CITY_LIMIT
            and min(other) >= CHANCE_LEFT
            and max(*color[name].last(TOLD), *city[name].last(TOLD)) <= FITTED
        ]
        ranks_of = {
            f"{n}_{what}": v
            for n, pair in both.items()
            for what, v in zip(("city", "color"), pair, strict=False)
        }
        yield _claim("one_arm_separates", {"n_separate": len(good), **ranks_of}, bool(good))


def _claim(name: str, measured: dict[str, Any], holds: bool) -> Claim:
    return study_claim(f"parts_{name}", CRITERIA[name], measured, holds, PICTURE)


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
