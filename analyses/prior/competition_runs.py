"""The runs of the competition of two answers, and where the told one overtakes the pretrained one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from analyses.prior.competition_criteria import (
    AT,
    FINE_TUNING_TIMES,
    LAST,
    PRETRAINING_TIMES,
    RANKS,
    SHARES,
    WIDTHS,
)
from analyses.prior.criteria import ENTRIES, PRETRAINING, SEEDS, N
from analyses.prior.stages import Pretrained, new_task, over_time, pretrain


@dataclass(frozen=True)
class Course:
    """One fine-tuning on other pairs over log10 time; one value per time.

    Attributes:
        kind: "pretrained" or "constructed" features.
        told: subjects of 4 a pair that are told.
        pretraining: log10 of its time.
        seed, d_head, rank: of the run; rank of LoRA, None for all weights.
        squared: p², squared length of a pretrained pair feature, logits.
        fact: coefficient f of the own fact, logits.
        recalled, deduced: coefficients of the pretrained and the told answer over f.
        first: shares of held-out subjects whose first answer is (told, pretrained, another).
    """

    kind: str
    told: int
    pretraining: float
    seed: int
    d_head: int
    rank: int | None
    squared: float
    time: list[float]
    fact: list[float]
    recalled: list[float]
    deduced: list[float]
    first: list[tuple[float, float, float]]

    def crossing(self) -> tuple[float, float]:
        """f / p² and log10 time where the told answer overtakes, by interpolation; NaN if it does not."""
        lead = np.array(self.deduced) - np.array(self.recalled)
        for k in range(1, len(lead)):
            if lead[k - 1] < 0 <= lead[k]:
                part = -lead[k - 1] / (lead[k] - lead[k - 1])
                fact = self.fact[k - 1] + part * (self.fact[k] - self.fact[k - 1])
                return fact / self.squared, self.time[k - 1] + part * (self.time[k] - self.time[k - 1])
        return np.nan, np.nan


def course(
    kind: str,
    before: Pretrained,
    told: int,
    length: float,
    seed: int,
    times: Sequence[float],
    rank: int | None = None,
) -> Course:
    """Fine-tunes on other pairs and measures at these times."""
    found = [o for o, _ in over_time(before, new_task("mislead", told), seed, times, rank)]
    return Course(
        kind=kind,
        told=told,
        pretraining=length,
        seed=seed,
        d_head=before.parameters["W_V"].shape[1],
        rank=rank,
        squared=before.feature_squared(),
        time=list(times),
        fact=[o.fact for o in found],
        recalled=[o.recall for o in found],
        deduced=[o.deduced for o in found],
        first=[o.first for o in found],
    )


def constructed(like: Pretrained, seed: int) -> Pretrained:
    """Features written by hand, b_i = c_i = p e_i, and answer types as large as those of a pretrained model.

    Beside them there are small normal entries, as everywhere at a start.
    """
    W_V, W_O = like.parameters["W_V"], like.parameters["W_O"]
    rng = torch.Generator().manual_seed(3000 + seed)
    made = {
        name: ENTRIES * torch.randn(value.shape, generator=rng, dtype=torch.float64)
        for name, value in (("W_V", W_V), ("W_O", W_O))
    }
    centred = torch.eye(N, dtype=torch.float64) - 1 / N
    made["W_O"][:N] += like.feature_squared() ** 0.5 * torch.cat([centred, centred], dim=1)
    kind = float((W_O[:, :N].mean(dim=1) - W_O[:, N:].mean(dim=1)).norm()) / 2
    gaps = [float((row @ W_O)[:N].mean() - (row @ W_O)[N:].mean()) for row in W_V[-2:]]
    made["W_O"][N] += torch.cat([torch.full((N,), kind), torch.full((N,), -kind)]).double()
    for row, gap in zip(made["W_V"][-2:], gaps, strict=True):
        row[N] += gap / (2 * kind)
    return Pretrained("factorized", made, float("nan"))


def all_courses() -> dict[str, list[Course]]:
    """Every run of the study by its part: lengths, constructed, widths, lora."""
    found: dict[str, list[Course]] = {"lengths": [], "constructed": [], "widths": [], "lora": []}
    for seed in SEEDS:
        for length in (*PRETRAINING_TIMES, LAST):
            times = [time for time in FINE_TUNING_TIMES if time <= 3 * length + 4]
            before = pretrain("factorized", seed, log10_time=length)
            for told in SHARES if length < LAST else SHARES[1:]:
                found["lengths"].append(course("pretrained", before, told, length, seed, times))
            if length == PRETRAINING:
                found["lora"] += [course("pretrained", before, 1, length, seed, [AT], rank) for rank in RANKS]
            if length == 10.0:
                by_hand = constructed(before, seed)
                found["constructed"] += [
                    course("constructed", by_hand, told, length, seed, times) for told in SHARES[1:]
                ]
        times = [time for time in FINE_TUNING_TIMES if time <= 3 * PRETRAINING + 4]
        for width in WIDTHS:
            before = pretrain("factorized", seed, log10_time=PRETRAINING, d_head=width)
            found["widths"].append(course("pretrained", before, 2, PRETRAINING, seed, times))
    return found
