"""What the cuts must show for each claim of `llm.inside_figures`; written before the runs that it judges.

The criteria of the first version's cuts (`inside_claims.CUTS`) were written after its first run
(Profession-Color, full) and before its others. Those below were written before any run with these cuts.
"""

from __future__ import annotations

KEPT = 0.2
"""Largest mean rank of told facts at which a cut counts as keeping them."""

LOST = 1.5
"""Least mean rank from which an answer counts as lost (2 is chance)."""

LOW_RANK, CLOSE = 16, 0.3
"""Singular values of every ΔW that are asked to be enough, and how far the untold implication may be off."""

PROBE_FOUND, PROBE_BEFORE = 0.8, 0.4
"""Shares of untold names whose fact a probe must find after fine-tuning, and may find before."""

TAKEN_OVER = 1.0
"""Mean rank up to which the donor's implication counts as the answer."""

UPDATE_CRITERIA = {
    "mean_over_names": (
        "with every ΔW x replaced by its mean over names, told facts, told implications and untold "
        f"implications all have a mean rank of at least {LOST}, in every run: a shift that is the same for "
        "all names stores nothing"
    ),
    "heads_of_same_layers": (
        "zeroing random heads of the same layers costs less than zeroing the most changed heads (at most "
        "half of a layer): lower mean ranks of told facts and of untold implications, in every run, for "
        "heads of all layers and for those past layer 0"
    ),
    "low_rank": (
        f"full fine-tuning: the top {LOW_RANK} singular values of every ΔW alone keep the told facts (mean "
        f"rank at most {KEPT}) and the untold implication within {CLOSE} of the uncut model, in every run"
    ),
    "truncation_separates": (
        f"some k keeps the told facts (mean rank at most {KEPT}) and takes the untold implication at least "
        "half of the way to chance, by keeping the top k or by removing them, in every run of "
        "Profession-Color (if it fails, truncation is no mitigation)"
    ),
}

LAYER_CRITERIA = {
    "probes": (
        "after fine-tuning, probes find the fact of an untold name at the last token of its implication's "
        f"prompt, after some layer, in at least {PROBE_FOUND} of the names for Profession-Color; "
        f"before, nowhere in more than {PROBE_BEFORE} (chance 0.2)"
    ),
    "patching": (
        f"the donor's implication has a mean rank of at most {TAKEN_OVER:g} when the stream at the name's "
        f"last token is the donor's, after some layer, and at least {LOST} after the last layer: the name's "
        "information moves from the name to the last token"
    ),
}
"""Of the runs that are probed and patched by layer; written before any of them."""
