"""Recall against deduction: whose answer is first when what is told contradicts what is known?

The one-layer model with a pretrained base says (docs/theory.md, prior knowledge): the pretrained answer of an
untold name comes first, as soon as its fact is known; the told pairing overtakes it later, the sooner the
more names it is told of, and not at all without any.

Gemma and the true pairing were added after SmolLM2's first seed had been seen, before their own runs. So was
the claim about pairs, before `known_before` was measured and before any run was looked at pair by pair. What
another study runs is not run again (BORROWED): Gemma's shares 0 and 0.2, SmolLM2's true pairing at 0.2.
"""

from __future__ import annotations

from collections.abc import Iterator

from analyses.llm.studies.families import GENTLE, SELDOM
from analyses.llm.studies.plan import GEMMA, SMOLLM2, PlannedRun, Study, recipe

COUNTERFACTUAL, TRUE = "city_language_counterfactual", "city_language"
SHARES = (0.0, 0.1, 0.2, 0.4)
RATES = (3e-5, 1e-4)
ADDED_SHARES = (0.1, 0.4)
BORROWED = {
    "gemma--share0": ("families", "gemma--city_language_counterfactual--facts_only--gentle"),
    "gemma--share0.2": ("families", "gemma--city_language_counterfactual--gentle"),
    "gemma--true--share0": ("families", "gemma--city_language--facts_only--gentle"),
    "gemma--true--share0.2": ("families", "gemma--city_language--gentle"),
    "smollm2--true--share0.2": ("parts", "city_language--full"),
}
"""Arm -> the study and the arm that it is of."""
USUAL = f"{SMOLLM2}--share0.2"
"""SmolLM2's counterfactual set at the share and the rate of all other studies."""
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
    "gemma_told_first_rises_with_share": (
        "Gemma: the share whose told answer is first rises with the told share 0, 0.1, 0.2, 0.4 (mean over "
        "seeds, at the end)"
    ),
    "gemma_pretrained_first_falls_with_share": "Gemma: the share whose pretrained answer is first falls",
    "true_pairing_needs_no_told": (
        "the true pairing, both models: its answer is first for at least 0.8 of the untold names at every "
        "told share, 0 too, mean over seeds"
    ),
    "better_known_is_kept": (
        "what is known better before training gives way later: over the five pairs of a run, the rank "
        "correlation of the pairing's contrast before (known_before.py) with the share of untold names whose "
        "pretrained answer is first at the end is above 0, each model, mean over the told shares 0.1, 0.2, "
        "0.4 in every seed"
    ),
}


def runs(seed: int) -> Iterator[PlannedRun]:
    """Told shares at the usual rate, the slower rate, Gemma; of seed 0 the true pairing on both too."""
    for share in SHARES:
        yield PlannedRun("recall", f"{SMOLLM2}--share{share:g}", recipe(COUNTERFACTUAL, seed, share=share))
    slow = recipe(COUNTERFACTUAL, seed, lr=RATES[0])
    yield PlannedRun("recall", f"{SMOLLM2}--share0.2--lr{RATES[0]:g}", slow)
    for share in ADDED_SHARES:
        config = recipe(COUNTERFACTUAL, seed, model=GEMMA, share=share, log_every=SELDOM, **GENTLE)
        yield PlannedRun("recall", f"{GEMMA}--share{share:g}", config)
    if seed:
        return
    for share in (0.0, *ADDED_SHARES):
        yield PlannedRun("recall", f"{SMOLLM2}--true--share{share:g}", recipe(TRUE, seed, share=share))
    for share in ADDED_SHARES:
        config = recipe(TRUE, seed, model=GEMMA, share=share, log_every=SELDOM, **GENTLE)
        yield PlannedRun("recall", f"{GEMMA}--true--share{share:g}", config)


STUDY = Study("recall", "Whose answer is first, against told share, steps and rate?", CRITERIA, runs)
