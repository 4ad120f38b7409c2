"""The claims of `analyses.llm.mitigated`: each is judged on the seeds that are finished, at least two."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyses.house.claims import Claim
from analyses.llm.finished.criteria import llm_claim
from analyses.llm.finished.studied import Arm
from analyses.llm.mitigation.drawing import GEMMA_PICTURE, LAYERS_PICTURE, MODELS, OTHERS_PICTURE, PICTURE
from analyses.llm.mitigation.measured import DRIFTED, END, Arms, measured, rank, separates, told
from analyses.llm.mitigation.methods import AT_GEMMAS_RATE, CUTS, IN_LAYERS_OF_GEMMA, METHODS
from analyses.llm.studies.mitigation import (
    CAUSAL_LIMIT,
    CAUSAL_MARGIN,
    CHANCE_LEFT,
    CRITERIA,
    PEOPLE,
    TOLD_LIMIT,
)

LEAST_SEEDS = 2
ALIKE = 0.3
"""Difference of mean ranks up to which two arms are alike, as the criteria say."""

BY_DEPTH = {
    "profession": ("", ("early_apart", "late_apart", "first_nine_apart", "middle_nine_apart")),
    "profession_on_gemma": ("gemma_", tuple(IN_LAYERS_OF_GEMMA)),
}
"""People -> prefix of the claims; arms apart below the layer that moves a name, from it on, and controls."""
WHO = {
    "profession": "professions",
    "month": "months of birth",
    "city": "cities",
    "profession_on_gemma": "professions",
}
PICTURES = {"profession": PICTURE, "profession_on_gemma": GEMMA_PICTURE}
"""People -> the picture of their claims, where it is one of their own."""


def claims(arms: Arms) -> list[Claim]:
    """The criteria of the study, for each people with enough seeds."""
    return [claim for people in PEOPLE for claim in _of_people(people, arms.get(people, {}))]


def _of_people(people: str, arms: dict[str, Arm]) -> Iterable[Claim]:
    enough = {name: arm for name, arm in arms.items() if len(arm.seeds) >= LEAST_SEEDS}

    def claim(name: str, measured: dict[str, Any], holds: bool) -> Claim:
        return llm_claim(
            f"mitigation_{people}_{name}",
            f", {WHO[people]}: {CRITERIA[name]}",
            "ours, after a trial of two seeds" if "apart" in CRITERIA[name] else "ours",
            "as stated, of arms with two seeds or more; written before the runs",
            measured,
            holds,
            LAYERS_PICTURE if "layers" in name else PICTURES.get(people, OTHERS_PICTURE),
            MODELS.get(people, MODELS["profession"]),
        )

    def of(name: str, relation: str, when: str = END) -> list[float]:
        return rank(enough[name], relation, when)

    if "lora" in enough:
        causal, spurious = of("lora", "causal"), of("lora", "spurious")
        yield claim(
            "one_lora_does_both",
            {"causal": causal, "spurious": spurious},
            max(causal) <= CAUSAL_LIMIT and max(spurious) < CHANCE_LEFT,
        )
        arm = enough["lora"]
        after = {
            cut: {
                "told": told(arm, cut),
                "causal": rank(arm, "causal", cut),
                "spurious": rank(arm, "spurious", cut),
            }
            for cut in CUTS
        }
        separate = [
            cut
            for cut, of in after.items()
            if max(of["told"]) <= TOLD_LIMIT
            and max(np.subtract(of["causal"], causal)) <= CAUSAL_MARGIN
            and min(of["spurious"]) >= CHANCE_LEFT
        ]
        yield claim(
            "cutting_either_end_acts_on_both",
            {f"{cut}_{name}": values for cut, of in after.items() for name, values in of.items()},
            not separate,
        )
    if "read_by_relation" in enough:
        arm = enough["read_by_relation"]
        yield claim(
            "reading_apart_isolates",
            {"causal": rank(arm, "causal"), "spurious": rank(arm, "spurious"), "told": told(arm)},
            all(separates(arm)),
        )
        if "lora" in enough:
            beside = _beside(arm, enough["lora"])
            yield claim(
                "reading_apart_keeps_what_one_lora_has", beside.numbers(), beside.isolates and beside.knows
            )
            if people == "month":
                yield claim(
                    "what_is_deduced_is_kept_too",
                    {"signs_above_one_lora": beside.above, "colors": beside.spurious},
                    beside.isolates,
                )
        for other, name in (
            ("read_at_random", "drawn_experts_do_not"),
            ("write_by_relation", "writing_apart_does_not"),
        ):
            if other in enough:
                common = sorted(set(arm.seeds) & set(enough[other].seeds))
                one, two = ([rank(a, "spurious", seed=s)[0] for s in common] for a in (arm, enough[other]))
                yield claim(
                    name,
                    {"read_by_relation": one, other: two},
                    all(b < a for a, b in zip(one, two, strict=True)),
                )
    yield from _by_depth(people, enough, claim)
    if {"lora", "attention_weights"} <= set(enough):
        beside = _beside(enough["attention_weights"], enough["lora"])
        yield claim("gemma_attention_alone_isolates", beside.numbers(), beside.isolates and beside.knows)
    if {"slower", *AT_GEMMAS_RATE} <= set(enough):
        slower = enough["slower"]
        experts = {name: _beside(enough[name], slower) for name in AT_GEMMAS_RATE}
        numbers = {f"{name}_{what}": v for name, of in experts.items() for what, v in of.numbers().items()}
        yield claim(
            "gemma_own_rate_isolates",
            {"one_lora": rank(slower, "causal"), **numbers},
            all(of.isolates and of.knows for of in experts.values()),
        )
    if "keep_untold" in enough:
        arm = enough["keep_untold"]
        never = rank(arm, "spurious")
        seen = [measured(arm, s, END)["spurious/seen_by_method"] for s in arm.seeds]
        yield claim(
            "keeping_untold_transfers",
            {"seen": seen, "never_seen": never},
            abs(float(np.mean(seen) - np.mean(never))) <= ALIKE,
        )
    idle = ("lora", "inoculation", "known_facts_late")
    if set(idle) <= set(enough):
        means = {name: float(np.mean(of(name, "spurious"))) for name in idle}
        yield claim(
            "inoculation_and_known_facts_do_nothing",
            means,
            all(abs(means[n] - means["lora"]) <= ALIKE for n in idle),
        )
    good = {name: arm for name, arm in enough.items() if all(separates(arm))}
    if good:
        yield claim(
            "isolation_stays",
            {name: rank(arm, "spurious", DRIFTED) for name, arm in good.items()},
            all(all(separates(arm, DRIFTED)) for arm in good.values()),
        )


@dataclass(frozen=True)
class _Beside:
    """An arm beside one LoRA, by common seed.

    Attributes:
        above: causal rank minus one LoRA's.
        spurious: spurious rank.
        told: the worst rank of what is told.
    """

    above: list[float]
    spurious: list[float]
    told: list[float]

    @property
    def isolates(self) -> bool:
        """Whether the causal implication is kept and the spurious one lost, in every seed."""
        return max(self.above) <= CAUSAL_MARGIN and min(self.spurious) >= CHANCE_LEFT

    @property
    def knows(self) -> bool:
        """Whether all that was told is known, in every seed."""
        return max(self.told) <= TOLD_LIMIT

    def numbers(self) -> dict[str, list[float]]:
        """What a claim says of it."""
        return {"causal_above_one_lora": self.above, "spurious": self.spurious, "told": self.told}


def _beside(arm: Arm, one: Arm) -> _Beside:
    common = sorted(set(arm.seeds) & set(one.seeds))
    worst = dict(zip(arm.seeds, told(arm), strict=True))
    return _Beside(
        [rank(arm, "causal", seed=s)[0] - rank(one, "causal", seed=s)[0] for s in common],
        [rank(arm, "spurious", seed=s)[0] for s in common],
        [worst[s] for s in common],
    )


def _by_depth(
    people: str, enough: dict[str, Arm], claim: Callable[[str, dict[str, Any], bool], Claim]
) -> Iterable[Claim]:
    """The claims about experts that are apart in some layers, for each model with its own arms."""
    if people not in BY_DEPTH:
        return
    prefix, (below, above, *others) = BY_DEPTH[people]
    depth = [enough.get(name) for name in ("lora", below, above)]
    if all(depth):
        one, early, late = (arm for arm in depth if arm)
        common = sorted(set(one.seeds) & set(early.seeds) & set(late.seeds))
        causal = [rank(early, "causal", seed=s)[0] - rank(one, "causal", seed=s)[0] for s in common]
        of_one, of_early, of_late = (
            [rank(arm, "spurious", seed=s)[0] for s in common] for arm in (one, early, late)
        )
        yield claim(
            f"{prefix}early_layers_isolate",
            {"causal_above_one_lora": causal, "spurious": of_early},
            max(causal) <= CAUSAL_MARGIN and min(of_early) >= CHANCE_LEFT,
        )
        yield claim(
            f"{prefix}late_layers_do_not",
            {"one_lora": of_one, "apart_below": of_early, "apart_from_there_on": of_late},
            all(abs(c - a) < abs(c - b) for a, b, c in zip(of_one, of_early, of_late, strict=True)),
        )
    equal = {name: enough[name] for name in (*others, above) if name in enough}
    if len(equal) == len(others) + 1:
        common = sorted(set.intersection(*(set(arm.seeds) for arm in equal.values())))
        ranks = {name: [rank(arm, "spurious", seed=s)[0] for s in common] for name, arm in equal.items()}
        yield claim(
            f"{prefix}it_is_not_the_number_of_layers",
            {METHODS[name].title.removeprefix("experts apart in "): r for name, r in ranks.items()},
            all(min(of) > last for *of, last in zip(*ranks.values(), strict=True)),
        )
