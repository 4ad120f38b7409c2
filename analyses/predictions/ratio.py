"""The told share against the number of told names: untold colors of SmolLM2 beside β of the one-layer model.

Criteria and plan are in analyses/llm/studies/ratio.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
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
from analyses.llm.finished.results import CHANCE
from analyses.llm.finished.studied import FACTS, HELD_OUT, TOLD, Arm, arms_of, plain_interval
from analyses.llm.studies import parts
from analyses.llm.studies.ratio import (
    ALIKE,
    ARMS,
    BORROWED,
    BORROWED_ARM,
    CRITERIA,
    MATCHED,
    N_PAIRS,
    SAME_COUNT,
    SAME_SHARE,
    STUDY,
)
from ocr_interp import FactRecallTask
from ocr_interp.theory import saddle_solution

PICTURE = "llm_ratio"
SOURCE = "ours, from the saddle of the one-layer model (docs/theory.md)"
LEAST_SEEDS = 2
NAMES = {**ARMS, BORROWED: (4, 20)}
"""Arm -> told names and all names of a pair."""
PANELS = {"a fifth of the names is told": SAME_SHARE, "four names are told": SAME_COUNT}


def make(runs: Path, figures: Path) -> dict[str, Arm]:
    """Draws what is finished."""
    arms, of_parts = arms_of(STUDY), arms_of(parts.STUDY)
    if BORROWED_ARM in of_parts:
        arms[BORROWED] = replace(of_parts[BORROWED_ARM], name=BORROWED)
    numbers = {"criteria": CRITERIA, "matched_nats": MATCHED, "rows": rows(arms)}
    DRAWING.write(figures / PICTURE, numbers)
    return arms


def predicted_beta(told: int, names: int) -> float:
    """β at the saddle of the one-layer model with as many pairs, told and untold names."""
    task = FactRecallTask(N_PAIRS, told, names - told, n_noise=0, seq_len=3)
    return float(saddle_solution(task).beta)


def rows(arms: dict[str, Arm]) -> list[dict[str, Any]]:
    """What each arm ends at, and what the one-layer model says of it."""
    return [
        {
            "arm": arm.name,
            "told": NAMES[arm.name][0],
            "names": NAMES[arm.name][1],
            "predicted_beta": round(predicted_beta(*NAMES[arm.name]), 5),
            "seeds": arm.seeds,
            "matched": plain_interval(arm.at_told_loss(HELD_OUT, MATCHED)),
            "rank": plain_interval(arm.last(HELD_OUT)),
            "fact_rank": arm.last(FACTS),
            "told_rank": arm.last(TOLD),
            "neutral_kl": plain_interval(arm.field("neutral_kl")),
        }
        for arm in arms.values()
    ]


def draw(numbers: dict[str, Any]) -> Picture:
    """Held-out mean rank of every run, and 2 (1 - β), where the one-layer model's share of chance is left."""
    of = {row["arm"]: row for row in numbers["rows"]}
    fig, axes = plt.subplots(1, len(PANELS), figsize=(WIDTH, 3.2), sharey=True, layout="constrained")
    for ax, (words, names) in zip(axes, PANELS.items(), strict=True):
        places = [k for k, name in enumerate(names) if name in of]
        own = [of[names[k]] for k in places]
        for k, row in zip(places, own, strict=True):
            values = [value for value in row["matched"]["by_seed"] if value is not None]
            ax.plot([k] * len(values), values, "o", color="#0173b2", ms=5, alpha=0.7)
        means = [np.nan if row["matched"]["mean"] is None else row["matched"]["mean"] for row in own]
        ax.plot(places, means, "-", color="#0173b2", label="SmolLM2, every seed and the mean")
        said = [CHANCE * (1 - row["predicted_beta"]) for row in own]
        ax.plot(places, said, "D--", color="0.4", ms=4, mfc="white", label="one-layer model: 2 (1 − β)")
        ax.axhline(CHANCE, color="#777777", lw=0.7, ls=":")
        ax.set_xticks(range(len(names)), [name.replace("of", " of ") for name in names])
        ax.set(xlim=(-0.4, len(names) - 0.6), ylim=(-0.05, 2.4), xlabel="told names of a pair")
        ax.set_title(words, loc="left")
    axes[0].set_ylabel("untold colors, mean rank\n(0: deduced, 2: guessed)")
    if numbers["rows"]:
        handles, labels = axes[0].get_legend_handles_labels()
        fig.legend(handles, labels, frameon=False, ncols=2, loc="outside lower center")
    return fig


def sentence(numbers: dict[str, Any]) -> str:
    """Which of the two decides more, by the largest difference between arms."""
    means = {row["arm"]: row["matched"]["mean"] for row in numbers["rows"]}
    if any(means.get(name) is None for name in NAMES):
        return "Whether the told share or the number of told names decides is shown once all are trained"
    share, count = (_spread({name: means[name] for name in names}) for names in PANELS.values())
    said = f"mean ranks differ by {share:.2f} at equal share and by {count:.2f} at equal number"
    if max(share, count) <= ALIKE:
        return f"Neither the told share nor the number of told names decides how much is deduced: {said}"
    if share < count:
        return f"How much is deduced follows the told share more than the number of told names: {said}"
    return f"How much is deduced follows the number of told names more than their share: {said}"


def _spread(means: dict[str, float]) -> float:
    return max(means.values()) - min(means.values())


DRAWING = Drawing(sentence, draw)


def claims(arms: dict[str, Arm]) -> list[Claim]:
    """The criteria that enough finished runs can judge; an arm that never tells so well holds nothing."""
    return list(_claims({name: arm for name, arm in arms.items() if len(arm.seeds) >= LEAST_SEEDS}))


def _claims(arms: dict[str, Arm]) -> Iterable[Claim]:
    if set(arms) < set(NAMES):
        return
    seeds = sorted(set.intersection(*(set(arm.seeds) for arm in arms.values())))
    ranks = {
        name: [arm.at_told_loss(HELD_OUT, MATCHED)[arm.seeds.index(seed)] for seed in seeds]
        for name, arm in arms.items()
    }
    means = {name: float(np.mean(values)) for name, values in ranks.items()}
    share, count = ({name: means[name] for name in names} for names in PANELS.values())
    yield _claim("same_share_deduces_alike", share, _spread(share) <= ALIKE)
    by_seed = [[ranks[name][k] for name in SAME_COUNT] for k in range(len(seeds))]
    rises = all(a < b < c for a, b, c in by_seed)
    yield _claim("same_count_deduces_less_of_more", {name: ranks[name] for name in SAME_COUNT}, rises)
    spreads = {"same_share": _spread(share), "same_count": _spread(count)}
    yield _claim("share_rather_than_count", spreads, spreads["same_share"] < spreads["same_count"])


def _claim(name: str, measured: dict[str, Any], holds: bool) -> Claim:
    return study_claim(f"ratio_{name}", CRITERIA[name], measured, holds, PICTURE, SOURCE)


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
