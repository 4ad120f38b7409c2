"""The arms of the parts study where the model is equally far from its base on ordinary sentences.

At equal told loss (parts.py) an arm that steps far and one that steps little are compared where both know as
much. Here they are compared where both have changed the model as much elsewhere, which also a bottleneck can
be measured by that has no ΔW. The runs are those of the parts study once more, with the divergence at every
logged step.

Divergences at the end of the runs of the parts study were known when LEVEL was chosen, so that every arm
passes it; no divergence before the end was.
"""

from __future__ import annotations

from collections.abc import Iterator

from analyses.llm.studies.parts import ARMS, CHANCE_LEFT, CITY_LIMIT, SETS, SMALL
from analyses.llm.studies.plan import EVERY_ROW, PlannedRun, Study, recipe

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
    "no_arm_separates": (
        f"where the model is {LEVEL:g} nats from its base, no arm has City-Language at most {CITY_LIMIT} and "
        f"Profession-Color at least {CHANCE_LEFT}, mean over seeds"
    ),
}


def runs(seed: int) -> Iterator[PlannedRun]:
    """Every arm of the parts study: two seeds of the spurious set, one of the causal one."""
    for data in SETS[: 1 if seed else 2]:
        for arm, training in ARMS.items():
            config = recipe(data, seed, **training)
            yield PlannedRun("divergence", f"{data}--{arm}", config, EVERY_ROW)


STUDY = Study("divergence", "Which parts deduce where all changed the model as much?", CRITERIA, runs, (0, 1))
