"""Whose answer is first for an untold name, against told share and steps: counterfactual languages, SmolLM2.

Criteria and plan are in analyses/llm/studies/recall.py.
"""

from __future__ import annotations

import itertools
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
from analyses.llm.finished.studied import FACTS, FIRST_PRETRAINED, FIRST_TOLD, Arm, arms_of, plain_interval
from analyses.llm.studies.plan import SMOLLM2
from analyses.llm.studies.recall import CRITERIA, KNOWN, SHARES, STUDY

PICTURE = "llm_recall"
SOURCE = "ours, from the one-layer model with a pretrained base (docs/theory.md, prior knowledge)"
LEAST_SEEDS = 2
SLOW = f"{SMOLLM2}--share0.2--lr3e-05"
WHO = {
    FIRST_PRETRAINED: ("what the model knew", "#de8f05"),
    FIRST_TOLD: ("what was told of others", "#0173b2"),
}


def arm_name(share: float) -> str:
    """The arm of a told share."""
    return f"{SMOLLM2}--share{share:g}"


def make(runs: Path, figures: Path) -> dict[str, Arm]:
    """Draws what is finished."""
    arms = arms_of(STUDY)
    DRAWING.write(figures / PICTURE, {"criteria": CRITERIA, "rows": rows(arms)})
    return arms


def _by_share(numbers: dict[str, Any]) -> dict[float, dict[str, Any]]:
    """Told share -> its row, in the order of the shares."""
    found = {row["arm"]: row for row in numbers["rows"]}
    return {share: found[arm_name(share)] for share in SHARES if arm_name(share) in found}


def draw(numbers: dict[str, Any]) -> Picture:
    """Share of untold names with either answer first by step, a panel per told share."""
    shown = _by_share(numbers)
    fig, axes = plt.subplots(
        1, max(len(shown), 1), figsize=(WIDTH, 2.9), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (share, row) in zip(axes[0], shown.items(), strict=bool(shown)):
        for (column, (label, color)), marker in zip(WHO.items(), "os", strict=True):
            values = np.array(row["curves"][column])
            ax.plot(row["steps"], values.T, "-", color=color, lw=0.7, alpha=0.6)
            ax.plot(row["steps"], values.mean(0), f"{marker}-", color=color, lw=2, ms=3.5, label=label)
        ax.axhline(0.2, color="#777777", lw=0.7, ls=":")
        ax.set_title(f"{share:.0%} told")
        ax.set_xlabel("steps")
    axes[0, 0].set_ylim(0, 1)
    axes[0, 0].set_ylabel("untold names: share with\nthis answer first")
    if shown:
        handles, labels = axes[0, 0].get_legend_handles_labels()
        fig.legend(handles, labels, frameon=False, ncols=2, loc="outside lower center")
    return fig


def sentence(numbers: dict[str, Any]) -> str:
    """How the pretrained answer gives way as more is told, at the end of training, mean over seeds."""
    shown = _by_share(numbers)
    known, told = ([row[f"first_{who}"]["mean"] for row in shown.values()] for who in ("pretrained", "told"))
    if len(shown) < 2:
        return "Whose answer is first for an untold name is shown once two told shares are trained"
    if not _rises(known[::-1]):
        first, *_, last = shown
        return (
            f"Of untold names {known[0]:.0%} get the answer that SmolLM2 knew if {first:.0%} of the others "
            f"are told, {known[-1]:.0%} if {last:.0%} are"
        )
    ahead = all(one > other for one, other in zip(known, told, strict=True))
    return (
        "The more other names are told, the fewer untold ones get the answer that SmolLM2 knew"
        + ", which still stays ahead of the told one" * ahead
    )


DRAWING = Drawing(sentence, draw)


def rows(arms: dict[str, Arm]) -> list[dict[str, Any]]:
    """What each arm ends at, and its curves."""
    return [
        {
            "arm": arm.name,
            "seeds": arm.seeds,
            **{column.rpartition("/")[2]: plain_interval(arm.last(column)) for column in WHO},
            "fact_rank": arm.last(FACTS),
            "neutral_kl": arm.field("neutral_kl"),
            "steps": arm.column(FACTS, arm.seeds[0])[0].tolist(),
            "curves": {column: [arm.column(column, s)[1].tolist() for s in arm.seeds] for column in WHO},
        }
        for arm in arms.values()
    ]


def claims(arms: dict[str, Arm]) -> list[Claim]:
    """The criteria, where every arm has enough seeds."""
    own = {share: arms.get(arm_name(share)) for share in SHARES}
    found = []
    if all(arm is not None and len(arm.seeds) >= LEAST_SEEDS for arm in own.values()):
        ends = {column: [float(np.mean(arm.last(column))) for arm in own.values() if arm] for column in WHO}
        told, known = ends[FIRST_TOLD], ends[FIRST_PRETRAINED]
        found.append(_claim("told_first_rises_with_share", {"told_first": told}, _rises(told)))
        found.append(
            _claim("pretrained_first_falls_with_share", {"pretrained_first": known}, _rises(known[::-1]))
        )
        most = own[SHARES[-1]]
        assert most is not None
        early, late = _when_known(most), most.last(FIRST_PRETRAINED)
        holds = all(a > b for a, b in zip(early, late, strict=True))
        found.append(_claim("pretrained_then_told", {"when_known": early, "end": late}, holds))
    slow, usual = arms.get(SLOW), own[0.2]
    if slow and usual and len(slow.seeds) >= LEAST_SEEDS and slow.seeds == usual.seeds:
        one, other = slow.last(FIRST_PRETRAINED), usual.last(FIRST_PRETRAINED)
        holds = all(a > b for a, b in zip(one, other, strict=True))
        found.append(_claim("slower_rate_recalls", {"3e-5": one, "1e-4": other}, holds))
    return found


def _rises(values: list[float]) -> bool:
    return all(a < b for a, b in itertools.pairwise(values))


def _when_known(arm: Arm) -> list[float]:
    """The share with the pretrained answer first at the first measurement with the facts known, by seed."""
    found = []
    for seed in arm.seeds:
        facts, first = arm.column(FACTS, seed)[1], arm.column(FIRST_PRETRAINED, seed)[1]
        known = np.flatnonzero(facts <= KNOWN)
        found.append(float(first[known[0] if len(known) else -1]))
    return found


def _claim(name: str, measured: dict[str, Any], holds: bool) -> Claim:
    return study_claim(f"recall_{name}", CRITERIA[name], measured, holds, PICTURE, SOURCE)


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
