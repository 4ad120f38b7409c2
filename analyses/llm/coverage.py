"""How often an interval of the held-out mean rank holds the truth: simulated, over runs and over pairs.

A simulated run has five pairs of sixteen held-out names. The logit of candidate c for a name of pair p is
prior[c] + (strength of the run and pair) [c = p] + noise: the prior is the run's own order of the answers,
the same whoever is asked, so that the ranks of a run's pairs trade off. The truth is the mean over runs. Two
intervals of 95 %: Student's t with the run as the unit, and the bootstrap over pairs that earlier tables had.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.llm.finished.criteria import llm_claim
from ocr_interp.llm.measuring.intervals import clustered_interval, run_interval
from ocr_interp.llm.measuring.measure import Measurement
from ocr_interp.task import SPLITS

PICTURE = "llm_coverage"
N_PAIRS, N_NAMES = 5, 16
N_RUNS = (3, 4, 6, 10)
STUDIES, BOOTSTRAPPED = 2_000, 400
"""Simulated studies a case, and those of them whose bootstrap is drawn."""
LEVEL, WITHIN, SEED = 0.95, 0.03, 0
"""Nominal level; how far the coverage may be off for the claim (written before the simulation)."""
SPREAD = (1.0, 0.7, 0.7, 1.0)
"""Standard deviations in nats: prior, strength by run, strength by pair, noise by name."""


@dataclass(frozen=True)
class Case:
    """How strongly a simulated model follows the pairing, nats."""

    name: str
    strength: float


CASES = (Case("nothing deduced", 0.0), Case("in between", 1.0), Case("mostly deduced", 3.0))


def ranks(strength: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Ranks of the right answer in simulated runs, [run, pair, name]."""
    prior, by_run, by_pair, noise = SPREAD
    logits = rng.normal(0, noise, (count, N_PAIRS, N_NAMES, N_PAIRS))
    logits += rng.normal(0, prior, (count, 1, 1, N_PAIRS))
    own = strength + rng.normal(0, by_run, (count, 1, 1)) + rng.normal(0, by_pair, (count, N_PAIRS, 1))
    own = own if strength else np.zeros_like(own)
    pairs = np.arange(N_PAIRS)
    logits[:, pairs, :, pairs] += own.swapaxes(0, 1)
    right = np.take_along_axis(logits, pairs[None, :, None, None], 3)
    return (logits > right).sum(3)


def measured() -> list[dict[str, float | str]]:
    """Coverage of both intervals by case and number of runs."""
    rng, rows = np.random.default_rng(SEED), []
    for case in CASES:
        truth = float(ranks(case.strength, 20_000, rng).mean())
        for n_runs in N_RUNS:
            simulated = [ranks(case.strength, n_runs, rng) for _ in range(STUDIES)]
            over_runs = [run_interval(study.mean((1, 2)).tolist(), level=LEVEL) for study in simulated]
            over_pairs = [
                clustered_interval([_measurement(run) for run in study], SPLITS[3], draws=400)
                for study in simulated[:BOOTSTRAPPED]
            ]
            rows.append(
                {
                    "case": case.name,
                    "strength": case.strength,
                    "true_rank": truth,
                    "runs": n_runs,
                    "over_runs": float(np.mean([i.low <= truth <= i.high for i in over_runs])),
                    "half_width_over_runs": float(np.mean([(i.high - i.low) / 2 for i in over_runs])),
                    "over_pairs": float(np.mean([i.low <= truth <= i.high for i in over_pairs])),
                    "half_width_over_pairs": float(np.mean([(i.high - i.low) / 2 for i in over_pairs])),
                }
            )
    return rows


def _measurement(rank: np.ndarray) -> Measurement:
    """One simulated run as a measurement of held-out implications."""
    values = rank.ravel().astype(float)
    return Measurement(
        split=np.full(values.size, 3),
        fact=np.repeat(np.arange(N_PAIRS), N_NAMES),
        template=np.zeros(values.size, dtype=int),
        rank=values,
        logprob=np.zeros(values.size),
    )


def make(runs: Path, figures: Path) -> list[dict[str, float | str]]:
    """Simulates and draws."""
    rows = measured()
    DRAWING.write(figures / PICTURE, {"level": LEVEL, "spread_nats": SPREAD, "rows": rows})
    return rows


def draw(numbers: dict[str, Any]) -> Picture:
    """Coverage of both intervals by number of runs, a panel per case."""
    fig, axes = plt.subplots(1, len(CASES), figsize=(WIDTH, 2.8), sharey=True, layout="constrained")
    for ax, case in zip(axes, CASES, strict=True):
        own = [row for row in numbers["rows"] if row["case"] == case.name]
        for key, label, style, color in (
            ("over_runs", "t over runs", "o-", "#0173b2"),
            ("over_pairs", "bootstrap over pairs", "s--", "#de8f05"),
        ):
            ax.plot([row[key] for row in own], style, color=color, label=label)
        ax.axhline(numbers["level"], color="#555555", lw=0.8, ls=":")
        ax.set_xticks(range(len(own)), [row["runs"] for row in own])
        ax.set_title(f"{case.name}\n(true rank {own[0]['true_rank']:.2f})", fontsize=9)
        ax.set_xlabel("runs")
    axes[0].set_ylim(0.5, 1.02)
    axes[0].set_ylabel("intervals that hold\nthe truth")
    axes[1].legend(frameon=False, loc="lower center")
    return fig


def sentence(numbers: dict[str, Any]) -> str:
    """The least and the largest coverage of both intervals."""
    over_runs, over_pairs = ([row[key] for row in numbers["rows"]] for key in ("over_runs", "over_pairs"))
    return (
        f"{numbers['level']:.0%} intervals over runs hold the truth in {min(over_runs):.0%} to "
        f"{max(over_runs):.0%} of simulated studies, those over pairs in {min(over_pairs):.0%} to "
        f"{max(over_pairs):.0%}"
    )


DRAWING = Drawing(sentence, draw)


def claims(rows: Iterable[dict[str, float | str]]) -> list[Claim]:
    """That the interval over runs covers."""
    found = list(rows)
    over_runs = [float(row["over_runs"]) for row in found]
    return [
        llm_claim(
            "intervals_cover",
            " (simulated runs): Student's t interval over runs holds the true mean rank as often as it says",
            "ours: a simulation of runs whose pairs trade off",
            f"coverage of the nominal {LEVEL:g} within {WITHIN:g} for 3, 4, 6 and 10 runs in all three cases",
            {"over_runs": over_runs, "over_pairs": [float(row["over_pairs"]) for row in found]},
            all(abs(value - LEVEL) <= WITHIN for value in over_runs),
            PICTURE,
        )
    ]


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, cost="slow", drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
