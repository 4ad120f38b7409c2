"""What figure_llm claims of SmolLM2-135M. Seed 0 of the five data sets was known when these criteria were
written, nothing else: controls, other seeds, rates, LoRA and Muon came after."""

from __future__ import annotations

from typing import Any

import numpy as np
from claims_file import Claim
from figure_llm_optimizers import BATCHES, CAUSAL, FACTS, HELD_OUT, SPURIOUS, last_common_step, matched
from llm_results import CHANCE, NAMES, Group, Kind

SCRIPT = "figure_llm"
RATES = (3e-5, 1e-4, 3e-4)
FITTED = 0.05
"""Mean rank of told facts up to which a model knows them."""

SMALL = 0.3
"""Mean rank up to which held-out implications are deduced."""


def claims(groups: dict[Kind, Group]) -> list[Claim]:
    """All of them; one without its runs is left out."""
    made = [
        generalization(groups),
        *(exceeds_control(groups, data) for data in NAMES),
        unbiased(groups),
        rates(groups),
        *(lora(groups, data) for data in NAMES),
        muon(groups),
        muon_small_batch(groups),
        muon_generalizes(groups),
    ]
    return [claim for claim in made if claim is not None]


def _rounded(values: Any) -> Any:
    return [float(f"{value:.4g}") for value in values]


def generalization(groups: dict[Kind, Group]) -> Claim | None:
    """City-Language: the held-out language is known."""
    group = groups.get(Kind(CAUSAL))
    if group is None:
        return None
    ranks, facts = group.by_seed(), group.by_seed("held_out_fact")
    return Claim(
        "llm_generalization",
        "SmolLM2-135M, City-Language: the language that was never told is known, every seed",
        "the paper, Table 1 (causal pairs)",
        f"held-out mean rank <= {SMALL} of {CHANCE:g} (chance) with told facts <= {FITTED}, every seed",
        {"held_out_rank": _rounded(ranks), "fact_rank": _rounded(facts)},
        0.0,
        max(ranks) <= SMALL and max(facts) <= FITTED,
        SCRIPT,
        "table_1_llm",
    )


def exceeds_control(groups: dict[Kind, Group], data: str) -> Claim | None:
    """Whether told implications matter for those that are not told."""
    told, control = groups.get(Kind(data)), groups.get(Kind(data, control="facts_only"))
    if told is None or control is None:
        return None
    found = told.difference(control)
    return Claim(
        f"llm_exceeds_control_{data}",
        f"SmolLM2-135M, {NAMES[data]}: with told implications the untold ones rank better than with facts "
        "alone, so that this is out-of-context reasoning",
        "ours: what exceeds the facts-only control",
        "95 % interval of the difference of mean ranks, name by name over pairs and seeds, below 0",
        {
            "difference": float(f"{found.mean:.4g}"),
            "interval": _rounded((found.low, found.high)),
            "rank_told": _rounded(told.by_seed()),
            "rank_facts_only": _rounded(control.by_seed()),
        },
        0.0,
        found.high < 0,
        SCRIPT,
        "table_1_llm",
    )


def unbiased(groups: dict[Kind, Group]) -> Claim | None:
    """Randomly assigned implications: nothing can be deduced."""
    found = {data: groups.get(Kind(data, control="random_implications")) for data in NAMES}
    intervals = {data: group.interval() for data, group in found.items() if group is not None}
    if not intervals:
        return None
    return Claim(
        "llm_random_control",
        "SmolLM2-135M, implications assigned at random: held-out mean rank is chance in every data set",
        "ours: a check of the metric",
        f"the 95 % interval of every data set holds {CHANCE:g}",
        {data: _rounded((i.low, i.mean, i.high)) for data, i in intervals.items()},
        0.0,
        all(i.low <= CHANCE <= i.high for i in intervals.values()),
        SCRIPT,
        "table_1_llm",
    )


def rates(groups: dict[Kind, Group]) -> Claim | None:
    """Generalization against hallucination over learning rates."""
    pair = (CAUSAL, f"{CAUSAL}_counterfactual")
    kinds = [Kind(data, lr=lr) for data in pair for lr in RATES]
    if not all(kind in groups for kind in kinds):
        return None
    means = {data: [float(np.mean(groups[Kind(data, lr=lr)].by_seed())) for lr in RATES] for data in pair}
    spread = {data: max(values) - min(values) for data, values in means.items()}
    return Claim(
        "llm_learning_rate",
        "SmolLM2-135M: generalization (City-Language) is more robust to the learning rate than "
        "hallucination (its counterfactual)",
        "ours, from a trial with one seed",
        "largest minus smallest mean rank over rates 3e-5, 1e-4 and 3e-4 is smaller for City-Language",
        {name: _rounded(values) for name, values in means.items()}
        | {f"spread_{name}": float(f"{value:.3g}") for name, value in spread.items()},
        0.0,
        spread[pair[0]] < spread[pair[1]],
        SCRIPT,
        "llm_learning_rate",
    )


def lora(groups: dict[Kind, Group], data: str) -> Claim | None:
    """Low-rank updates against all weights."""
    low_rank, full = groups.get(Kind(data, method="lora", lr=1e-3)), groups.get(Kind(data))
    if low_rank is None or full is None:
        return None
    found = low_rank.difference(full)
    return Claim(
        f"llm_lora_{data}",
        f"SmolLM2-135M, {NAMES[data]}: LoRA of rank 8 ends where full fine-tuning does",
        "ours",
        "95 % interval of the difference of mean ranks (LoRA minus full) holds 0",
        {
            "difference": float(f"{found.mean:.4g}"),
            "interval": _rounded((found.low, found.high)),
            "rank_lora": _rounded(low_rank.by_seed()),
            "fact_rank_lora": _rounded(low_rank.by_seed("held_out_fact")),
        },
        0.0,
        found.low <= 0 <= found.high,
        SCRIPT,
        "table_1_llm",
    )


def muon(groups: dict[Kind, Group]) -> Claim | None:
    """Whether Muon hallucinates less than AdamW, matched in batch, steps, rate, seeds and fit."""
    found = {data: pair for data in SPURIOUS if (pair := matched(groups, data, BATCHES[1])) is not None}
    if not found:
        return None
    measured: dict[str, Any] = {}
    holds = []
    for data, pair in found.items():
        gap = pair["muon"].difference(pair["adamw"])
        facts = {name: max(group.by_seed("held_out_fact")) for name, group in pair.items()}
        holds.append(gap.low > 0 and max(facts.values()) <= FITTED)
        measured[f"muon_minus_adamw_{data}"] = float(f"{gap.mean:.4g}")
        measured[f"interval_{data}"] = _rounded((gap.low, gap.high))
        measured |= {f"fact_rank_{name}_{data}": float(f"{value:.4g}") for name, value in facts.items()}
    return Claim(
        "llm_muon",
        "SmolLM2-135M, batch 24: Muon hallucinates less than AdamW on spurious pairs, at the same batch, "
        "steps, rate and fit of the facts",
        "ours, from a trial with one seed",
        "95 % interval of the difference of held-out mean ranks (Muon minus AdamW) above 0 for every "
        f"spurious set, with told facts <= {FITTED} in every run",
        measured,
        0.0,
        all(holds),
        SCRIPT,
        "llm_optimizers",
    )


def muon_small_batch(groups: dict[Kind, Group]) -> Claim | None:
    """The same at batch 8, at the last step that both were measured at."""
    found = {data: pair for data in SPURIOUS if (pair := matched(groups, data, BATCHES[0])) is not None}
    if not found:
        return None
    measured: dict[str, Any] = {}
    holds = []
    for data, pair in found.items():
        step = last_common_step(pair)
        ranks = {name: group.at_step(step, HELD_OUT) for name, group in pair.items()}
        facts = max(max(group.at_step(step, FACTS)) for group in pair.values())
        gaps = np.subtract(ranks["muon"], ranks["adamw"])
        holds.append(gaps.min() > 0 and facts <= FITTED)
        measured[f"muon_minus_adamw_{data}"] = _rounded(gaps)
        measured[f"largest_fact_rank_{data}"] = float(f"{facts:.4g}")
        measured[f"steps_{data}"] = step
    return Claim(
        "llm_muon_batch_8",
        "SmolLM2-135M, batch 8: Muon hallucinates less than AdamW on spurious pairs, at the same batch, "
        "steps and rate",
        "ours",
        "the difference of held-out mean ranks (Muon minus AdamW) is above 0 for every spurious set and "
        f"seed, with told facts <= {FITTED} in every run",
        measured,
        0.0,
        all(holds),
        SCRIPT,
        "llm_optimizers",
    )


def muon_generalizes(groups: dict[Kind, Group]) -> Claim | None:
    """Whether Muon keeps the causal implication."""
    pair = matched(groups, CAUSAL, BATCHES[1])
    if pair is None:
        return None
    gap = pair["muon"].difference(pair["adamw"])
    facts = {name: max(group.by_seed("held_out_fact")) for name, group in pair.items()}
    return Claim(
        "llm_muon_generalizes",
        "SmolLM2-135M, batch 24: Muon knows the causal implication as well as AdamW",
        "ours, from a trial with one seed",
        f"upper end of the 95 % interval of the difference (Muon minus AdamW) <= {SMALL}, with told facts "
        f"<= {FITTED} in every run",
        {
            "difference": float(f"{gap.mean:.4g}"),
            "interval": _rounded((gap.low, gap.high)),
            "rank_muon": _rounded(pair["muon"].by_seed()),
            "rank_adamw": _rounded(pair["adamw"].by_seed()),
        }
        | {f"fact_rank_{name}": float(f"{value:.4g}") for name, value in facts.items()},
        0.0,
        gap.high <= SMALL and max(facts.values()) <= FITTED,
        SCRIPT,
        "llm_optimizers",
    )
