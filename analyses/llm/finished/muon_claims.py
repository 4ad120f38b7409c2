"""The claims of `llm.figures` about Muon against AdamW in SmolLM2-135M, at batch 24 and at batch 8.

A trial with one seed at batch 24 was known when the criteria were written. The criteria at batch 8 against a
slower AdamW and at equal fit were written when its first five runs were known, those against the slowest
AdamW when one seed of the slower one was known.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyses.house.claims import Claim
from analyses.llm.finished.criteria import FITTED, SMALL, llm_claim
from analyses.llm.finished.optimizers import (
    BATCHES,
    CAUSAL,
    SPURIOUS,
    common_seeds,
    last_common_step,
    matched,
)
from analyses.llm.finished.results import FACTS, HELD_OUT, TOLD_LOGPROB, Group, Kind
from analyses.llm.table_1 import OTHER_RATES, SLOWER_RATE

PICTURE = "llm_optimizers"
SMALL_BATCH, LARGE_BATCH = BATCHES


def muon_claims(groups: dict[Kind, Group]) -> list[Claim | None]:
    """All claims; None for a claim without its runs."""
    return [
        same_steps(groups),
        same_fit(groups, LARGE_BATCH),
        slower_adamw(groups, LARGE_BATCH),
        causal(groups, LARGE_BATCH),
        small_batch(groups),
        same_fit(groups, SMALL_BATCH),
        slower_adamw(groups, SMALL_BATCH),
        slower_adamw(groups, SMALL_BATCH, OTHER_RATES[0], "slowest_adamw"),
        causal(groups, SMALL_BATCH),
    ]


def _name(what: str, batch: int) -> str:
    return f"muon_{what}" if batch == LARGE_BATCH else f"muon_batch_{batch}_{what}"


def _pairs(groups: dict[Kind, Group], batch: int) -> dict[str, dict[str, Group]] | None:
    """Both optimizers of both spurious sets; None unless all are there."""
    found = {data: pair for data in SPURIOUS if (pair := matched(groups, data, batch)) is not None}
    return found if len(found) == len(SPURIOUS) else None


def _gaps(pair: dict[str, Group]) -> tuple[list[float], int, float]:
    """Muon's held-out rank minus the other's by seed, the step (last common one), largest fact rank."""
    muon, other = pair.values()
    step = last_common_step(pair.values())
    gaps = np.subtract(muon.at_step(step, HELD_OUT), other.at_step(step, HELD_OUT)).tolist()
    return gaps, step, max(max(group.at_step(step, FACTS)) for group in pair.values())


def same_steps(groups: dict[Kind, Group]) -> Claim | None:
    """Muon against AdamW after the same number of steps at batch 24."""
    found = _pairs(groups, LARGE_BATCH)
    if found is None:
        return None
    measured: dict[str, Any] = {}
    holds = []
    for data, pair in found.items():
        gap = pair["muon"].difference(pair["adamw"])
        assert gap is not None  # matched: the same seeds
        gaps = pair["muon"].differences(pair["adamw"])
        facts = max(max(group.by_seed("held_out_fact")) for group in pair.values())
        holds.append(gap.low > 0 and min(gaps) > 0 and facts <= FITTED)
        measured[f"muon_minus_adamw_{data}"] = gaps
        measured[f"interval_{data}"] = [gap.low, gap.high]
        measured |= {f"ov_change_{name}_{data}": group.update_size() for name, group in pair.items()}
        measured[f"largest_fact_rank_{data}"] = facts
    return llm_claim(
        _name("same_steps", LARGE_BATCH),
        ", batch 24, 50 steps, nominal rate 1e-4: Muon hallucinates less than AdamW on spurious pairs, told "
        "facts ranked first by both",
        "ours, from a trial with one seed",
        "95 % interval of the difference of held-out mean ranks (Muon minus AdamW) above 0 for every "
        f"spurious set, and every seed's, with told facts <= {FITTED}",
        measured,
        all(holds),
        PICTURE,
    )


def small_batch(groups: dict[Kind, Group]) -> Claim | None:
    """Muon against AdamW at batch 8, at the last step at which both were measured."""
    found = _pairs(groups, SMALL_BATCH)
    if found is None:
        return None
    measured: dict[str, Any] = {}
    holds = []
    for data, pair in found.items():
        gaps, step, facts = _gaps({"muon": pair["muon"], "adamw": pair["adamw"]})
        holds.append(min(gaps) > 0 and facts <= FITTED)
        measured |= {f"muon_minus_adamw_{data}": gaps, f"steps_{data}": step}
        measured[f"largest_fact_rank_{data}"] = facts
        measured |= {f"ov_change_{name}_{data}": group.update_size() for name, group in pair.items()}
    return llm_claim(
        f"muon_batch_{SMALL_BATCH}",
        ", batch 8, same steps and nominal rate: Muon hallucinates less than AdamW on spurious pairs",
        "ours",
        "the difference of held-out mean ranks (Muon minus AdamW) is above 0 for every spurious set and "
        f"seed, with told facts <= {FITTED} in every run",
        measured,
        all(holds),
        PICTURE,
    )


def same_fit(groups: dict[Kind, Group], batch: int) -> Claim | None:
    """Muon at its end against AdamW when it had the same rank on told implications."""
    found = _pairs(groups, batch)
    if found is None:
        return None
    measured: dict[str, Any] = {}
    gaps: list[float] = []
    for data, pair in found.items():
        reached = pair["muon"].by_seed("training_implication", "logprob")
        then = pair["adamw"].when(TOLD_LOGPROB, reached, HELD_OUT)
        of_data = np.subtract(pair["muon"].by_seed(), then).tolist()
        gaps += of_data
        measured |= {f"muon_minus_adamw_{data}": of_data, f"told_logprob_{data}": reached}
    return llm_claim(
        _name("same_fit", batch),
        f", batch {batch}: Muon hallucinates less than AdamW on spurious pairs where both know the told "
        "implications equally well",
        "ours",
        "Muon's final held-out mean rank is above AdamW's at the moment when it reached Muon's final "
        "log-probability of told implications (between logged steps linearly; its end, if it never did), "
        "every spurious set and seed",
        measured,
        min(gaps) > 0,
        PICTURE,
    )


def slower_adamw(
    groups: dict[Kind, Group], batch: int, rate: float = SLOWER_RATE, name: str = "slower_adamw"
) -> Claim | None:
    """The alternative explanation: at the same nominal rate, Muon's updates are smaller."""
    pairs = {
        data: common_seeds(
            {
                "muon": groups.get(Kind(data, optimizer="muon", batch=batch)),
                "slower": groups.get(Kind(data, lr=rate, batch=batch)),
            }
        )
        for data in SPURIOUS
    }
    measured: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    for data, pair in pairs.items():
        if pair is None:
            return None
        measured[f"muon_minus_slower_adamw_{data}"], step, facts = _gaps(pair)
        changes |= {f"ov_change_{name}_{data}": group.update_size() for name, group in pair.items()}
        changes |= {f"largest_fact_rank_{data}": facts, f"step_{data}": step}
    least = min(min(gaps) for gaps in measured.values())
    about = "change about as much" if batch == LARGE_BATCH else "change less"
    return llm_claim(
        _name(name, batch),
        f", batch {batch}, same steps: Muon at 1e-4 hallucinates less than AdamW at {rate:g}, whose "
        f"OV circuits {about}",
        "ours: a smaller update as the rival explanation",
        "the difference of held-out mean ranks is above 0 for every spurious set and seed",
        measured | changes,
        least > 0,
        PICTURE,
    )


def causal(groups: dict[Kind, Group], batch: int) -> Claim | None:
    """Whether Muon also deduces the causal implication, which follows from the facts alone."""
    pair, control = matched(groups, CAUSAL, batch), groups.get(Kind(CAUSAL, control="facts_only"))
    if pair is None or control is None:
        return None
    gap = pair["muon"].difference(pair["adamw"])
    assert gap is not None  # matched: the same seeds
    facts = max(max(group.by_seed("held_out_fact")) for group in pair.values())
    return llm_claim(
        _name("causal", batch),
        f", batch {batch}, at the end: Muon knows the causal implication (City-Language, which facts alone "
        "give too) as well as AdamW",
        "ours, from a trial with one seed",
        f"upper end of the 95 % interval of the difference (Muon minus AdamW) <= {SMALL}, with told facts "
        f"<= {FITTED} in every run",
        {
            "difference": gap.mean,
            "interval": [gap.low, gap.high],
            "rank_muon": pair["muon"].by_seed(),
            "rank_adamw": pair["adamw"].by_seed(),
            "rank_facts_only": control.by_seed(),
        },
        gap.high <= SMALL and facts <= FITTED,
        PICTURE,
    )
