"""A causal and a spurious implication of the same facts: can the first be kept and the second be lost?

Names live in a city, speak its language and like the color of its group; or have a profession, its workplace
and the color of its group, all told in one training set (analyses/llm/mitigation/taught.py). Ranks are of
the names of which neither implication is told and which the method has not used.

The professions were added after three runs about cities (seed 0) had shown that one LoRA hardly deduces their
colors (1.75 after 150 steps, 1.50 after 200), so that there is little to lose; Profession-Color is deduced in
Table 1. Months were added later: languages and workplaces are recalled, so that keeping them shows little. A
sign of the zodiac follows from a month, but neither model knows it, so that it has to be deduced as colors
are. The criteria are as they were, and are judged for each of the three; one is added for months.

Where experts must be apart was added after experts that share their read had isolated too, which the
one-layer model does not say. In it the read finds the pair of a name, and the write says what follows. In
SmolLM2 the pair is found in many layers, read and write, and moved to the end of the prompt at layer 21
(docs/findings/llm_inside.md). So experts should have to be apart before that layer, where an untold name's
pair would be found by the other expert, and need not be after it. After seed 0 had shown that, as many layers
as there are from the 21st on were added at the beginning and before it: are early layers more, or only more
layers?

The other arms on Gemma, its arms by layer and Muon on all weights were added after two seeds of one LoRA
and of experts that read apart on Gemma, and one or two seeds of every other arm on SmolLM2, before their
own runs. Three seeds of them were planned. When the first was there, the plan was cut for lack of time: to
one seed for what was added on Gemma, two for its arms by layer, and two for all people but professions on
SmolLM2, of whose third seed no run had been made. Gemma is split two thirds up its stack, as SmolLM2 is, at
layer 12 of 18 (patching puts its own turn at 11). All its weights have the rate of its pilot (families.py).
Experts at the rate of LoRA's own pilot on Gemma (parts.py) were added after all of these, with two seeds.
"""

from __future__ import annotations

from collections.abc import Iterator

from analyses.llm.mitigation.methods import (
    AT_GEMMAS_RATE,
    IN_LAYERS_OF_GEMMA,
    METHODS,
    ON_GEMMA_ALONE,
    ON_SMOLLM2,
    ApartInSomeLayers,
)
from analyses.llm.mitigation.training import DRIFT, LOGGED, make
from analyses.llm.studies.families import at_gemmas_rate
from analyses.llm.studies.months import MONTH_SIGN
from analyses.llm.studies.plan import GEMMA, SMOLLM2, PlannedRun, Study, recipe

CAUSAL_LIMIT, CHANCE_LEFT = 0.3, 1.7
"""Mean ranks: the causal implication is kept up to the first, the spurious one is lost from the second on."""
CAUSAL_MARGIN = 0.2
"""Mean rank above that of one LoRA up to which the causal implication is as well known as with it."""
TOLD_LIMIT = 0.1
"""Mean rank up to which what is told is known."""

CRITERIA = {
    "one_lora_does_both": (
        f"one LoRA has the causal implication at most {CAUSAL_LIMIT} and the spurious one below "
        f"{CHANCE_LEFT}, in every seed: there is something to mitigate"
    ),
    "reading_apart_isolates": (
        "experts that read apart by relation: causal at most "
        f"{CAUSAL_LIMIT}, spurious at least {CHANCE_LEFT}, everything told at most {TOLD_LIMIT}, every seed"
    ),
    "reading_apart_keeps_what_one_lora_has": (
        f"the same experts: causal at most {CAUSAL_MARGIN} above one LoRA's, spurious at least "
        f"{CHANCE_LEFT}, told at most {TOLD_LIMIT}, every seed (added after one LoRA's first run about "
        "professions, whose workplaces it has at 0.55)"
    ),
    "drawn_experts_do_not": (
        "experts that read apart but are drawn for each name and relation have the spurious implication "
        "lower than those by relation, every seed"
    ),
    "writing_apart_does_not": "experts that write apart by relation, likewise, every seed",
    "keeping_untold_transfers": (
        "KL on untold names: the names that it never saw differ from those that it saw by at most 0.3 in the "
        "spurious rank, mean over seeds"
    ),
    "inoculation_and_known_facts_do_nothing": (
        "both leave the spurious rank within 0.3 of one LoRA's, mean over seeds (the linear model says so)"
    ),
    "cutting_either_end_acts_on_both": (
        f"no cut of one LoRA's updates that keeps what is told (at most {TOLD_LIMIT}) and the causal one (at "
        f"most {CAUSAL_MARGIN} above the uncut LoRA) brings the spurious one to {CHANCE_LEFT}, every seed "
        f"(before the runs the limit was {CAUSAL_LIMIT}; the uncut LoRA itself does not meet that for "
        "workplaces, so that no cut could have broken the claim)"
    ),
    "what_is_deduced_is_kept_too": (
        "months: experts that read apart by relation leave the mean rank of signs, which must be deduced, at "
        f"most {CAUSAL_MARGIN} above one LoRA's and colors at least at {CHANCE_LEFT}, every seed"
    ),
    "early_layers_isolate": (
        "experts by relation that have nothing in common below layer 21 and are one from there on: causal at "
        f"most {CAUSAL_MARGIN} above one LoRA's, spurious at least {CHANCE_LEFT}, every seed"
    ),
    "late_layers_do_not": (
        "experts that are one below layer 21 and apart from there on: spurious nearer to one LoRA's than to "
        "that of the experts apart below it, every seed"
    ),
    "it_is_not_the_number_of_layers": (
        "nine layers apart, 0 to 8 or 12 to 20, each have the spurious implication higher than the nine from "
        "21 on, every seed"
    ),
    "gemma_early_layers_isolate": (
        "Gemma: experts by relation that have nothing in common below layer 12 and are one from there on: "
        f"causal at most {CAUSAL_MARGIN} above one LoRA's, spurious at least {CHANCE_LEFT}, every seed"
    ),
    "gemma_late_layers_do_not": (
        "Gemma: experts that are one below layer 12 and apart from there on: spurious nearer to one LoRA's "
        "than to that of the experts apart below it, every seed"
    ),
    "gemma_it_is_not_the_number_of_layers": (
        "Gemma: six layers apart, 0 to 5 or 6 to 11, each have the spurious implication higher than the six "
        "from 12 on, every seed"
    ),
    "gemma_attention_alone_isolates": (
        "Gemma: attention's weights alone, trained twice as long: causal at most "
        f"{CAUSAL_MARGIN} above one LoRA's, spurious at least {CHANCE_LEFT}, told at most {TOLD_LIMIT}, "
        "every seed (added when the arm had lost colors and kept languages in runs of one relation, before "
        "its own runs)"
    ),
    "gemma_own_rate_isolates": (
        "Gemma: at LoRA's own rate experts that read apart by relation, and those apart in layers 0 to 11, "
        f"each have the causal implication at most {CAUSAL_MARGIN} above one LoRA's of the same rate, the "
        f"spurious one at least {CHANCE_LEFT} and everything told at most {TOLD_LIMIT}, every seed (added "
        "when both had isolated at SmolLM2's rate and forgotten some of what they were told, before their "
        "own runs)"
    ),
    "isolation_stays": (
        f"after {DRIFT} more steps without the method the arms that kept and lost (as above) still do, every "
        "seed"
    ),
}


FEWER = ("lora", "read_by_relation", "read_at_random", "write_by_relation", "keep_untold")
"""Arms for all but professions. Colors of cities are hardly deduced: others could show little."""
PEOPLE = {
    "profession": "profession_workplace",
    "month": MONTH_SIGN.name,
    "city": "city_language",
    "profession_on_gemma": "profession_workplace",
}
"""Who is taught about -> the causal set; on SmolLM2 unless the name says otherwise."""
ON_GEMMA = "_on_gemma"
_NOT_BY_LAYER = [n for n, method in ON_SMOLLM2.items() if not isinstance(method, ApartInSomeLayers)]
ARMS_OF = {
    "profession": list(ON_SMOLLM2),
    "profession_on_gemma": [
        *FEWER,
        *IN_LAYERS_OF_GEMMA,
        *(n for n in _NOT_BY_LAYER if n not in (*FEWER, "muon_full")),
        *ON_GEMMA_ALONE,
        *AT_GEMMAS_RATE,
    ],
}
"""People who have other arms than the fewer; on Gemma for the first seed."""
SECOND_ON_GEMMA = (*FEWER, *IN_LAYERS_OF_GEMMA, *ON_GEMMA_ALONE, "slower", *AT_GEMMAS_RATE)
"""Arms on Gemma that have a second seed."""
LAST_SEED = 2


def runs(seed: int) -> Iterator[PlannedRun]:
    """Every arm for professions, on SmolLM2 and Gemma; the experts and their controls for the others too."""
    for people, data in PEOPLE.items():
        if seed == LAST_SEED and people != "profession":
            continue
        model = GEMMA if people.endswith(ON_GEMMA) else SMOLLM2
        arms = ARMS_OF.get(people, FEWER)
        for name in SECOND_ON_GEMMA if model == GEMMA and seed else arms:
            method = METHODS[name]
            training = at_gemmas_rate(method.training) if model == GEMMA else method.training
            fields = {"steps": LOGGED[-1] * method.times + DRIFT, "log_every": 50, **training}
            config = recipe(data, seed, model=model, **fields)
            yield PlannedRun("mitigation", f"{people}--{name}", config, (("method", name),), make)


STUDY = Study("mitigation", "What keeps the causal implication and loses the spurious one?", CRITERIA, runs)
