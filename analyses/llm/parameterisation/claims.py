"""The claims of `analyses.llm.parts`: what each criterion of analyses/llm/studies/parts.py measures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from analyses.house.claims import Claim
from analyses.llm.finished.criteria import study_claim
from analyses.llm.finished.studied import FACTS, HELD_OUT, TOLD, Arm
from analyses.llm.studies.parts import (
    ADDED_SETS,
    ALIKE_ORDER,
    ARMS,
    CHANCE_LEFT,
    CITY_LIMIT,
    CRITERIA,
    GEMMA_CRITERIA,
    LONGER,
    MATCHED,
    SETS,
    SLOWER,
    SMALL,
    SPURIOUS,
)
from analyses.llm.studies.plan import GEMMA, TITLES

PICTURE, GEMMA_PICTURE = "llm_parts", "llm_parts_gemma"
CAUSAL = "city_language"
LEAST_SEEDS, LONGER_SEEDS = 2, 3
FITTED, ALIKE = 0.05, 0.5
"""Mean rank of what is told up to which an arm fits; difference up to which LoRA's ranks are alike."""
Arms = dict[str, dict[str, Arm]]
"""Data set -> name in ARMS -> its runs."""


@dataclass(frozen=True)
class Found:
    """The finished runs of SmolLM2 and of Gemma, and of the arms that were added on either."""

    smollm2: Arms
    gemma: Arms
    further: Arms = field(default_factory=dict)
    further_smollm2: Arms = field(default_factory=dict)


def claims(found: Found) -> list[Claim]:
    """The criteria that enough finished runs can judge."""
    return [
        *_claims(found.smollm2),
        *_claims_of_gemma(found),
        *_claims_of_attention(found),
    ]


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
    yield from _claims_of_all_sets(arms)


def _claims_of_all_sets(arms: Arms) -> Iterable[Claim]:
    """The claims that came with the added sets: a run is a set with a seed."""
    ends = {
        name: {data: arms[data][name].last(HELD_OUT) for data in (CAUSAL, *SPURIOUS)}
        for name in ARMS
        if all(name in arms.get(data, {}) for data in (CAUSAL, *SPURIOUS))
    }
    if len(ends) == len(ARMS):
        spurious = {
            name: float(np.mean(np.concatenate([own[d] for d in SPURIOUS]))) for name, own in ends.items()
        }
        causal = {name: float(np.mean(own[CAUSAL])) for name, own in ends.items()}
        apart = [name for name in ARMS if causal[name] <= CITY_LIMIT and spurious[name] >= CHANCE_LEFT]
        measured = {
            f"{name}_{what}": of[name]
            for name in ARMS
            for what, of in (("causal", causal), ("spurious", spurious))
        }
        yield _claim("no_arm_separates_on_all_sets", {"n_separate": len(apart), **measured}, not apart)
    elsewhere = [data for data in ADDED_SETS if data in SPURIOUS]
    compared = ("lora_r8", *SMALL)
    if all(name in arms.get(data, {}) for name in compared for data in elsewhere):
        means = {
            name: float(np.mean(np.concatenate([arms[data][name].last(HELD_OUT) for data in elsewhere])))
            for name in compared
        }
        holds = all(means[name] > means["lora_r8"] for name in SMALL)
        yield _claim("small_updates_deduce_less_elsewhere_too", means, holds)


def _claims_of_gemma(found: Found) -> Iterable[Claim]:
    """The claims about Gemma, once every arm has a run."""
    color, city = (found.gemma.get(data, {}) for data in SETS)
    if not len(color) == len(city) == len(ARMS):
        return
    ends = {name: {"color": color[name].last(HELD_OUT), "city": city[name].last(HELD_OUT)} for name in ARMS}
    told = {
        data: {name: max(*of[name].last(TOLD), *of[name].last(FACTS)) for name in ARMS}
        for data, of in (("color", color), ("city", city))
    }
    fitted = [name for name in ARMS if max(told["color"][name], told["city"][name]) <= FITTED]
    seeds = sorted(set.intersection(*(set(arm.seeds) for arm in (*color.values(), *city.values()))))
    good = [
        name
        for name, of in ends.items()
        if max(of["city"]) <= CITY_LIMIT and min(of["color"]) >= CHANCE_LEFT and name in fitted
    ]
    every = {f"{name}_{what}": values for name, of in ends.items() for what, values in of.items()}
    yield _claim("gemma_one_arm_separates", {"seeds": seeds, "n_separate": len(good), **every}, bool(good))
    means = {name: float(np.mean(of["color"])) for name, of in ends.items()}
    compared = ("lora_r8", *SMALL)
    measured = {name: means[name] for name in compared}
    measured |= {f"{name}_worst_told": told["color"][name] for name in compared}
    less = all(means[name] > means["lora_r8"] for name in SMALL)
    yield _claim("gemma_small_updates_deduce_less", measured, less)
    of_smollm2 = found.smollm2.get(SETS[0], {})
    if len(of_smollm2) == len(ARMS):
        theirs = [float(np.mean(of_smollm2[name].last(HELD_OUT))) for name in ARMS]
        found_order = float(np.asarray(spearmanr(theirs, [means[name] for name in ARMS])[0]))
        measured = {"rank_correlation": found_order, "arms_that_know_what_was_told": len(fitted)}
        yield _claim("gemma_orders_arms_as_smollm2", measured, found_order >= ALIKE_ORDER)


def _claims_of_attention(found: Found) -> Iterable[Claim]:
    """Attention alone: on SmolLM2 as slowly as on Gemma, and on Gemma for longer."""
    color, city = (found.further_smollm2.get(data, {}).get(SLOWER) for data in SETS)
    if color and city and min(len(color.seeds), len(city.seeds)) >= LEAST_SEEDS:
        measured = {"color": color.last(HELD_OUT), "city": city.last(HELD_OUT)}
        measured |= {"color_worst_told": _worst_told(color), "city_worst_told": _worst_told(city)}
        known = max([*_worst_told(color), *_worst_told(city)]) <= FITTED
        apart = min(color.last(HELD_OUT)) >= CHANCE_LEFT and max(city.last(HELD_OUT)) <= CITY_LIMIT
        yield _claim("attention_slower_separates", measured, known and apart)
    color, city = (found.further.get(data, {}).get(LONGER) for data in SETS)
    if color and city:
        measured = {"color": color.last(HELD_OUT), "city": city.last(HELD_OUT)}
        measured |= {"color_worst_told": _worst_told(color), "city_worst_told": _worst_told(city)}
        known = max([*_worst_told(color), *_worst_told(city)]) <= FITTED
        least, most = min(color.last(HELD_OUT)), max(color.last(HELD_OUT))
        yield _claim("gemma_attention_longer_deduces", measured, known and most < CHANCE_LEFT)
        if min(len(color.seeds), len(city.seeds)) >= LONGER_SEEDS:
            apart = known and least >= CHANCE_LEFT and max(city.last(HELD_OUT)) <= CITY_LIMIT
            yield _claim("gemma_attention_alone_separates", measured, apart)
    others = {data: found.further.get(data, {}).get(LONGER) for data in SPURIOUS[1:]}
    if all(others.values()):
        ends = {data: arm.last(HELD_OUT) for data, arm in others.items() if arm}
        worst = {f"{data}_worst_told": _worst_told(arm) for data, arm in others.items() if arm}
        known = max(value for values in worst.values() for value in values) <= FITTED
        apart = known and min(value for values in ends.values() for value in values) >= CHANCE_LEFT
        yield _claim("gemma_attention_alone_separates_elsewhere", ends | worst, apart)


def _worst_told(arm: Arm) -> list[float]:
    """The worse mean rank of told facts and of told implications, by seed."""
    return list(map(max, arm.last(FACTS), arm.last(TOLD)))


def _claim(name: str, measured: dict[str, Any], holds: bool) -> Claim:
    if name in GEMMA_CRITERIA:
        of_gemma = {"figure": GEMMA_PICTURE, "model": TITLES[GEMMA]}
        return study_claim(f"parts_{name}", GEMMA_CRITERIA[name], measured, holds, **of_gemma)
    return study_claim(f"parts_{name}", CRITERIA[name], measured, holds, PICTURE)
