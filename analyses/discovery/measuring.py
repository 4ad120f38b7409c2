"""The measurements of the induction circuit: one model per seed, its heads, its circuits, their controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from scipy.stats import spearmanr

from analyses.circuits import worked_models
from analyses.discovery.criteria import PROMPT_SEED, PROMPTS, RANDOM_CIRCUITS, SEARCHED, SHARE, STEPS, TOP
from analyses.discovery.heads import Roles, heads_by_pattern, roles
from analyses.discovery.kept import kept, model_of
from ocr_interp.discovery import (
    Contrast,
    EdgeScores,
    attribute_edges,
    evaluate_circuit,
    faithfulness_of,
    find_circuit,
    patch_every_edge,
)

OTHER_SEED = PROMPT_SEED + 1
"""Of the prompts that circuits are judged on."""

WAYS = {"scores": "top edges by |score|", "removal": "pruned by removal", "search": "pruned by search"}
SIZES = (5, 8, 12, 16, 20, 25, 32, 40, 50, 64, 90, 128, 180, 257)


@dataclass(frozen=True)
class Found:
    """One seed.

    Attributes:
        accuracy: of the model.
        heads: the previous-token head and the induction head, from attention patterns.
        attention: how much they attend there.
        roles: both heads by effect and weights, with controls.
        edges: way -> the circuit's edges.
        faithfulness, completeness, needed: way -> of this circuit.
        random: way -> control -> faithfulness of each random circuit.
        curve: faithfulness of the top edges of each size in SIZES, by score.
        rank_correlation, shared: scores against exact effects: over all edges, and of the largest.
        large_rank_correlation: over the edges whose exact effect is at least 1% of the measure.
    """

    seed: int
    accuracy: float
    heads: Sequence[str]
    attention: Sequence[float]
    roles: Roles
    n_edges: int
    edges: dict[str, list[str]]
    faithfulness: dict[str, float]
    completeness: dict[str, float]
    needed: dict[str, float]
    random: dict[str, dict[str, list[float]]]
    curve: list[float]
    rank_correlation: float
    shared: int
    large_rank_correlation: float


def models() -> Any:
    """The module that trains the models; tests use the same ones."""
    return worked_models


def contrast_of(model: Any, seed: int) -> Contrast:
    """Repeated random tokens, other ones as donors, and what comes next."""
    batch, generator = models().induction_batch, torch.Generator().manual_seed(seed)
    tokens, donors = (batch(PROMPTS, generator)[0] for _ in range(2))
    return Contrast.of(model, tokens[:, :-1], donors[:, :-1], tokens[:, -1])


def measured(seed: int, runs: Path) -> Found:
    """One seed, read from `runs` if it was measured there by the same code."""
    sources = ("measuring", "heads", "criteria")
    content = kept(runs / "discovery" / f"induction_{seed}.json", sources, lambda: measure(seed, runs))
    roles = Roles(**content.pop("roles"))
    return Found(roles=roles, **content)


def measure(seed: int, runs: Path) -> Found:
    """Finds the circuits of a model, which is trained if `runs` does not have it, and measures them."""
    model = model_of(seed, runs)
    contrast, others = contrast_of(model, PROMPT_SEED), contrast_of(model, OTHER_SEED)
    scores = attribute_edges(model, contrast, steps=STEPS)
    size = int(SHARE * scores.nodes.n_edges)
    circuits = {
        way: find_circuit(
            model,
            contrast.rows(slice(SEARCHED)) if way == "search" else contrast,
            size=size,
            pruning=way,
            scores=scores,
        )
        for way in WAYS
    }
    judged = {
        way: evaluate_circuit(model, circuit, others, random_circuits=RANDOM_CIRCUITS, seed=seed)
        for way, circuit in circuits.items()
    }
    exact = patch_every_edge(model, contrast)
    heads, attention = heads_by_pattern(model)
    curve = faithfulness_of(model, [scores.circuit(min(n, scores.nodes.n_edges)) for n in SIZES], others)
    all_edges, large = agreement(scores, exact)
    return Found(
        seed=seed,
        accuracy=float(models().induction_accuracy(model)),
        heads=heads,
        attention=attention,
        roles=roles(model),
        n_edges=scores.nodes.n_edges,
        edges={way: list(circuit.edges) for way, circuit in circuits.items()},
        faithfulness={way: one.faithfulness for way, one in judged.items()},
        completeness={way: one.completeness for way, one in judged.items()},
        needed={way: one.minimality() for way, one in judged.items()},
        random={way: {k: v.tolist() for k, v in one.random.items()} for way, one in judged.items()},
        curve=curve.tolist(),
        rank_correlation=all_edges,
        shared=len(set(scores.table()["edge"][:TOP]) & set(exact.table()["edge"][:TOP])),
        large_rank_correlation=large,
    )


def agreement(scores: EdgeScores, exact: EdgeScores) -> tuple[float, float]:
    """Spearman's correlation over all edges, and over those with an exact effect of 1% of the measure."""
    ours, theirs = scores.scores[scores.nodes.allowed], exact.scores[scores.nodes.allowed]
    large = np.abs(theirs) >= 0.01 * abs(exact.full - exact.empty)
    every, of_large = spearmanr(ours, theirs), spearmanr(ours[large], theirs[large])
    return float(cast(Any, every).statistic), float(cast(Any, of_large).statistic)
