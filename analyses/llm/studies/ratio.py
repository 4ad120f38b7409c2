"""Does the told share decide, or the number of told names? What the one-layer model says of it.

At the saddle that gradient descent of the one-layer model reaches, β is what is deduced over what is told.
It knows the told and the untold names by their ratio: 0.74, 0.74 and 0.73 for 2 of 10, 4 of 20 and 8 of 40
names of five pairs, 1.00 for 4 of 8 and 0.61 for 4 of 40 (`theory.saddle_solution`). So telling the same
four names must do less where more names are untold, and a share must do the same in small and large sets.

All weights of SmolLM2, Profession-Color, eight passes through the data and at least 120 steps, compared at
equal told loss. 4 of 20 is an arm of the parts study.
"""

from __future__ import annotations

from collections.abc import Iterator

from analyses.llm.studies.parts import MATCHED
from analyses.llm.studies.plan import STEPS, PlannedRun, Study, recipe

DATA = "profession_color"
N_PAIRS, BATCH, PASSES = 5, 8, 8
MEASUREMENTS = 6
ARMS = {"2of10": (2, 10), "8of40": (8, 40), "4of8": (4, 8), "4of40": (4, 40)}
"""Name -> told names and all names of a pair."""
BORROWED, BORROWED_ARM = "4of20", "profession_color--full"
"""The arm that is the parts study's, and its name there."""
SAME_SHARE, SAME_COUNT = ("2of10", "4of20", "8of40"), ("4of8", "4of20", "4of40")
"""Arms that tell a fifth of the names; arms that tell four, the largest share first."""
ALIKE = 0.3
"""Difference of held-out mean ranks up to which arms are alike."""

CRITERIA = {
    "same_share_deduces_alike": (
        f"where a told implication costs {MATCHED:g} nats, 2 of 10, 4 of 20 and 8 of 40 told have held-out "
        f"mean ranks within {ALIKE} of each other, mean over seeds"
    ),
    "same_count_deduces_less_of_more": (
        "at equal told loss the held-out mean rank rises from 4 of 8 told to 4 of 20 and to 4 of 40, every "
        "seed"
    ),
    "share_rather_than_count": (
        "the largest difference between arms of the same share is smaller than that between arms of the same "
        "count, mean over seeds"
    ),
}


def runs(seed: int) -> Iterator[PlannedRun]:
    """Every size of the set."""
    for name, (told, names) in ARMS.items():
        steps = max(STEPS, N_PAIRS * (told + names) * PASSES // BATCH)
        config = recipe(
            DATA, seed, n_names=names, share=told / names, steps=steps, log_every=steps // MEASUREMENTS
        )
        yield PlannedRun("ratio", name, config)


STUDY = Study("ratio", "Does the told share decide, or the number of told names?", CRITERIA, runs, (0, 1))
