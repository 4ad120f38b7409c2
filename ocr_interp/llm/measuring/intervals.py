"""Confidence intervals: over runs (Student's t), and over pairs within runs (a bootstrap of clusters)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ocr_interp.checks import check_choice
from ocr_interp.errors import ConfigError, unknown_name
from ocr_interp.llm.measuring.measure import METRICS, Measurement
from ocr_interp.task import SPLITS


@dataclass(frozen=True)
class RunInterval:
    """A mean over runs with Student's t interval: what another run, with other names and pairs, would give.

    Attributes:
        mean: of the runs' values.
        low, high: limits of the interval; NaN for a single run, of which nothing can be said.
        n_runs: number of runs.
    """

    mean: float
    low: float
    high: float
    n_runs: int

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside; False for a single run."""
        return self.low > 0 or self.high < 0


def run_interval(values: Sequence[float], *, level: float = 0.95) -> RunInterval:
    """The interval of one value a run, with the run as the unit.

    The pairs of one run are not independent: candidates that the model prefers push the others down, and a
    run has its own names, order and start. So a run counts once. `analyses/llm/coverage.py` simulates how
    often the interval holds the truth.

    Args:
        values: one number a run, such as a mean rank, or a difference to the control of the same seed.
        level: confidence level, in 0..1.

    Raises:
        ConfigError: no value, one that is not finite, or a level outside 0..1.
    """
    from scipy.stats import t

    if not 0 < level < 1:
        raise ConfigError(f"level must be in 0..1, got {level}")
    own = np.asarray(values, dtype=float)
    if own.ndim != 1 or not len(own) or not np.isfinite(own).all():
        raise ConfigError(f"values must be one finite number a run, at least one, got {own.tolist()}")
    mean = float(own.mean())
    if len(own) == 1:
        return RunInterval(mean, float("nan"), float("nan"), 1)
    half = float(t.ppf((1 + level) / 2, len(own) - 1) * own.std(ddof=1) / len(own) ** 0.5)
    return RunInterval(mean, mean - half, mean + half, len(own))


@dataclass(frozen=True)
class Interval:
    """A mean with a bootstrap interval.

    Attributes:
        mean: over all examples.
        low, high: percentiles of the bootstrap.
        n_clusters: number of pairs over all runs. Five pairs, as in one run, have only 126 different
            bootstrap draws, and the interval is too narrow. In simulations with 16 names per pair and
            independent pairs, a nominal 95 % interval contained the true mean in 86 % of cases with 5 pairs
            and in 93 % with 15; the coverage is lower near rank 0, where most pairs are equal. The interval
            does not include the variation between runs (model, order of the data): look at the seeds too.
            If the model orders the answers in the same way for every subject, as before training, the ranks
            of a run's pairs balance each other, and the interval always contains the true mean.
    """

    mean: float
    low: float
    high: float
    n_clusters: int


def clustered_interval(
    runs: Sequence[Measurement],
    split: str,
    metric: str = "rank",
    *,
    level: float = 0.95,
    draws: int = 4_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap in two stages: pairs with replacement, then names within each drawn pair.

    The names of a pair share one fact and one implication and are not independent, so the pair is the
    sampling unit. The pairs of several runs (seeds) are pooled, since every seed draws its own pairs.

    Args:
        runs: measurements, one per seed.
        split: one of `task.SPLITS`.
        metric: "rank", "top1" or "logprob".
        level: confidence level of the interval, in 0..1.
        draws: number of bootstrap samples.
        seed: seed of the draws.

    Raises:
        ConfigError: a split without examples in any run, a level outside 0..1, or answers that some
            measurements score whole and others do not.
    """
    _check(split, metric, level)
    _check_scoring(runs, split)
    clusters = [values for run in runs for values in _clusters(run, _values(run, metric), split)]
    return _bootstrap(clusters, split, level, draws, seed)


def clustered_difference(
    runs: Sequence[Measurement],
    others: Sequence[Measurement],
    split: str,
    metric: str = "rank",
    *,
    level: float = 0.95,
    draws: int = 4_000,
    seed: int = 0,
) -> Interval:
    """Mean of `runs` minus mean of `others` on the same examples, with a bootstrap of the differences.

    Every example is compared with itself, the same name, fact and wording, under another treatment such as
    a control or another optimizer. Effects common to both, such as an easy pair, cancel.

    Args:
        runs: measurements, one per seed.
        others: as many measurements of the same fact sets in the same order.
        split, metric, level, draws, seed: as for `clustered_interval`.

    Raises:
        ConfigError: measurements of different examples, or arguments that `clustered_interval` refuses.
    """
    _check(split, metric, level)
    _check_scoring([*runs, *others], split)
    if len(runs) != len(others):
        raise ConfigError(f"runs and others must be as many, got {len(runs)} and {len(others)}")
    clusters = []
    for number, (run, other) in enumerate(zip(runs, others, strict=True)):
        for name in ("split", "fact", "template"):
            if not np.array_equal(getattr(run, name), getattr(other, name)):
                raise ConfigError(
                    f"runs[{number}] and others[{number}] must be of one fact set: their {name} differs; "
                    "pair runs of one data set, size, share and seed"
                )
        clusters += _clusters(run, _values(run, metric) - _values(other, metric), split)
    return _bootstrap(clusters, split, level, draws, seed)


def _check(split: str, metric: str, level: float) -> None:
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    check_choice("metric", metric, METRICS)
    if not 0 < level < 1:
        raise ConfigError(f"level must be in 0..1, got {level}")


def _check_scoring(runs: Sequence[Measurement], split: str) -> None:
    """Requires one scoring; the first token is the case of "until_distinct" in which it is enough."""
    relation = split.rpartition("_")[2]
    found = {run.scoring[relation] for run in runs}
    if "whole_answer" in found and len(found) > 1:
        raise ConfigError(
            f"the {relation}s of these measurements are ranked by different things "
            f"({', '.join(sorted(found))}): measure all with one scoring"
        )


def _bootstrap(clusters: list[np.ndarray], split: str, level: float, draws: int, seed: int) -> Interval:
    """Draws clusters with replacement, then examples within each drawn cluster."""
    if not clusters:
        raise ConfigError(f"there is no example of split {split!r} to make an interval of")
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(clusters), size=(draws, len(clusters)))
    sums = np.empty(chosen.shape)
    for k, values in enumerate(clusters):
        places = chosen == k
        sums[places] = rng.choice(values, size=(places.sum(), len(values))).sum(1)
    sizes = np.array([len(values) for values in clusters])
    means = sums.sum(1) / sizes[chosen].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.concatenate(clusters).mean()), float(low), float(high), len(clusters))


def _values(run: Measurement, metric: str) -> np.ndarray:
    """The metric of every example."""
    return {"rank": run.rank, "top1": (run.rank == 0).astype(float), "logprob": run.logprob}[metric]


def _clusters(run: Measurement, values: np.ndarray, split: str) -> list[np.ndarray]:
    """Values of a split, one array per pair."""
    chosen = run.split == SPLITS.index(split)
    return [values[chosen & (run.fact == fact)] for fact in np.unique(run.fact[chosen])]
