"""The arms of the parts study where each has changed SmolLM2 as much on ordinary sentences.

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
from analyses.llm.finished.criteria import study_claim
from analyses.llm.finished.results import CHANCE, NAMES
from analyses.llm.finished.studied import HELD_OUT, TOLD, Arm, arms_of, plain_interval
from analyses.llm.studies.divergence import ALIKE_ORDER, CRITERIA, LEVEL, STUDY
from analyses.llm.studies.parts import ARMS, CHANCE_LEFT, CITY_LIMIT, MATCHED, SETS, SMALL, TITLES

PICTURE = "llm_parts_divergence"
LEAST_SEEDS = 2
SPURIOUS_SET, CAUSAL_SET = SETS
Row = dict[str, Any]
MARKS = {
    "matched": (f"where a told implication costs {MATCHED:g} nats", "o", "#0173b2"),
    "at_divergence": (f"where the model is {LEVEL:g} nats from its base", "D", "#de8f05"),
}
"""Key of the rows -> how arms are compared, and its look."""


def rows() -> list[Row]:
    """The numbers of every arm that is finished, by data set."""
    found = arms_of(STUDY)
    return [
        _row(data, name, found[f"{data}--{name}"])
        for data in SETS
        for name in ARMS
        if f"{data}--{name}" in found
    ]


def _row(data: str, name: str, arm: Arm) -> Row:
    ways = {
        "matched": arm.at_told_loss(HELD_OUT, MATCHED),
        "at_divergence": arm.at_divergence(HELD_OUT, LEVEL),
    }
    ways |= {"told_at_divergence": arm.at_divergence(TOLD, LEVEL), "rank": arm.last(HELD_OUT)}
    return {
        "data": data,
        "arm": name,
        "title": TITLES[name],
        "seeds": arm.seeds,
        **{way: plain_interval(values) for way, values in ways.items()},
        "neutral_kl": plain_interval(arm.field("neutral_kl")),
        "neutral_kl_by_row": {str(s): arm.results[s]["neutral_kl_by_row"] for s in arm.seeds},
        "rank_by_row": {str(s): arm.column(HELD_OUT, s)[1].tolist() for s in arm.seeds},
    }


def numbers() -> dict[str, Any]:
    """Content of the picture's JSON."""
    return {
        "criteria": CRITERIA,
        "level_nats": LEVEL,
        "matched_nats": MATCHED,
        "names": NAMES,
        "rows": rows(),
    }


def _complete(rows: Iterable[Row], data: str, *keys: str, seeds: int = 1) -> dict[str, Row]:
    """The arms with enough runs of a set, all of which come to what is compared."""
    return {
        row["arm"]: row
        for row in rows
        if row["data"] == data
        and len(row["seeds"]) >= seeds
        and all(row[key]["runs"] == len(row["seeds"]) for key in keys)
    }


def order(rows: Iterable[Row]) -> tuple[float, list[str]]:
    """Rank correlation of both ways of comparing, and the arms that it is of; NaN of fewer than three."""
    both = _complete(rows, SPURIOUS_SET, *MARKS)
    if len(both) < 3:
        return float("nan"), list(both)
    means = [[row[way]["mean"] for row in both.values()] for way in MARKS]
    return float(np.asarray(spearmanr(*means)[0])), list(both)


def claims(rows: list[Row]) -> list[Claim]:
    """The criteria, once every arm has all its runs."""
    return list(_claims(rows))


def _claims(rows: list[Row]) -> Iterable[Claim]:
    color, city = (_complete(rows, data) for data in SETS)
    if len(color) < len(ARMS) or min(len(row["seeds"]) for row in color.values()) < LEAST_SEEDS:
        return
    correlation, arms = order(rows)
    measured = {"rank_correlation": correlation, "n_arms": len(arms)}
    yield _claim("matching_does_not_order_the_arms", measured, correlation >= ALIKE_ORDER)
    means = {name: row["at_divergence"]["mean"] for name, row in color.items()}
    compared = {name: means[name] for name in ("full", *SMALL)}
    known = None not in compared.values()
    holds = known and all(compared[name] > compared["full"] for name in SMALL)
    yield _claim("small_updates_deduce_less", compared, holds)
    if len(city) == len(ARMS):
        causal = {name: row["at_divergence"]["mean"] for name, row in city.items()}
        apart = [
            name
            for name in ARMS
            if None not in (causal[name], means[name])
            and causal[name] <= CITY_LIMIT
            and means[name] >= CHANCE_LEFT
        ]
        both = {
            f"{name}_{what}": of[name] for name in ARMS for what, of in (("city", causal), ("color", means))
        }
        yield _claim("no_arm_separates", {"n_separate": len(apart), **both}, not apart)


def _claim(name: str, measured: dict[str, Any], holds: bool) -> Claim:
    return study_claim(f"divergence_{name}", CRITERIA[name], measured, holds, PICTURE)


def draw(numbers: dict[str, Any]) -> Picture:
    """Mean rank of untold colors of every arm, compared in two ways; every run as a small mark."""
    own = [row for row in numbers["rows"] if row["data"] == SPURIOUS_SET]
    shown = sorted(own, key=_place)
    fig, ax = plt.subplots(figsize=(WIDTH, 1.9 + 0.24 * len(shown)), layout="constrained")
    for y, row in enumerate(shown):
        for (way, (_, marker, color)), shift in zip(MARKS.items(), (0.13, -0.13), strict=True):
            values = [value for value in row[way]["by_seed"] if value is not None]
            ax.plot(values, [y + shift] * len(values), marker, ms=3.5, color=color, alpha=0.5)
            if len(values) == len(row["seeds"]):
                ax.plot(row[way]["mean"], y + shift, marker, ms=7, color=color)
    for title, marker, color in MARKS.values():
        ax.plot([], [], marker, ms=7, color=color, label=title)
    ax.set_yticks(range(len(shown)), [row["title"] for row in shown])
    ax.axvline(CHANCE, color="#777777", lw=0.7, ls=":")
    ax.set(xlim=(-0.05, 2.6), xlabel="mean rank of untold colors (0: known, 2: guessed)")
    fig.legend(frameon=False, ncols=1, loc="outside lower center", fontsize=8)
    return fig


def _place(row: Row) -> float:
    """Where an arm stands in the picture: by its rank at equal divergence, else at the end."""
    at = row["at_divergence"]["mean"]
    return row["rank"]["mean"] if at is None else at


def sentence(numbers: dict[str, Any]) -> str:
    """Whether both ways order the arms alike."""
    correlation, arms = order(numbers["rows"])
    if len(arms) < 3:
        return (
            "Which parts of SmolLM2 deduce colors at equal divergence is not known before three are trained"
        )
    alike = "alike" if correlation >= ALIKE_ORDER else "otherwise"
    return (
        f"Where each has changed SmolLM2 as much elsewhere, {len(arms)} arms are ordered {alike} by what "
        f"they deduce as at equal told loss (rank correlation {correlation:.2f})"
    )


DRAWING = Drawing(sentence, draw)
