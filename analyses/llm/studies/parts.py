"""Which parts of a model, and which parameterisation of its update, deduce a spurious implication?

Compared at equal told loss: the held-out rank where the told implications' cross-entropy is first at most
MATCHED, linear in the logarithm between measurements. Rates other than those of full fine-tuning and LoRA are
the smallest of a pilot (PILOT: 60 steps, facts of seed 100) whose facts have a mean rank of at most 0.1, or,
where none has, the one with the smallest. The arms called slower were added after LoRA of rank 64 and LoRA-
Mixer had not known what they were told on City-Language; so were facts alone with LoRA, and Gemma, all before
their own runs. Gemma was planned with two seeds and has one, for lack of time. It had SmolLM2's rates, but
all weights and parts of them the one of its own pilot; arms at the rates of a second pilot, and five sets for
one arm of each kind, were added after those, before their own runs.

The first two sets have two seeds (a third was planned, and left out for lack of time before any of its runs).
The other three were added with one seed each, after the first seed of Profession-Color had been seen and
before their own runs. A set with a seed is a run, and the three spurious sets together are what an arm is
judged by.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from analyses.llm.studies.families import SELDOM, at_gemmas_rate
from analyses.llm.studies.plan import GEMMA, LORA_RATE, STEPS, PlannedRun, Study, recipe

MATCHED = 0.1
"""Nats per told implication at which arms are compared."""
PILOT_SEED = 100
SETS = ("profession_color", "city_language")
ADDED_SETS = ("country_code", "sport_music", "city_language_counterfactual")
ALL_SETS = (*SETS, *ADDED_SETS)
SPURIOUS = ("profession_color", "country_code", "sport_music")
SMALL = ("compacter", "compacter_plus", "lora_mixer", "lokr")
"""Arms that deduced less than LoRA on the first seed of Profession-Color."""
CITY_LIMIT, CHANCE_LEFT = 0.3, 1.8
"""Held-out mean rank up to which a causal set is kept, and from which a spurious one is not deduced."""
ALIKE_ORDER = 0.5
"""Rank correlation from which two models order the arms alike."""

ARMS: dict[str, dict[str, Any]] = {
    "full": {},
    "attention": {"train_parts": ("attention",)},
    "mlp": {"train_parts": ("mlp",)},
    "ov": {"train_parts": ("ov",)},
    "lora_r8": {"method": "lora", "lr": LORA_RATE},
    "lora_r1": {"method": "lora", "lr": LORA_RATE, "lora_rank": 1, "lora_alpha": 2.0},
    "lora_r64": {"method": "lora", "lr": LORA_RATE, "lora_rank": 64, "lora_alpha": 128.0},
    "compacter": {"method": "compacter", "lr": 1e-3},
    "compacter_plus": {"method": "compacter_plus", "lr": 3e-3},
    "lora_mixer": {"method": "lora_mixer", "lr": LORA_RATE},
    "lokr": {"method": "lokr", "lr": 3e-3},
}
FURTHER: dict[str, dict[str, Any]] = {
    "lora_r64_slower": {**ARMS["lora_r64"], "lr": 3e-4},
    "lora_mixer_slower": {**ARMS["lora_mixer"], "lr": 3e-4},
    "lora_r8_facts_only": {**ARMS["lora_r8"], "control": "facts_only"},
}
"""Arms that were added later, with one seed on the first two sets. Criteria that count arms are of ARMS."""
SLOWER = "attention_slower"
FURTHER_SEEDS = {SLOWER: {**ARMS["attention"], "lr": 3e-5, "steps": 2 * STEPS}}
"""An arm that was added later with both seeds: attention alone as slowly as on Gemma, where it separates."""

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
    "lora_r64_slower": "LoRA, rank 64, slower",
    "lora_mixer_slower": "LoRA-Mixer, slower",
    "lora_r8_facts_only": "LoRA, rank 8, facts only",
    "attention_slower": "attention, slower, twice as long",
    "attention_longer": "attention, twice as long",
    "ov_longer": "v and o, twice as long",
    "lora_r8_own_rate": "LoRA, rank 8, at 3e-4",
    "lora_r64_own_rate": "LoRA, rank 64, at 3e-4",
    "compacter_own_rate": "Compacter, at 1e-2",
    "compacter_plus_own_rate": "Compacter++, at 1e-2",
    "lora_mixer_own_rate": "LoRA-Mixer, at 3e-4",
}

CRITERIA = {
    "every_arm_fits": (
        "every arm has told facts and told implications at a mean rank of at most 0.05 at the end"
    ),
    "one_arm_separates": (
        f"some arm that fits has City-Language at most {CITY_LIMIT} and Profession-Color at least "
        f"{CHANCE_LEFT} in every seed (if it fails, no parameterisation keeps the causal implication and "
        "loses the spurious one)"
    ),
    "ov_alone_deduces_less": (
        "Profession-Color: training v and o alone deduces less than full fine-tuning, every seed, at equal "
        "told loss (the trial had 1.51 and 0.50 at equal steps)"
    ),
    "rank_of_lora_does_not_decide": (
        "Profession-Color: LoRA's ranks 1, 8 and 64 are within 0.5 of each other, mean over seeds, at equal "
        "told loss"
    ),
    "no_arm_separates_on_all_sets": (
        f"no arm has City-Language at most {CITY_LIMIT} and the three spurious sets together, as the mean of "
        f"their runs, at least {CHANCE_LEFT}, at the end (added with the three sets, before their runs)"
    ),
    "small_updates_deduce_less_elsewhere_too": (
        "Compacter, Compacter++, LoRA-Mixer and LoKr each: Country-Code and Sport-Music together have a "
        "higher mean rank than with LoRA of rank 8, at the end (added with the sets, before their runs)"
    ),
    "attention_slower_separates": (
        "attention alone at 3e-5, trained twice as long, knows all that it was told, has City-Language at "
        f"most {CITY_LIMIT} and Profession-Color at least {CHANCE_LEFT}, in each of two seeds (added when it "
        "had done so on Gemma, before its own runs)"
    ),
}


GEMMA_KNOWN = 0.05
GEMMA_PILOT_RATES: dict[str, tuple[float, ...]] = {
    "lora_r8": (3e-4,),
    "compacter": (3e-3, 1e-2),
    "lora_mixer": (3e-4, 3e-3),
    "compacter_plus": (1e-2, 3e-2),
}
"""Rates beside SmolLM2's, for arms that at SmolLM2's did not know all that they were told.

The pilot reads told facts and told implications alone, after all steps, of its own seed. Chosen is the
smallest rate, SmolLM2's among them, with both at a mean rank of at most GEMMA_KNOWN; if none has, the one
with the smallest sum."""
GEMMA_RATES = {"lora_r8": 3e-4, "compacter": 1e-2, "lora_mixer": 3e-4, "compacter_plus": 1e-2}
"""What the pilot chose. LoRA of rank 64 had none and has LoRA's, as on SmolLM2."""
OWN_RATE = "_own_rate"
AT_OWN_RATE: dict[str, dict[str, Any]] = {
    f"{name}{OWN_RATE}": {**ARMS[name], "lr": lr}
    for name, lr in {**GEMMA_RATES, "lora_r64": GEMMA_RATES["lora_r8"]}.items()
}
"""Arms on Gemma at the rates of its own pilot."""
LONGER, OV_LONGER = "attention_longer", "ov_longer"
GEMMA_FURTHER: dict[str, dict[str, Any]] = {
    LONGER: {**ARMS["attention"], "steps": 2 * STEPS},
    OV_LONGER: {**ARMS["ov"], "steps": 2 * STEPS},
}
"""Arms on Gemma that had not quite learned what they were told."""
ON_ALL_SETS: dict[str, dict[str, Any]] = {
    **{name: ARMS[name] for name in ("full", "mlp", "lora_r1", "lokr")},
    **GEMMA_FURTHER,
    **AT_OWN_RATE,
}
"""Arms on Gemma that have all five sets: one of each kind, those that knew at least nearly all that they
were told, or the same ones trained longer or at their own rate."""

GEMMA_CRITERIA = {
    "gemma_one_arm_separates": (
        f"some arm on Gemma that knows what it is told has City-Language at most {CITY_LIMIT} and "
        f"Profession-Color at least {CHANCE_LEFT} in every seed"
    ),
    "gemma_small_updates_deduce_less": (
        "Gemma: Compacter, Compacter++, LoRA-Mixer and LoKr each: Profession-Color has a higher mean rank "
        "than with LoRA of rank 8, at the end, mean over seeds"
    ),
    "gemma_attention_longer_deduces": (
        "Gemma: attention alone, trained twice as long, knows all that it was told, and has Profession-Color "
        f"below {CHANCE_LEFT}, in every seed (if not, it separates; added after the arm's first run, before "
        "its own)"
    ),
    "gemma_attention_alone_separates": (
        "Gemma: attention alone, trained twice as long, knows all that it was told, has City-Language at "
        f"most {CITY_LIMIT} and Profession-Color at least {CHANCE_LEFT}, in each of three seeds (added when "
        "Profession-Color of the first had been seen, at 1.93, before the others)"
    ),
    "gemma_attention_alone_separates_elsewhere": (
        "the same arm knows all that it was told of Country-Code and of Sport-Music, and has each at least "
        f"{CHANCE_LEFT}, one seed (added with the former)"
    ),
    "gemma_own_rates_fit": (
        "Gemma: LoRA of rank 8, Compacter, Compacter++ and LoRA-Mixer, at the rates of its own pilot, each "
        "know all that they were told, in each of the five sets (added before their runs)"
    ),
    "gemma_no_other_arm_separates_on_all_sets": (
        "Gemma: of the arms that have all five sets and know what they were told in the causal and the "
        "three spurious ones, none but attention alone has City-Language at most "
        f"{CITY_LIMIT} and the three spurious sets together, as the mean of their runs, at least "
        f"{CHANCE_LEFT} (added before the runs of the other sets)"
    ),
    "gemma_attention_separates_on_all_sets": (
        "Gemma: attention alone, trained twice as long, has the three spurious sets together, as the mean "
        f"of their runs, at least at {CHANCE_LEFT}, City-Language at most at {CITY_LIMIT}, and the "
        f"counterfactual languages at least at {CHANCE_LEFT} (added before the run of the last, when the "
        "others were known)"
    ),
    "gemma_ov_longer_separates": (
        "Gemma: v and o alone, trained twice as long, know all that they were told in the causal and the "
        f"three spurious sets, and have City-Language at most {CITY_LIMIT} and the spurious ones together at "
        f"least {CHANCE_LEFT}: what attention does not deduce needs no change of q and k (added before its "
        "runs)"
    ),
    "gemma_ov_deduces_more_than_attention": (
        "Gemma: v and o alone, trained twice as long, have Profession-Color at a lower mean rank than "
        "attention alone, trained as long, in each of three seeds: it is training q and k too that leaves "
        "colors at chance (added when the first seed of v and o had ended at 1.43, before the others)"
    ),
    "gemma_small_updates_deduce_less_at_own_rates": (
        "Gemma: Compacter, Compacter++ and LoRA-Mixer at their own rates and LoKr each: the three spurious "
        "sets together have a higher mean rank than with LoRA of rank 8 at its own (added before their runs)"
    ),
    "gemma_orders_arms_as_smollm2": (
        "Profession-Color: the rank correlation of the arms' mean ranks on Gemma with those on SmolLM2, at "
        f"the end, mean over seeds, is at least {ALIKE_ORDER}"
    ),
}


def runs(seed: int) -> Iterator[PlannedRun]:
    """Every arm on a spurious set, then on the causal one; of seed 0 then on the other three."""
    for data in SETS if seed else ALL_SETS:
        for arm, training in ARMS.items():
            yield PlannedRun("parts", f"{data}--{arm}", recipe(data, seed, **training))
    for data in SETS:
        for arm, training in (FURTHER_SEEDS if seed else FURTHER | FURTHER_SEEDS).items():
            yield PlannedRun("parts", f"{data}--{arm}", recipe(data, seed, **training))


def runs_of_gemma(seed: int) -> Iterator[PlannedRun]:
    """Every arm on a spurious and on the causal set, then the one that needed longer.

    Attention alone for longer, which separated, has all weights beside it in two more seeds, and in the first
    two more spurious sets. One arm of each kind then has all five sets; v and o two more seeds of the first.
    """
    beside = ("full", LONGER)
    if seed:
        cells = [*itertools.product(SETS, beside), (SETS[0], OV_LONGER)]
    else:
        cells = [*itertools.product(SPURIOUS[1:], beside), *itertools.product(SETS, (*ARMS, LONGER))]
        cells += [cell for cell in itertools.product(ALL_SETS, ON_ALL_SETS) if cell not in cells]
    for data, arm in cells:
        training = (ARMS | ON_ALL_SETS)[arm]
        config = recipe(data, seed, model=GEMMA, log_every=SELDOM, **at_gemmas_rate(training))
        yield PlannedRun("parts_gemma", f"{data}--{arm}", config)


PILOT_RATES = (1e-3, 3e-3, 1e-2)


def pilots(seed: int) -> Iterator[PlannedRun]:
    """The pilot of the rates: facts of a seed of its own, measured before and after 60 steps."""
    for method in ("compacter", "compacter_plus", "lokr"):
        for lr in PILOT_RATES:
            config = recipe(SETS[0], seed, method=method, lr=lr, steps=60, log_every=60)
            yield PlannedRun("pilot", f"{method}--lr{lr:g}", config)


def pilots_of_gemma(seed: int) -> Iterator[PlannedRun]:
    """The pilot of Gemma's rates, measured before and after."""
    for arm, rates in GEMMA_PILOT_RATES.items():
        for lr in (ARMS[arm]["lr"], *rates):
            config = recipe(SETS[0], seed, model=GEMMA, log_every=STEPS, **{**ARMS[arm], "lr": lr})
            yield PlannedRun("pilot_parts_gemma", f"{arm}--lr{lr:g}", config)


STUDY = Study("parts", "Which parts, and which parameterisation, deduce?", CRITERIA, runs, (0, 1))
ON_GEMMA = Study(
    "parts_gemma", "Do the same parts of Gemma deduce?", GEMMA_CRITERIA, runs_of_gemma, (0, 1, 2)
)
PILOT = Study("pilot", "Which rate fits the told facts?", {}, pilots, (PILOT_SEED,))
PILOT_ON_GEMMA = Study(
    "pilot_parts_gemma", "Which rate fits what is told on Gemma?", {}, pilots_of_gemma, (PILOT_SEED,)
)
