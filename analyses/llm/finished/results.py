"""The finished runs of `analyses.llm.table_1`: read, grouped over seeds, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ocr_interp.llm.measuring.intervals import (
    Interval,
    clustered_difference,
    clustered_interval,
    run_interval,
)
from ocr_interp.llm.measuring.measure import Measurement
from ocr_interp.llm.training.configuration import LLMRunConfig
from ocr_interp.llm.training.files.result import read_result

RESULTS = Path(__file__).resolve().parents[2] / "results" / "llm"
CHANCE = 2.0
"""Mean rank of a guess among five candidates."""

NAMES = {
    "city_language": "City-Language (causal)",
    "city_language_counterfactual": "City-Language (counterfactual)",
    "country_code": "Country-Code",
    "profession_color": "Profession-Color",
    "sport_music": "Sport-Music",
}
COLORS = dict(zip(NAMES, ("#0173b2", "#de8f05", "#029e73", "#cc78bc", "#ca9161"), strict=True))
PAPER = {
    "Gemma-2-9B": (0.00, 0.19, 0.19, 1.64, 0.56),
    "OLMo-7B": (0.07, 1.33, 0.15, 1.84, 0.17),
    "Qwen-2-7B": (0.13, 4.55, 3.63, 0.82, 0.40),
    "Mistral-7B-v0.3": (0.00, 2.10, 1.48, 1.15, 1.28),
    "Llama-3-8B": (0.00, 1.18, 0.77, 0.93, 0.63),
}
"""Held-out mean ranks of the paper's Table 1 in the order of NAMES, for comparison only.

Its names, pairs, wordings and candidates differ from ours: 4.55 cannot be a rank among five.
"""

RATES = (3e-5, 1e-4, 3e-4)
HELD_OUT, FACTS = "held_out_implication/rank", "held_out_fact/rank"
TOLD_LOGPROB = "training_implication/logprob"


@dataclass(frozen=True)
class Kind:
    """The settings that runs of different seeds share."""

    data: str
    control: str = "none"
    method: str = "full"
    optimizer: str = "adamw"
    lr: float = 1e-4
    batch: int = 8


@dataclass(frozen=True)
class Group:
    """Runs of one kind, by seed."""

    kind: Kind
    results: tuple[dict[str, Any], ...]

    @property
    def seeds(self) -> list[int]:
        """Seeds of the finished runs."""
        return [result["config"]["facts"]["seed"] for result in self.results]

    def of_seeds(self, seeds: set[int]) -> Group:
        """The group restricted to some seeds."""
        chosen = (r for r, seed in zip(self.results, self.seeds, strict=True) if seed in seeds)
        return Group(self.kind, tuple(chosen))

    @cached_property
    def after(self) -> tuple[Measurement, ...]:
        """The last measurement of every seed."""
        return tuple(Measurement.from_dict(result["after"]) for result in self.results)

    @cached_property
    def before(self) -> tuple[Measurement, ...]:
        """The untrained model's measurement of every seed."""
        return tuple(Measurement.from_dict(result["before"]) for result in self.results)

    def interval(self, split: str = "held_out_implication", metric: str = "rank") -> Interval:
        """Mean over seeds after training, with its interval."""
        return clustered_interval(self.after, split, metric)

    def common(self, other: Group) -> tuple[Group, Group]:
        """Both groups, restricted to their common seeds."""
        seeds = set(self.seeds) & set(other.seeds)
        return self.of_seeds(seeds), other.of_seeds(seeds)

    def difference(self, other: Group, split: str = "held_out_implication") -> Interval | None:
        """Mean rank minus that of another group, name by name, over common seeds; None if there are none."""
        mine, theirs = self.common(other)
        return clustered_difference(mine.after, theirs.after, split) if mine.results else None

    def differences(self, other: Group) -> list[float]:
        """Differences of the mean rank of held-out implications, one per common seed."""
        mine, theirs = self.common(other)
        return np.subtract(mine.by_seed(), theirs.by_seed()).tolist()

    def untrained(self) -> Interval:
        """Mean rank of held-out implications before training."""
        return clustered_interval(self.before, "held_out_implication")

    def by_seed(self, split: str = "held_out_implication", metric: str = "rank") -> list[float]:
        """One mean per seed."""
        return [found.mean(split, metric) for found in self.after]

    def curve(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps [row] and a column of the history [seed, row]."""
        steps = np.array(self.results[0]["history"]["step"])
        return steps, np.array([result["history"][column] for result in self.results], dtype=float)

    def at_step(self, step: int, column: str) -> list[float]:
        """A column of the history at a logged step, one value per seed."""
        steps, curves = self.curve(column)
        return curves[:, list(steps).index(step)].tolist()

    def when(self, column: str, reached: list[float], wanted: str) -> list[float]:
        """A column when another column first reached a value, by seed; linear between logged steps.

        A seed that never reached the value gives its last value.
        """
        _, given = self.curve(column)
        _, asked = self.curve(wanted)
        found = []
        for values, answers, value in zip(given, asked, reached, strict=True):
            late = np.flatnonzero(values >= value)
            k = late[0] if len(late) else len(values) - 1
            if k == 0 or not len(late):
                found.append(float(answers[k]))
                continue
            share = (value - values[k - 1]) / (values[k] - values[k - 1])
            found.append(float(answers[k - 1] + share * (answers[k] - answers[k - 1])))
        return found

    def update_size(self) -> float:
        """Relative change of the OV circuits, mean over heads and seeds."""
        return float(np.mean([np.mean(result["ov_update"]["relative"]) for result in self.results]))

    def numbers(self) -> dict[str, Any]:
        """The numbers of the group for tables and figures."""
        held_out, untrained = self.interval(), self.untrained()
        return {
            **self.kind.__dict__,
            "seeds": self.seeds,
            "held_out_rank": held_out.mean,
            "interval": limits_over_runs(self.by_seed()),
            "interval_over_pairs": [held_out.low, held_out.high],
            "clusters": held_out.n_clusters,
            "by_seed": self.by_seed(),
            "top1": float(np.mean(self.by_seed(metric="top1"))),
            "untrained_rank": untrained.mean,
            "held_out_fact_rank": float(np.mean(self.by_seed("held_out_fact"))),
            "training_implication_rank": float(np.mean(self.by_seed("training_implication"))),
            "told_logprob": float(np.mean(self.by_seed("training_implication", "logprob"))),
            "steps": self.results[0]["step"],
        }


def limits_over_runs(values: list[float]) -> list[float] | None:
    """The 95 % interval of the mean with the run as the unit; None of one run, which has none."""
    found = run_interval(values)
    return None if found.n_runs == 1 else [found.low, found.high]


def read_groups(folder: Path = RESULTS) -> dict[Kind, Group]:
    """All finished runs by kind, seeds in order; runs of one kind may differ only in their seeds."""
    found: dict[Kind, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        result = read_result(path)
        config = LLMRunConfig.from_dict(result["config"])
        facts, train = config.facts, config.train
        kind = Kind(facts.data, facts.control, train.method, train.optimizer, train.lr, train.batch_size)
        of_kind = found.setdefault(kind, [])
        of_kind.append(result)
        if _without_seeds(result) != _without_seeds(of_kind[0]):
            raise SystemExit(f"{path} differs from the other runs of its kind in more than its seeds")
    return {
        kind: Group(kind, tuple(sorted(results, key=lambda r: r["config"]["facts"]["seed"])))
        for kind, results in found.items()
    }


def _without_seeds(result: dict[str, Any]) -> dict[str, Any]:
    facts, train = result["config"]["facts"], result["config"]["train"]
    return {**facts, **train, "seed": None, "train_seed": None}


def of_all_rates(groups: dict[Kind, Group], data_sets: Sequence[str]) -> dict[str, list[Group]]:
    """Groups of data sets at every learning rate, with their common seeds; empty without common seeds."""
    kinds = {data: [Kind(data, lr=lr) for lr in RATES] for data in data_sets}
    if not all(kind in groups for of_data in kinds.values() for kind in of_data):
        return {}
    seeds = set.intersection(*(set(groups[kind].seeds) for of_data in kinds.values() for kind in of_data))
    found = {data: [groups[kind].of_seeds(seeds) for kind in of_data] for data, of_data in kinds.items()}
    return found if seeds else {}
