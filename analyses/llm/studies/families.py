"""Two families: the five sets on Gemma 3 270M, beside facts alone; SmolLM2's runs are Table 1's."""

from __future__ import annotations

from collections.abc import Iterator

from analyses.llm.studies.plan import GEMMA, PlannedRun, Study, recipe

CITY = "city_language"
COUNTERFACTUAL = "city_language_counterfactual"
SPURIOUS = ("profession_color", "country_code", "sport_music")
DATA = (CITY, COUNTERFACTUAL, *SPURIOUS)
SELDOM = 40
"""Steps between measurements, each of which costs as much as ten steps."""
CITY_LIMIT = 0.3
"""Held-out mean rank up to which City-Language counts as generalized, the target of this project."""

CRITERIA = {
    "city_language_on_both_models": (
        f"City-Language has a held-out mean rank of at most {CITY_LIMIT} in every seed, on both models"
    ),
    "spurious_below_facts_only": (
        "on each model the three spurious sets together: held-out mean rank told minus facts only, one mean "
        "of the three sets per seed, is below 0 with the 95 % t interval over seeds excluding 0"
    ),
    "counterfactual_below_facts_only": "the same for the counterfactual set, every seed below 0, each model",
    "larger_model_follows_told": (
        "held-out counterfactual answers: the told one is first more often on Gemma than on SmolLM2, every "
        "seed (the trial had ranks of 0.61 and 1.81 on one seed)"
    ),
}


def runs(seed: int) -> Iterator[PlannedRun]:
    """Both arms of every set."""
    for control in ("none", "facts_only"):
        for data in DATA:
            arm = f"{GEMMA}--{data}" + ("" if control == "none" else f"--{control}")
            config = recipe(data, seed, model=GEMMA, control=control, log_every=SELDOM)
            yield PlannedRun("families", arm, config)


STUDY = Study("families", "Does a second family of models do the same?", CRITERIA, runs)
