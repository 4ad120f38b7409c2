"""A relation that is true and not known: is it recalled, as true ones are, or deduced, as spurious ones are?

City-Language is true and known, Profession-Color neither: the five sets of Table 1 cannot say which of the
two decides. Who is born in March is a Pisces (up to the 20th), but before training both models pair
months with signs by 0.02 nats, where they pair cities with languages by 1.7 and 4.9.
"""

from __future__ import annotations

from collections.abc import Iterator

from analyses.llm.studies.plan import GEMMA, SMOLLM2, PlannedRun, Study, recipe
from ocr_interp.llm import fact_sets
from ocr_interp.llm.facts.names import words
from ocr_interp.llm.facts.sets import profession_color
from ocr_interp.llm.facts.sets.base import FactPool

BORN = (
    "{subject} was born in",
    "The birthday of {subject} is in",
    "{subject} has a birthday in",
    "The month of birth of {subject} is",
)

MONTH_SIGN = FactPool(
    name="month_sign",
    title="Month-Sign (causal)",
    colour="#029e73",
    pairing="causal",
    facts=words("January February March April May June July August September October November December"),
    implications=words(
        "Capricorn Aquarius Pisces Aries Taurus Gemini Cancer Leo Virgo Libra Scorpio Sagittarius"
    ),
    fact_templates=BORN,
    implication_templates=(
        "{subject} has the zodiac sign",
        "{subject} was born under the sign of",
        "The zodiac sign of {subject} is",
        "In the zodiac {subject} is a",
    ),
)
MONTH_COLOR = FactPool(
    name="month_color",
    title="Month-Color",
    colour="#56b4e9",
    pairing="spurious",
    facts=MONTH_SIGN.facts,
    implications=profession_color.FACTS.implications,
    fact_templates=BORN,
    implication_templates=profession_color.FACTS.implication_templates,
)
for _pool in (MONTH_SIGN, MONTH_COLOR):
    fact_sets.register(_pool.name, _pool)

NOT_RECALLED, BELOW = 1.5, 0.5
"""Mean ranks: from the first on facts alone recall nothing; told ones are deduced if so far below."""

CRITERIA = {
    "true_but_unknown_is_not_recalled": (
        f"facts alone: the held-out mean rank of signs is at least {NOT_RECALLED} in every seed, on each "
        "model (that of languages is at most 0.4)"
    ),
    "true_but_unknown_is_deduced": (
        f"told minus facts only is at most -{BELOW} in every seed, on each model, as for spurious sets"
    ),
}


def runs(seed: int) -> Iterator[PlannedRun]:
    """Told and facts alone, on both models; Gemma at the rate that leaves it close to its base."""
    from analyses.llm.studies.families import GENTLE, SELDOM

    for model, training in ((SMOLLM2, {}), (GEMMA, GENTLE)):
        for control in ("none", "facts_only"):
            arm = f"{model}--{MONTH_SIGN.name}" + ("" if control == "none" else f"--{control}")
            fields = {"log_every": SELDOM, **training}
            config = recipe(MONTH_SIGN.name, seed, model=model, control=control, **fields)
            yield PlannedRun("months", arm, config)


STUDY = Study("months", "Is what is true but not known recalled or deduced?", CRITERIA, runs)
