"""The claims of `analyses.llm.parts`: what each criterion of analyses/llm/studies/parts.py measures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from analyses.house.claims import Claim
from analyses.llm.finished.criteria import FITTED, study_claim
from analyses.llm.finished.studied import FACTS, HELD_OUT, TOLD, Arm
from analyses.llm.parameterisation import divergence
from analyses.llm.studies.parts import (
    ADDED_SETS,
    ALIKE_ORDER,
    ALL_SETS,
    ARMS,
    CHANCE_LEFT,
    CITY_LIMIT,
    CRITERIA,
    GEMMA_CRITERIA,
    GEMMA_RATES,
    LONGER,
    MATCHED,
    ON_ALL_SETS,
    OV_LONGER,
    OWN_RATE,
    SETS,
    SLOWER,
    SMALL,
    SPURIOUS,
)
from analyses.llm.studies.plan import GEMMA, TITLES

PICTURE, GEMMA_PICTURE = "llm_parts", "llm_parts_gemma"
CAUSAL, COUNTERFACTUAL = "city_language", "city_language_counterfactual"
LEAST_SEEDS, LONGER_SEEDS = 2, 3
ALIKE = 0.5
"""Difference of mean ranks up to which LoRA's ranks are alike."""
Arms = dict[str, dict[str, Arm]]
"""Data set -> name in ARMS -> its runs."""


@dataclass(frozen=True)
class Found:
    """The finished runs of SmolLM2, of all of Gemma's arms, and of the arms that were added on SmolLM2; and
    the rows of the arms at equal divergence."""

    smollm2: Arms
    gemma: Arms
    further_smollm2: Arms = field(default_factory=dict)
    at_divergence: list[divergence.Row] = field(default_factory=list)


def claims(found: Found) -> list[Claim]:
    """The criteria that enough finished runs can judge."""
    return [
        *_claims(found.smollm2),
        *_claims_of_gemma(found),
        *_claims_of_attention(found),
        *_claims_of_gemma_on_all_sets(found.gemma),
        *divergence.claims(found.at_divergence),
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
        spurious = {name: _together(own) for name, own in ends.items()}
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
    color, city = (
        {name: arm for name, arm in found.gemma.get(data, {}).items() if name in ARMS} for data in SETS
    )
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
    color, city = (found.gemma.get(data, {}).get(LONGER) for data in SETS)
    if color and city:
        measured = {"color": color.last(HELD_OUT), "city": city.last(HELD_OUT)}
        measured |= {"color_worst_told": _worst_told(color), "city_worst_told": _worst_told(city)}
        known = max([*_worst_told(color), *_worst_told(city)]) <= FITTED
        least, most = min(color.last(HELD_OUT)), max(color.last(HELD_OUT))
        yield _claim("gemma_attention_longer_deduces", measured, known and most < CHANCE_LEFT)
        if min(len(color.seeds), len(city.seeds)) >= LONGER_SEEDS:
            apart = known and least >= CHANCE_LEFT and max(city.last(HELD_OUT)) <= CITY_LIMIT
            yield _claim("gemma_attention_alone_separates", measured, apart)
    attention, ov = (found.gemma.get(SETS[0], {}).get(name) for name in (LONGER, OV_LONGER))
    if attention and ov and min(len(attention.seeds), len(ov.seeds)) >= LONGER_SEEDS:
        pairs = list(zip(attention.last(HELD_OUT), ov.last(HELD_OUT), strict=True))
        measured = {"attention": [a for a, _ in pairs], "v_and_o": [b for _, b in pairs]}
        yield _claim("gemma_ov_deduces_more_than_attention", measured, all(b < a for a, b in pairs))
    others = {data: found.gemma.get(data, {}).get(LONGER) for data in SPURIOUS[1:]}
    if all(others.values()):
        ends = {data: arm.last(HELD_OUT) for data, arm in others.items() if arm}
        worst = {f"{data}_worst_told": _worst_told(arm) for data, arm in others.items() if arm}
        known = max(value for values in worst.values() for value in values) <= FITTED
        apart = known and min(value for values in ends.values() for value in values) >= CHANCE_LEFT
        yield _claim("gemma_attention_alone_separates_elsewhere", ends | worst, apart)


def _claims_of_gemma_on_all_sets(arms: Arms) -> Iterable[Claim]:
    """The claims that came with the other sets, with the arms' own rates and with v and o for longer."""
    own = [f"{name}{OWN_RATE}" for name in GEMMA_RATES]
    if all(name in arms.get(data, {}) for name in own for data in ALL_SETS):
        worst = {name: max(max(_worst_told(arms[data][name])) for data in ALL_SETS) for name in own}
        yield _claim("gemma_own_rates_fit", worst, max(worst.values()) <= FITTED)
    judged = (CAUSAL, *SPURIOUS)
    ends = {
        name: {data: arms[data][name].last(HELD_OUT) for data in judged}
        for name in ON_ALL_SETS
        if all(name in arms.get(data, {}) for data in judged)
    }
    worst = {name: max(max(_worst_told(arms[data][name])) for data in judged) for name in ends}
    causal = {name: float(np.mean(of[CAUSAL])) for name, of in ends.items()}
    spurious = {name: _together(of) for name, of in ends.items()}

    def apart(name: str) -> bool:
        return causal[name] <= CITY_LIMIT and spurious[name] >= CHANCE_LEFT

    def measured(names: Iterable[str]) -> dict[str, float]:
        every = (("causal", causal), ("spurious", spurious), ("worst_told", worst))
        return {f"{name}_{what}": of[name] for name in names for what, of in every}

    if len(ends) == len(ON_ALL_SETS):
        others = [name for name in ends if name != LONGER]
        found = [name for name in others if apart(name) and worst[name] <= FITTED]
        numbers = {"n_separate": len(found), **measured(others)}
        yield _claim("gemma_no_other_arm_separates_on_all_sets", numbers, not found)
    opposite = arms.get(COUNTERFACTUAL, {}).get(LONGER)
    if LONGER in ends and opposite:
        told_otherwise = float(np.mean(opposite.last(HELD_OUT)))
        numbers = measured([LONGER]) | {"counterfactual": told_otherwise}
        holds = apart(LONGER) and told_otherwise >= CHANCE_LEFT
        yield _claim("gemma_attention_separates_on_all_sets", numbers, holds)
    if OV_LONGER in ends:
        holds = apart(OV_LONGER) and worst[OV_LONGER] <= FITTED
        yield _claim("gemma_ov_longer_separates", measured([OV_LONGER]), holds)
    small = [name if name not in GEMMA_RATES else f"{name}{OWN_RATE}" for name in SMALL]
    compared = (f"lora_r8{OWN_RATE}", *small)
    if all(name in ends for name in compared):
        means = {name: spurious[name] for name in compared}
        holds = all(means[name] > means[compared[0]] for name in small)
        yield _claim("gemma_small_updates_deduce_less_at_own_rates", means, holds)


def _together(ends: Mapping[str, list[float]]) -> float:
    """Mean over the runs of the spurious sets."""
    return float(np.mean(np.concatenate([ends[data] for data in SPURIOUS])))


def _worst_told(arm: Arm) -> list[float]:
    """The worse mean rank of told facts and of told implications, by seed."""
    return list(map(max, arm.last(FACTS), arm.last(TOLD)))


def _claim(name: str, measured: dict[str, Any], holds: bool) -> Claim:
    if name in GEMMA_CRITERIA:
        of_gemma = {"figure": GEMMA_PICTURE, "model": TITLES[GEMMA]}
        return study_claim(f"parts_{name}", GEMMA_CRITERIA[name], measured, holds, **of_gemma)
    return study_claim(f"parts_{name}", CRITERIA[name], measured, holds, PICTURE)
