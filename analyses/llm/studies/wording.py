"""Does the wording decide whether a spurious implication is deduced?

Two wordings that end with the answer, one with the name first and one with the name last, each trained on and
asked with; for the colors of professions and for those of cities.
"""

from __future__ import annotations

from collections.abc import Iterator

from analyses.llm.studies.plan import PlannedRun, Study, recipe

WORDINGS = (0, 2)
""""{subject} likes the color" and "The favorite color of {subject} is"."""
SETS = ("profession_color", "city_color")

CRITERIA = {
    "name_first_deduces_more": (
        "trained and asked with the name first, the held-out calibrated rank is lower than with the name "
        "last, in both sets and every seed"
    ),
    "other_wording_deduces_less": (
        "asked with the wording that was not trained, the held-out calibrated rank is higher than with the "
        "trained one, mean over sets, wordings and seeds"
    ),
}


def runs(seed: int) -> Iterator[PlannedRun]:
    """Each wording of training, asked in both wordings."""
    for data in SETS:
        for wording in WORDINGS:
            config = recipe(data, seed, train_templates=(wording,), test_templates=WORDINGS)
            yield PlannedRun("wording", f"{data}--wording{wording}", config)


STUDY = Study("wording", "Does the wording decide what is deduced?", CRITERIA, runs)
