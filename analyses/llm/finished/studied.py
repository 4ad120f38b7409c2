"""The finished runs of a study, by arm and seed, with the numbers that tables, figures and claims read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from analyses.llm.runs import RESULTS, is_finished, result_path
from analyses.llm.studies.plan import Study
from ocr_interp.llm.measuring.intervals import RunInterval, run_interval
from ocr_interp.llm.training.files.result import read_result

HELD_OUT, HELD_OUT_CALIBRATED = "held_out_implication/rank", "held_out_implication/calibrated_rank"
TOLD, TOLD_LOGPROB = "training_implication/rank", "training_implication/logprob"
FACTS = "held_out_fact/rank"
FIRST_TOLD, FIRST_PRETRAINED = "held_out_implication/first_told", "held_out_implication/first_pretrained"


@dataclass(frozen=True)
class Arm:
    """The finished runs of one arm.

    Attributes:
        name: of the arm.
        results: seed -> content of its JSON.
    """

    name: str
    results: dict[int, dict[str, Any]]

    @property
    def seeds(self) -> list[int]:
        """Seeds that are finished."""
        return sorted(self.results)

    def column(self, name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Steps and a column of the history."""
        history = self.results[seed]["history"]
        return np.array(history["step"]), np.array(history[name], dtype=float)

    def last(self, name: str) -> list[float]:
        """The last value of a column, one per seed."""
        return [float(self.column(name, seed)[1][-1]) for seed in self.seeds]

    def field(self, name: str) -> list[float]:
        """A number of the JSON itself, one per seed."""
        return [float(self.results[seed][name]) for seed in self.seeds]

    def at_told_loss(self, name: str, limit: float) -> list[float]:
        """A column where the told implications' cross-entropy first falls to a limit, one per seed.

        Linear in the logarithm of the cross-entropy between measurements; NaN if a run never gets there.
        """
        return [
            where_first_below(-self.column(TOLD_LOGPROB, seed)[1], self.column(name, seed)[1], limit)
            for seed in self.seeds
        ]

    def at_divergence(self, name: str, nats: float) -> list[float]:
        """A column where the model is first so far from its base on ordinary sentences, one per seed.

        Linear in the logarithm of the divergence between measurements; NaN if a run never gets there.
        """
        found = []
        for seed in self.seeds:
            nearness = 1 / np.maximum(self.results[seed]["neutral_kl_by_row"], 1e-12)
            found.append(where_first_below(nearness, self.column(name, seed)[1], 1 / nats))
        return found


def where_first_below(
    falling: Float[np.ndarray, " row"], values: Float[np.ndarray, " row"], limit: float
) -> float:
    """A column where another one first falls to a limit, linear in its logarithm between the rows.

    Args:
        falling: the column that falls, above 0 before it reaches the limit.
        values: the column that is read.
        limit: above 0.

    Returns: NaN if it never falls so far; the first row's value where it begins there.
    """
    below = np.flatnonzero(falling <= limit)
    if not len(below):
        return math.nan
    k = int(below[0])
    if not k:
        return float(values[0])
    above, under = math.log(falling[k - 1]), math.log(max(falling[k], 1e-12))
    share = (above - math.log(limit)) / (above - under)
    return float(values[k - 1] + share * (values[k] - values[k - 1]))


def arms_of(study: Study, folder: Path = RESULTS) -> dict[str, Arm]:
    """Arms with at least one finished run, in the order of the plan."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for run in study.planned():
        if is_finished(run, folder):
            found.setdefault(run.arm, {})[run.seed] = read_result(result_path(run, folder))
    order = dict.fromkeys(run.arm for run in study.planned())
    return {arm: Arm(arm, found[arm]) for arm in order if arm in found}


def interval(values: list[float]) -> RunInterval:
    """The mean with its interval over runs; runs without a value are left out."""
    own = [value for value in values if not math.isnan(value)]
    return run_interval(own) if own else RunInterval(math.nan, math.nan, math.nan, 0)


def plain_interval(values: list[float]) -> dict[str, Any]:
    """Mean, interval and the values themselves, for JSON; what is not known is None."""
    own = interval(values)
    numbers = {"mean": own.mean, "low": own.low, "high": own.high}
    return {k: None if math.isnan(v) else v for k, v in numbers.items()} | {
        "runs": own.n_runs,
        "by_seed": [None if math.isnan(v) else v for v in values],
    }
