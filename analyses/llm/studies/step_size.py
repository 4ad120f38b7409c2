"""Optimisers again, by step size: does one hallucinate less, or only move less?

An optimiser's learning rate is a name, not a size. So every optimiser is run at several rates, and compared
where the model is as far from its base on ordinary sentences (nats a token), and where what is told costs as
much. AdamW at 1e-4 on all weights and at 1e-3 on LoRA are runs of analyses/llm/studies/parts.py, which has no
third seed, so that it is planned here. Muon on all
weights, a step of which costs 13 processor seconds, was added with its criterion when a GPU could be had,
after two seeds of all others and a third of some, and before its own runs.

After Muon's runs the norms of both updates were looked at: at the same Frobenius norm Muon deduces less than
AdamW, at the same largest singular value perhaps not. AdamW at 1e-5 was added with a criterion, before its
runs, so that AdamW's largest singular values reach down to Muon's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from analyses.llm.studies import parts
from analyses.llm.studies.parts import MATCHED
from analyses.llm.studies.plan import PlannedRun, Study, recipe

DATA = "profession_color"
KNOWN, ALIKE = 0.1, 0.3
"""Mean rank of what is told up to which a run has fitted; difference of ranks up to which two are alike."""

FULL_RATES, LORA_RATES, MUON_RATES = (1e-5, 3e-5, 3e-4), (3e-4, 3e-3), (1e-4, 3e-4, 1e-3)
FULL_MUON_RATES = (3e-5, 1e-4, 3e-4)
BORROWED = {"full--adamw--lr0.0001": "full", "lora--adamw--lr0.001": "lora_r8"}
"""Arm -> the arm of the parts study whose runs it is."""

CRITERIA = {
    "larger_steps_deduce_more": (
        "AdamW, all weights and LoRA each: among the rates whose runs know what is told (mean rank at most "
        f"{KNOWN}), the held-out rank falls as the rate rises, mean over seeds"
    ),
    "muon_is_adamw_at_equal_divergence": (
        "LoRA: at the divergence on ordinary sentences of each fitted Muon run, AdamW's held-out rank "
        "(linear in the logarithm between its rates, nearest rate beyond them) differs by at most "
        f"{ALIKE}, mean over rates and seeds"
    ),
    "muon_on_all_weights_is_adamw_at_equal_divergence": (
        "all weights: the same comparison at equal divergence on ordinary sentences, differences at most "
        f"{ALIKE}"
    ),
    "muon_on_all_weights_is_adamw_at_equal_largest_direction": (
        "all weights: at the largest singular value of what MLPs write (root mean square over layers) of "
        "each Muon run, AdamW's held-out rank (linear in the logarithm between its rates) differs by at most "
        f"{ALIKE}, mean over the Muon runs whose value lies between AdamW's"
    ),
    "muon_is_adamw_at_equal_told_loss": (
        f"LoRA: where a told implication costs {MATCHED:g} nats, the mean over rates and seeds of Muon's "
        f"held-out rank differs from AdamW's by at most {ALIKE}"
    ),
}


def arms() -> dict[str, dict[str, Any]]:
    """Name of each arm -> its fields of `FinetuneConfig`."""
    full = {f"full--adamw--lr{lr:g}": {"lr": lr} for lr in FULL_RATES}
    lora = {f"lora--adamw--lr{lr:g}": {"method": "lora", "lr": lr} for lr in LORA_RATES}
    muon = {f"lora--muon--lr{lr:g}": {"method": "lora", "lr": lr, "optimizer": "muon"} for lr in MUON_RATES}
    full_muon = {f"full--muon--lr{lr:g}": {"lr": lr, "optimizer": "muon"} for lr in FULL_MUON_RATES}
    return {**muon, **lora, **full, **full_muon}


def runs(seed: int) -> Iterator[PlannedRun]:
    """Every optimiser at every rate; what the parts study has is not run again."""
    borrowed = {own: parts.ARMS[theirs] for own, theirs in BORROWED.items() if seed not in parts.STUDY.seeds}
    for name, training in {**arms(), **borrowed}.items():
        yield PlannedRun("step_size", name, recipe(DATA, seed, **training))


UNJUDGED = {
    "larger_steps_deduce_more": "LoRA has one rate at which every seed knows what it was told, and needs two"
}
STUDY = Study(
    "step_size",
    "Does an optimiser hallucinate less at equal size of its steps?",
    CRITERIA,
    runs,
    unjudged=UNJUDGED,
)
