"""Pretraining on old subjects, fine-tuning on new ones, and whose answer is first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.prior.criteria import ENTRIES, FINE_TUNING, NEW, OLD, PRETRAINING, RANK_OF_LORA, N
from ocr_interp import FactRecallTask
from ocr_interp.maps.base import LinearMap
from ocr_interp.maps.low_rank import ZERO, LowRank
from ocr_interp.training.long_descent import long_descent

STEPS: dict[str, Any] = {"logit_step": 0.1, "relative_step": 0.05}
TOLD = ("facts", "help", "mislead")


@dataclass(frozen=True)
class Pretrained:
    """A model of the old subjects.

    Attributes:
        ov: "factorized" or "non_factorized".
        parameters: rows are old subjects, r1, r2; columns b_1..b_n, c_1..c_n.
        beta: its held-out coefficient; NaN where every old subject's implication was told.
    """

    ov: str
    parameters: dict[str, Tensor]
    beta: float

    def feature_ratio(self) -> float:
        """⟨pair parts of b_i and c_i⟩ / ‖pair part of b_i‖² of the output features."""
        facts, implications = self._pair_features()
        return float((facts * implications).sum() / (facts**2).sum())

    def feature_squared(self) -> float:
        """p²: squared length of a fact's pair feature, mean over the pair directions, logits."""
        facts, _ = self._pair_features()
        return float((facts**2).sum() / (facts.shape[1] - 1))

    def recall(self, fact: float, new: int = NEW) -> float:
        """Recall coefficient that the features predict after fine-tuning on facts alone.

        A new subject's value vector v grows along b_i's feature of squared length p², and with it what it
        adds to c_i: `feature_ratio` of what it adds to b_i, at first. The feature grows too: ‖b_i‖² − Σ ‖v‖²
        over the `new` subjects of the pair stays p² (balancedness), while c_i has no gradient along it. So
        with the fact's coefficient f = |v| |b_i| the ratio falls by
        |b_i| / p = √((1 + √(1 + 4 · new · f² / p⁴)) / 2).

        Args:
            fact: f, the fact's coefficient that fine-tuning reached, logits.
            new: new subjects of a pair.
        """
        growth = (1 + np.sqrt(1 + 4 * new * (fact / self.feature_squared()) ** 2)) / 2
        return float(self.feature_ratio() / np.sqrt(growth))

    def _pair_features(self) -> tuple[np.ndarray, np.ndarray]:
        """Output features [component, pair] of facts and implications without their means."""
        W_O = self.parameters["W_O"].numpy()
        n = W_O.shape[1] // 2
        parts = W_O[:, :n], W_O[:, n:]
        facts, implications = (part - part.mean(axis=1, keepdims=True) for part in parts)
        return facts, implications


def pretrain(
    ov: str,
    seed: int,
    *,
    told: int = OLD,
    old: int = OLD,
    log10_time: float = PRETRAINING,
    d_head: int = 2 * N,
) -> Pretrained:
    """Trains old subjects with all facts and the implications of `told` of `old` subjects a pair."""
    task = FactRecallTask(N, told, old - told, n_noise=0, seq_len=3)
    width = d_head if ov == "factorized" else None
    found = long_descent(task, ov, log10_time=log10_time, entries=ENTRIES, seed=seed, d_head=width, **STEPS)
    return Pretrained(ov, found.parameters, found.beta)


def new_task(told: str, share: int = 1, new: int = NEW) -> FactRecallTask:
    """New subjects: all facts; implications of `share` of `new` a pair: none, the pretrained one, another."""
    shift = 1 if told == "mislead" else 0
    implication = [(pair + shift) % N for pair in range(N)]
    fact = [pair for pair in range(N) for _ in range(new)]
    trained = [told != "facts" and k < share for _ in range(N) for k in range(new)]
    return FactRecallTask.from_mapping(fact, implication, trained, n_noise=0, seq_len=3)


@dataclass(frozen=True)
class Outcome:
    """Untold implications of new subjects after fine-tuning, among the implications.

    Attributes:
        task_rank, pretrained_rank: mean rank of the task's and of the pretrained implication, 0 is first.
        first: share of held-out subjects whose first implication is (task's, pretrained, another).
        fact: mean coefficient of the own fact, logits.
        recall: coefficient on the pretrained implication over the coefficient on the own fact, mean.
        deduction: the same of the task's implication over the told subjects'; NaN if none is told.
        deduced: the same of the task's implication over the own fact.
        W: subjects, r1, r2 by answers.
    """

    task_rank: float
    pretrained_rank: float
    first: tuple[float, float, float]
    fact: float
    recall: float
    deduction: float
    deduced: float
    W: Float[np.ndarray, "input answer"]


def fine_tune(
    before: Pretrained | None,
    task: FactRecallTask,
    seed: int,
    *,
    lora: bool = False,
    log10_time: float = FINE_TUNING,
    d_head: int = 2 * N,
) -> tuple[Outcome, dict[str, Tensor]]:
    """Trains new subjects from a pretrained model (None: from scratch); returns outcome and parameters."""
    options = {"log10_time": log10_time, "entries": ENTRIES, "seed": 1000 + seed, **STEPS}
    if before is None:
        found = long_descent(task, "factorized", d_head=d_head, **options)
    else:
        ov, start = new_start(before, task, seed, RANK_OF_LORA if lora else None)
        found = long_descent(task, ov, start=start, d_head=_width(ov, start), **options)
    return outcome(found.W, task), found.parameters


def new_start(
    before: Pretrained, task: FactRecallTask, seed: int, rank: int | None = None
) -> tuple[str | LinearMap, dict[str, Tensor]]:
    """Parameterisation and start of fine-tuning: rows of old subjects replaced by small ones of new subjects.

    Args:
        rank: of LoRA in token space; None: all weights are trained.
    """
    rng = torch.Generator().manual_seed(2000 + seed)

    def with_new_rows(matrix: Tensor) -> Tensor:
        """Rows of old subjects replaced by small ones of new subjects; r1 and r2 stay."""
        rows = ENTRIES * torch.randn(task.n_subjects, matrix.shape[1], generator=rng, dtype=torch.float64)
        return torch.cat([rows, matrix[-2:]])

    if rank is not None:
        W = with_new_rows(before.parameters["W_V"]) @ before.parameters["W_O"]
        start = {
            "A": ENTRIES * torch.randn(len(W), rank, generator=rng, dtype=torch.float64),
            "B": torch.zeros(rank, W.shape[1], dtype=torch.float64),
            "W_0": W,
        }
        return LowRank(base=ZERO, rank=rank, alpha=float(rank)), start  # its W_0 is that of the start
    first = "W_V" if before.ov == "factorized" else "W_OV"
    return before.ov, {**before.parameters, first: with_new_rows(before.parameters[first])}


def over_time(
    before: Pretrained,
    task: FactRecallTask,
    seed: int,
    times: Sequence[float],
    rank: int | None = None,
) -> list[tuple[Outcome, dict[str, Tensor]]]:
    """One fine-tuning, measured at several times (log10, ascending)."""
    ov, parameters = new_start(before, task, seed, rank)
    width, measured, reached = _width(ov, parameters), [], -np.inf
    for time in times:
        left = time + np.log10(1 - 10.0 ** (reached - time))
        found = long_descent(task, ov, log10_time=float(left), start=parameters, d_head=width, **STEPS)
        parameters, reached = found.parameters, time
        measured.append((outcome(found.W, task), parameters))
    return measured


def _width(ov: str | LinearMap, start: dict[str, Tensor]) -> int | None:
    return start["W_V"].shape[1] if ov == "factorized" else None


def outcome(W: Float[np.ndarray, "input answer"], task: FactRecallTask) -> Outcome:
    """Ranks and coefficients of a matrix."""
    n, subjects = task.n_facts, np.arange(task.n_subjects)
    facts, implications = W[: task.n_subjects, :n], W[: task.n_subjects, n:]
    logits = implications + W[task.n_subjects + 1, n:]
    pretrained, own = task.subject_fact, task.fact_implication[task.subject_fact]
    held = ~task.subject_trained

    def rank(answer: np.ndarray) -> float:
        return float((logits > logits[subjects, answer][:, None]).sum(axis=1)[held].mean())

    def coefficient(block: np.ndarray, answer: np.ndarray) -> np.ndarray:
        chosen = block[subjects, answer]
        return chosen - (block.sum(axis=1) - chosen) / (n - 1)

    best = logits.argmax(axis=1)
    first = (best == own)[held].mean(), (best == pretrained)[held].mean()
    other = 1 - first[0] - (first[1] if (own != pretrained).any() else 0.0)
    of_task = coefficient(implications, own)
    told = of_task[~held].mean() if (~held).any() else np.nan
    return Outcome(
        task_rank=rank(own),
        pretrained_rank=rank(pretrained),
        first=(float(first[0]), float(first[1]), float(other)),
        fact=float(coefficient(facts, pretrained)[held].mean()),
        recall=float((coefficient(implications, pretrained) / coefficient(facts, pretrained))[held].mean()),
        deduction=float(of_task[held].mean() / told),
        deduced=float((of_task / coefficient(facts, pretrained))[held].mean()),
        W=W,
    )


def mean(outcomes: Sequence[Outcome], name: str) -> float:
    """Mean of one number over seeds."""
    return float(np.mean([getattr(o, name) for o in outcomes]))
