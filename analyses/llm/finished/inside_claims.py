"""The claims of `llm.inside_figures`: which part of a fine-tuned SmolLM2-135M stores the implication.

The theory says the OV circuit. The criterion was written down after the first run (Profession-Color, full)
and before the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from analyses.house.claims import Claim
from analyses.llm.finished.inside_results import N_HEADS, Runs
from analyses.llm.finished.results import CHANCE
from ocr_interp.llm.inside.cuts import DIRECTIONS

PICTURE = "llm_inside"
KEPT = 0.2
"""Largest mean rank of told facts at which a cut counts as keeping them."""

CUTS = {
    "ov": ("OV put back", None, "the OV update of all heads"),
    "mlp": ("MLP put back", None, "the update of the MLPs"),
    "heads": (
        f"{N_HEADS} most changed heads past layer 0 zeroed",
        f"{N_HEADS} other heads past layer 0, drawn at random, zeroed",
        "the heads whose OV circuits changed most (random heads come from all layers)",
    ),
    "directions": (
        f"of {N_HEADS} heads {DIRECTIONS} top directions removed",
        f"of {N_HEADS} heads {DIRECTIONS} random directions removed",
        "the top directions of the OV updates",
    ),
}
"""A cut as the results name it, its random counterpart, and in words."""


def inside_claims(inspected: Sequence[Runs]) -> list[Claim]:
    """One claim per cut, over all inspected runs; empty without runs."""
    return [cut_claim(name, inspected) for name in CUTS] if inspected else []


def cut_claim(name: str, inspected: Sequence[Runs]) -> Claim:
    """Whether a cut destroys the untold implications and keeps the facts, in every run."""
    what, at_random, words = CUTS[name]
    holds, measured = [], {}
    for runs in inspected:
        cuts = runs.cuts()
        if what not in cuts:
            raise SystemExit(f"the results of {runs.key} have no cut {what!r}, they have {sorted(cuts)}")
        after, cut = cuts["after fine-tuning"]["held_out_implication"], cuts[what]
        held_out, facts = cut["held_out_implication"], cut["held_out_fact"]
        key = runs.key.replace(", ", "_")
        measured[f"untold_{key}"] = [float(f"{value:.3g}") for value in held_out]
        measured[f"facts_{key}"] = [float(f"{value:.3g}") for value in facts]
        if at_random is not None:
            random = cuts[at_random]["held_out_implication"]
            measured[f"untold_{key}_random"] = [float(f"{value:.3g}") for value in random]
        holds += [
            ranks >= (start + CHANCE) / 2 and told <= KEPT
            for start, ranks, told in zip(after, held_out, facts, strict=True)
        ]
    return Claim(
        f"llm_inside_{name}",
        f"SmolLM2-135M: without {words} the untold implication goes and the told facts stay",
        "the theory of the small model (the implication lives in the OV circuit), asked of a real one",
        f"the held-out mean rank goes at least half of the way to chance ({CHANCE:g}), the facts' stays <= "
        f"{KEPT}, in every inspected run",
        measured,
        0.0,
        all(holds),
        PICTURE,
    )
