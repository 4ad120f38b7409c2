"""Recall against deduction: whose answer is first when what is told contradicts what is known?

The one-layer model with a pretrained base says (docs/theory.md, prior knowledge): the pretrained answer of an
untold name comes first, as soon as its fact is known; the told pairing overtakes it later, the sooner the
more names it is told of, and not at all without any.
"""

from __future__ import annotations

from collections.abc import Iterator

from analyses.llm.studies.plan import SMOLLM2, PlannedRun, Study, recipe

COUNTERFACTUAL = "city_language_counterfactual"
SHARES = (0.0, 0.1, 0.2, 0.4)
RATES = (3e-5, 1e-4)
KNOWN = 0.1
"""Mean rank of facts up to which they are known."""

CRITERIA = {
    "told_first_rises_with_share": (
        "held-out counterfactual names: the share whose told answer is first rises with the told share 0, "
        "0.1, 0.2, 0.4 (mean over seeds, at the end)"
    ),
    "pretrained_first_falls_with_share": "the share whose pretrained answer is first falls, likewise",
    "pretrained_then_told": (
        f"at a told share of 0.4: at the first measurement with facts at a mean rank of at most {KNOWN} the "
        "pretrained answer is first more often than at the end, in every seed"
    ),
    "slower_rate_recalls": (
        "at a told share of 0.2 the rate 3e-5 leaves the pretrained answer first more often than 1e-4, at "
        "the end, in every seed"
    ),
}


def runs(seed: int) -> Iterator[PlannedRun]:
    """Told shares at the usual rate, and the slower rate at the usual share."""
    for share in SHARES:
        yield PlannedRun("recall", f"{SMOLLM2}--share{share:g}", recipe(COUNTERFACTUAL, seed, share=share))
    slow = recipe(COUNTERFACTUAL, seed, lr=RATES[0])
    yield PlannedRun("recall", f"{SMOLLM2}--share0.2--lr{RATES[0]:g}", slow)


STUDY = Study("recall", "Whose answer is first, against told share, steps and rate?", CRITERIA, runs)
