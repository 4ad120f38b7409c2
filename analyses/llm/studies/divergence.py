"""The arms of the parts study where the model is equally far from its base on ordinary sentences.

At equal told loss (parts.py) an arm that steps far and one that steps little are compared where both know as
much. Here they are compared where both have changed the model as much elsewhere, which also a bottleneck can
be measured by that has no ΔW. The runs are those of the parts study once more, with the divergence at every
logged step.

Divergences at the end of the runs of the parts study were known when LEVEL was chosen, and MLPs alone end
below it on this set; no divergence before the end was known. The first two runs then showed that LEVEL is
passed within 20 steps, before anything is learned. So City-Language, which was planned with one seed and a
claim that no arm separates there, was left out before any of its runs; the two other claims stand as they
were written.
"""

from __future__ import annotations

from collections.abc import Iterator

from analyses.llm.studies.parts import ARMS, SETS, SMALL
from analyses.llm.studies.plan import EVERY_ROW, PlannedRun, Study, recipe

DATA = SETS[0]
LEVEL = 0.15
"""Nats a token from the base model on ordinary sentences at which arms are compared."""
ALIKE_ORDER = 0.5
"""Rank correlation from which two ways of matching order the arms alike."""

CRITERIA = {
    "matching_does_not_order_the_arms": (
        "Profession-Color: the arms' mean ranks at equal divergence and at equal told loss, mean over seeds, "
        f"of the arms that come to both in every seed, have a rank correlation of at least {ALIKE_ORDER}"
    ),
    "small_updates_deduce_less": (
        f"Profession-Color: {', '.join(SMALL[:-1])} and {SMALL[-1]} each have a higher mean rank than all "
        f"weights where the model is {LEVEL:g} nats from its base, mean over seeds"
    ),
}


def runs(seed: int) -> Iterator[PlannedRun]:
    """Every arm of the parts study on its first spurious set."""
    for arm, training in ARMS.items():
        yield PlannedRun("divergence", f"{DATA}--{arm}", recipe(DATA, seed, **training), EVERY_ROW)


STUDY = Study("divergence", "Which parts deduce where all changed the model as much?", CRITERIA, runs, (0, 1))
