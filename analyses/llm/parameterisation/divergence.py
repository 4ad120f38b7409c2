"""How far the arms of the parts study move SmolLM2 on ordinary sentences, and what they deduce on the way.

Criteria and plan are in analyses/llm/studies/divergence.py; a picture of `analyses.llm.parts`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture
from scipy.stats import spearmanr

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.llm.finished.criteria import FITTED, study_claim
from analyses.llm.finished.results import CHANCE, NAMES
from analyses.llm.finished.studied import FACTS, HELD_OUT, TOLD, Arm, arms_of, plain_interval
from analyses.llm.studies.divergence import ALIKE_ORDER, CRITERIA, DATA, LEVEL, STUDY
from analyses.llm.studies.parts import ARMS, MATCHED, SMALL, TITLES
from analyses.llm.studies.plan import LOG_EVERY, STEPS

PICTURE = "llm_parts_divergence"
LEAST_SEEDS = 2
EARLY = LOG_EVERY
"""The first step after the start at which is measured."""
Row = dict[str, Any]
WAYS = ("matched", "at_divergence")
"""Keys of the rows: untold answers at equal told loss, and at equal divergence."""
KINDS = {
    "#0173b2": ("weights of the model", ("full", "attention", "mlp", "ov")),
    "#de8f05": ("LoRA and LoKr", ("lora_r8", "lora_r1", "lora_r64", "lokr")),
    "#029e73": ("Compacter, Compacter++", ("compacter", "compacter_plus")),
    "#cc78bc": ("LoRA-Mixer", ("lora_mixer",)),
}
"""Color -> what is trained, and the arms that train it."""


def rows() -> list[Row]:
    """The numbers of every arm that is finished."""
    found = arms_of(STUDY)
    return [_row(name, found[f"{DATA}--{name}"]) for name in ARMS if f"{DATA}--{name}" in found]


def _row(name: str, arm: Arm) -> Row:
    ways = {
        "matched": arm.at_told_loss(HELD_OUT, MATCHED),
        "at_divergence": arm.at_divergence(HELD_OUT, LEVEL),
    }
    ways |= {"told_at_divergence": arm.at_divergence(TOLD, LEVEL), "rank": arm.last(HELD_OUT)}
    return {
        "data": DATA,
        "arm": name,
        "title": TITLES[name],
        "seeds": arm.seeds,
        **{way: plain_interval(values) for way, values in ways.items()},
        "neutral_kl": plain_interval(arm.field("neutral_kl")),
        "worst_told": list(map(max, arm.last(FACTS), arm.last(TOLD))),
        "steps": arm.column(HELD_OUT, arm.seeds[0])[0].tolist(),
        "neutral_kl_by_row": [arm.results[s]["neutral_kl_by_row"] for s in arm.seeds],
        "rank_by_row": [arm.column(HELD_OUT, s)[1].tolist() for s in arm.seeds],
    }


def numbers() -> dict[str, Any]:
    """Content of the picture's JSON."""
    found = rows()
    moved, deduced = early_shares(found)
    correlation, arms = order(found)
    return {
        "criteria": CRITERIA,
        "level_nats": LEVEL,
        "matched_nats": MATCHED,
        "names": NAMES,
        "share_of_divergence_early": moved,
        "share_of_deduction_early": deduced,
        "order_at_equal_loss_and_divergence": {"arms": arms, "rank_correlation": correlation},
        "order_at_the_end": order_at_the_end(found),
        "order_at_the_end_of_those_that_know": order_at_the_end(
            row for row in found if float(np.mean(row["worst_told"])) <= FITTED
        ),
        "rows": found,
    }


def early_shares(rows: Iterable[Row]) -> tuple[float | None, float | None]:
    """What of the divergence, and of the fall of untold ranks, is there at step EARLY; medians over runs.

    Of runs that end at least 0.2 places below their start: of the others there is no share. Looked at after
    the first runs; no claim is made of it.
    """
    moved, deduced = [], []
    for row in rows:
        early = row["steps"].index(EARLY)
        for nats, ranks in zip(row["neutral_kl_by_row"], row["rank_by_row"], strict=True):
            if ranks[0] - ranks[-1] >= 0.2:
                moved.append(nats[early] / nats[-1])
                deduced.append((ranks[0] - ranks[early]) / (ranks[0] - ranks[-1]))
    if not moved:
        return None, None
    return round(float(np.median(moved)), 3), round(float(np.median(deduced)), 3)


def order_at_the_end(rows: Iterable[Row]) -> float | None:
    """Rank correlation over arms of the divergence at the end and untold ranks there, means over seeds.

    Looked at afterwards; below 0: what moves the model farther deduces more.
    """
    own = list(rows)
    if len(own) < 3:
        return None
    moved, deduced = ([row[key]["mean"] for row in own] for key in ("neutral_kl", "rank"))
    return round(float(np.asarray(spearmanr(moved, deduced)[0])), 3)


def order(rows: Iterable[Row]) -> tuple[float | None, list[str]]:
    """Rank correlation of both WAYS over the arms that come to both in every seed; None if fewer than 3."""
    both = [row for row in rows if all(row[way]["runs"] == len(row["seeds"]) for way in WAYS)]
    arms = [row["arm"] for row in both]
    if len(both) < 3:
        return None, arms
    one, other = ([row[way]["mean"] for row in both] for way in WAYS)
    return round(float(np.asarray(spearmanr(one, other)[0])), 5), arms


def claims(rows: list[Row]) -> list[Claim]:
    """The criteria, once every arm has all its runs."""
    if len(rows) < len(ARMS) or min(len(row["seeds"]) for row in rows) < LEAST_SEEDS:
        return []
    correlation, arms = order(rows)
    alike = correlation is not None and correlation >= ALIKE_ORDER
    means = {row["arm"]: row["at_divergence"]["mean"] for row in rows}
    compared = {name: means[name] for name in ("full", *SMALL)}
    known = None not in compared.values()
    return [
        _claim(
            "matching_does_not_order_the_arms",
            {"rank_correlation": correlation, "n_arms": len(arms)},
            alike,
        ),
        _claim(
            "small_updates_deduce_less",
            compared,
            known and all(compared[name] > compared["full"] for name in SMALL),
        ),
    ]


def _claim(name: str, measured: dict[str, Any], holds: bool) -> Claim:
    return study_claim(f"divergence_{name}", CRITERIA[name], measured, holds, PICTURE)


def draw(numbers: dict[str, Any]) -> Picture:
    """Untold ranks against divergence along training; a dot at step EARLY, a square at the end.

    Means over seeds, of divergences the geometric one.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 3.9), layout="constrained")
    for color, (_, arms) in KINDS.items():
        for row in (row for row in numbers["rows"] if row["arm"] in arms):
            early = row["steps"].index(EARLY)
            nats = np.exp(np.log(np.array(row["neutral_kl_by_row"])[:, 1:]).mean(0))
            ranks = np.array(row["rank_by_row"])[:, 1:].mean(0)
            ax.plot(nats, ranks, "-", lw=0.9, color=color, alpha=0.7)
            ax.plot(nats[early - 1], ranks[early - 1], "o", ms=5, color=color, mfc="white")
            ax.plot(nats[-1], ranks[-1], "s", ms=5, color=color)
    for color, (title, _) in KINDS.items():
        ax.plot([], [], "-", color=color, label=title)
    ax.plot([], [], "o", ms=5, color="#444444", mfc="white", label=f"at step {EARLY}")
    ax.plot([], [], "s", ms=5, color="#444444", label="at the end")
    ax.axhline(CHANCE, color="#777777", lw=0.7, ls=":")
    ax.set(xscale="log", ylim=(-0.05, 2.5), ylabel="untold colors: mean rank\n(0: deduced, 2: guessed)")
    ax.set_xlabel("moved from the base model on ordinary sentences (KL, nats a token)")
    fig.legend(frameon=False, ncols=3, loc="outside lower center", fontsize=8)
    return fig


def sentence(numbers: dict[str, Any]) -> str:
    """How much of the move, and of the deduction, the first steps make."""
    moved, deduced = numbers["share_of_divergence_early"], numbers["share_of_deduction_early"]
    if moved is None:
        return "How far SmolLM2 moves and what it deduces on the way is not known before an arm is trained"
    return (
        f"After {EARLY} of {STEPS} steps SmolLM2 is {moved:.0%} as far from its base as at the end, "
        f"{'but' if deduced < moved / 2 else 'and'} has deduced {deduced:.0%} of what it will"
    )


DRAWING = Drawing(sentence, draw)
