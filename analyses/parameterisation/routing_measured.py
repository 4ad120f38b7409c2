"""What is measured of the runs of one kind of routing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from analyses.parameterisation.routing_criteria import SIZES
from ocr_interp import FactRecallTask, Run
from ocr_interp.maps.routed import ROUTER, Routed

TASK = FactRecallTask(*SIZES, n_noise=0, seq_len=3)


@dataclass(frozen=True)
class Measured:
    """What was measured of the runs of one kind of routing; a list has one entry per seed.

    Attributes:
        accuracy: of held-out implications, among implications.
        beta: held-out coefficient.
        train_margin: smallest training margin, logits.
        with_told: accuracy of the held-out subjects whose expert has a told subject of their pair; None if
            there is none such, or routing is not by subject.
        without_told: of the others.
        share: share of the first.
        distance: between the mixtures of r1 and r2, of a learned router.
        score: smallest mean score of an expert.
        by_relation: accuracy of every implied relation's untold implications, if there are several.
    """

    accuracy: list[float]
    beta: list[float]
    train_margin: list[float]
    with_told: list[float | None]
    without_told: list[float | None]
    share: list[float | None]
    distance: list[float | None]
    score: list[float]
    by_relation: dict[str, list[float]]


def measure(runs: Sequence[Run]) -> Measured:
    """The measurements of some runs."""
    split = [_split(run) for run in runs]
    last = [run.history.iloc[-1] for run in runs]
    n_experts = sum(str(name).endswith("/share") for name in last[0].index)
    scores = [f"expert{expert}/score" for expert in range(n_experts)]
    return Measured(
        accuracy=[float(row["held_out_implication/accuracy_in_set"]) for row in last],
        beta=[float(row["beta"]) for row in last],
        train_margin=[float(row["train_margin"]) for row in last],
        with_told=[found[0] for found in split],
        without_told=[found[1] for found in split],
        share=[found[2] for found in split],
        distance=[distance_of_relations(run) for run in runs],
        score=[float(row[scores].min()) for row in last],
        by_relation={
            relation: [float(row[f"held_out_implication/{relation}/accuracy_in_set"]) for row in last]
            for relation in ("r2", "r3")
            if f"held_out_implication/{relation}/accuracy_in_set" in last[0]
        },
    )


def _routed(run: Run) -> Routed:
    linear_map = run.weights.linear_map
    assert isinstance(linear_map, Routed)
    return linear_map


def _split(run: Run) -> tuple[float | None, float | None, float | None]:
    """Accuracy with and without a told subject in the expert, and the share of those with one."""
    experts = _routed(run).expert_of_token
    if experts is None:
        return None, None, None
    expert, fact, told = np.array(experts[: TASK.n_subjects]), TASK.subject_fact, TASK.subject_trained
    beside = np.array(
        [((fact == fact[s]) & (expert == expert[s]) & told).any() for s in np.flatnonzero(~told)]
    )
    right = (run.table()["implication_margin"].to_numpy() > 0)[~told]

    def mean(chosen: np.ndarray) -> float | None:
        return float(right[chosen].mean()) if chosen.any() else None

    return mean(beside), mean(~beside), float(beside.mean())


def distance_of_relations(run: Run) -> float | None:
    """Half the sum of absolute differences between the mixtures of r1 and r2; None without a router."""
    linear_map = _routed(run)
    if not linear_map.has_router:
        return None
    if linear_map.by == "token":
        counts = torch.zeros(1, TASK.d_vocab, dtype=torch.float64)
        of_tokens = linear_map.routing({ROUTER: run.weights.ov[ROUTER]}, counts).mixture
        first, second = (of_tokens[token] for token in TASK.relation_tokens[:2])
        return float((first - second).abs().sum()) / 2
    names = TASK.labels[: TASK.n_subjects]
    pairs = [(run.mixture([name, "r1", "EOS"]), run.mixture([name, "r2", "EOS"])) for name in names]
    return float(np.mean([np.abs(first - second).sum() / 2 for first, second in pairs]))
