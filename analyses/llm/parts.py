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

from analyses.house.claims import Claim
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
from ocr_interp.viz.style import figure_style, save_figure

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
    with figure_style():
        fig, ax = plt.subplots(figsize=(6.6, 3.2), layout="constrained")
        shown = [row for row in table if row["data"] == SETS[0]]
        shown.sort(key=lambda row: row["matched"]["mean"] if row["matched"]["mean"] is not None else math.inf)
        for y, row in enumerate(shown):
            values = [v for v in row["matched"]["by_seed"] if v is not None]
            ends = row["rank"]["by_seed"]
            ax.plot(ends, [y] * len(ends), "|", ms=9, color="#999999", label="at the end" if not y else None)
            label = f"where a told implication costs {MATCHED:g} nats"
            ax.plot(values, [y] * len(values), "o", ms=5, color="#0173b2", label=None if y else label)
            if not values:
                ax.text(0.05, y, "does not get there", va="center", fontsize=8, color="#777777")
        ax.set_yticks(range(len(shown)), [TITLES[row["arm"]] for row in shown])
        ax.axvline(CHANCE, color="#777777", lw=0.7, ls=":")
        ax.set_xlim(0, 2.6)
        ax.set_xlabel("untold colors of professions: mean rank (0: deduced, 2: guessed)")
        if shown:
            ax.legend(frameon=False, fontsize=8, loc="lower right")
        numbers = {"criteria": CRITERIA, "matched_nats": MATCHED, "names": NAMES, "rows": table}
        save_figure(fig, figures / PICTURE, numbers)
        plt.close(fig)
    return arms


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


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims)


if __name__ == "__main__":
    main()
