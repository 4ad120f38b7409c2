"""Three factors from a small start: not everything is deduced, and fewer directions than pairs are learned.

Left: β over the untold subjects of a pair, W = A B C, beside two predictions. Right: the rank of W by the
size of the start, every number of untold subjects; two factors have rank n.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure as Picture

from analyses.elsewhere.criteria import (
    DEPTH_N,
    DEPTH_SEEDS,
    DEPTH_STARTS,
    DEPTH_TIME,
    DEPTH_UNTOLD,
    NEAR_ONE,
    NEAR_RANK_ONE,
    ONE_UP_TO,
)
from analyses.elsewhere.fixed_rank import rank_of
from analyses.elsewhere.rank_one import rank_one_point
from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.saddle.runs import noise_free
from ocr_interp.training.long_descent import long_descent

PICTURE = "elsewhere_depth"
POWER = 2 / 3
"""Small A, B and C make the sum of this power of W's singular values small."""

JUDGED = 0.1
"""The start whose β is judged."""

COLORS = dict(zip(DEPTH_STARTS, ("#08306b", "#2171b5", "#fdae6b"), strict=True))


@dataclass(frozen=True)
class DepthPoint:
    """β, rank and accuracy on untold implications of one descent at DEPTH_TIME."""

    m_test: int
    entries: float
    seed: int
    beta: float
    rank: int
    accuracy: float


@dataclass(frozen=True)
class Measured:
    """Descents, and β by m_test: of equal told entries, and of the block of rank one."""

    points: list[DepthPoint]
    equal_told: dict[int, float]
    rank_one: dict[int, float]
    rank_one_of_two_factors: dict[int, float]


def completion(m_test: int) -> float:
    """The entry y that makes the quasi-norm of [[1, 1], [√b, √b y]] smallest: told entries all 1."""
    y = np.linspace(-1, 1.5, 5_001)
    root = np.sqrt(m_test)
    blocks = np.stack([np.stack([np.ones_like(y)] * 2), np.stack([np.full_like(y, root), root * y])])
    values = np.linalg.svd(np.moveaxis(blocks, -1, 0), compute_uv=False)
    return float(y[(values**POWER).sum(axis=1).argmin()])


def descend(m_test: int, entries: float, seed: int, log10_time: float = DEPTH_TIME) -> DepthPoint:
    """One descent with three factors."""
    task = noise_free((DEPTH_N, 1, m_test))
    options = {"log10_time": log10_time, "entries": entries, "seed": seed, "logit_step": 0.1}
    found = long_descent(task, "deep", ov_options={"depth": 3}, **options)
    accuracy = float(found.history["held_out_accuracy"].iloc[-1])
    return DepthPoint(m_test, entries, seed, found.beta, rank_of(found.W), accuracy)


def make(runs: Path, figures: Path) -> Measured:
    torch.set_num_threads(1)
    points = [
        descend(m_test, entries, seed)
        for m_test in DEPTH_UNTOLD
        for entries in DEPTH_STARTS
        for seed in DEPTH_SEEDS
    ]
    sizes = {m_test: (DEPTH_N, 1, m_test) for m_test in DEPTH_UNTOLD}
    measured = Measured(
        points=points,
        equal_told={m_test: completion(m_test) for m_test in DEPTH_UNTOLD},
        rank_one={m_test: rank_one_point(s, power=POWER).beta for m_test, s in sizes.items()},
        rank_one_of_two_factors={m_test: rank_one_point(s).beta for m_test, s in sizes.items()},
    )
    DRAWING.write(figures / PICTURE, numbers_of(measured))
    return measured


def draw(numbers: dict[str, Any]) -> Picture:
    """β over m_test beside both predictions; rank over the start."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.8), width_ratios=(3, 2), layout="constrained")
    grid = np.unique(np.r_[np.geomspace(2, 60, 40).round().astype(int), ONE_UP_TO, ONE_UP_TO + 1])
    left.plot(grid, [completion(int(b)) for b in grid], color="0.6", ls="--", lw=1.5)
    left.text(2.1, 1.02, "if told entries were equal", fontsize=8, color="0.4")
    few = np.geomspace(2, 60, 12).round().astype(int)
    left.plot(few, [rank_one_point((DEPTH_N, 1, int(b)), power=POWER).beta for b in few], color="0.3", lw=1.5)
    left.text(3.6, 0.8, "block of rank one,\ntold facts larger", fontsize=8, color="0.25")
    for k, (entries, color) in enumerate(COLORS.items()):
        mine = [p for p in numbers["descents"] if p["entries"] == entries]
        x = np.array([p["m_test"] for p in mine]) * (0.96 + 0.04 * k)
        complete = np.array([p["accuracy"] == 1 for p in mine])
        beta = np.array([p["beta"] for p in mine])
        left.plot(x[complete], beta[complete], "o", color=color, ms=5, label=f"{entries:g}")
        left.plot(x[~complete], beta[~complete], "o", mfc="none", mec=color, mew=1.3, ms=5)
        jitter = np.linspace(-0.2, 0.2, len(mine))
        right.plot(k + jitter, [p["rank"] for p in mine], "o", color=color, ms=5)
    left.plot([], [], "o", mfc="none", mec="0.3", mew=1.3, ms=5, label="some untold answers wrong")
    left.set(xscale="log", ylim=(0, 1.12), xlabel="untold subjects of a pair (1 is told)")
    left.set_xticks(DEPTH_UNTOLD, [str(b) for b in DEPTH_UNTOLD])
    left.minorticks_off()
    left.set_ylabel("held-out coefficient β")
    right.axhline(DEPTH_N, color="0.25", ls=":", lw=1.2)
    right.text(-0.45, DEPTH_N + 0.1, "pairs, rank of two factors", fontsize=8, color="0.25")
    right.set_xticks(range(len(DEPTH_STARTS)), [f"{entries:g}" for entries in DEPTH_STARTS])
    right.set(xlim=(-0.5, 2.5), ylim=(0, DEPTH_N + 1), xlabel="entries at the start", ylabel="rank of W")
    handles, labels = left.get_legend_handles_labels()
    fig.legend(handles, [f"start {label}" if label[0] == "0" else label for label in labels],
               loc="outside lower center", ncols=4, frameon=False, columnspacing=1.2)  # fmt: skip
    return fig


DRAWING = Drawing(
    "Three factors do not deduce fully, and from a small start they learn fewer directions than there are "
    "pairs",
    draw,
)


def numbers_of(measured: Measured) -> dict[str, object]:
    """Every descent, and the predictions by m_test."""
    return {
        "descents": [asdict(point) for point in measured.points],
        "equal_told_entries": measured.equal_told,
        "rank_one_three_factors": measured.rank_one,
        "rank_one_two_factors": measured.rank_one_of_two_factors,
    }


def claims(measured: Measured) -> list[Claim]:
    """The conjecture that β is 1, the derived alternative, and the rank."""
    judged = [p for p in measured.points if p.entries == JUDGED]
    conjectured = [p for p in judged if p.m_test <= ONE_UP_TO]
    off = [p.beta - measured.rank_one[p.m_test] for p in judged]
    ranks = {e: [p.rank for p in measured.points if p.entries == e] for e in DEPTH_STARTS}
    by_start = {f"beta_from_{e:g}": [p.beta for p in measured.points if p.entries == e] for e in DEPTH_STARTS}
    return [
        Claim(
            id="depth_deduces_fully",
            statement="Three factors deduce fully from a small start, for up to 32 untold subjects per told "
            "one: the Schatten-2/3 completion of equal told entries",
            source="conjectured (analyses/elsewhere/criteria.py)",
            expected=f"β >= {1 - NEAR_ONE} from entries of {JUDGED:g} for m_test in "
            f"{[b for b in DEPTH_UNTOLD if b <= ONE_UP_TO]}, every seed",
            measured={"beta": [p.beta for p in conjectured], **by_start},
            tolerance=NEAR_ONE,
            holds=all(p.beta >= 1 - NEAR_ONE for p in conjectured),
            figure=PICTURE,
        ),
        Claim(
            id="depth_rank_one",
            statement="Three factors go to a block of rank one with told facts above 1, as two do: β near "
            "r^¼ at any depth",
            source="derived after a trial (docs/theory.md §10)",
            expected=f"β within {NEAR_RANK_ONE} of the rank-one point with the smallest Schatten-2/3 "
            f"quasi-norm, from entries of {JUDGED:g}, every m_test and seed",
            measured={
                "beta_minus_rank_one_point": off,
                "rank_one_point": list(measured.rank_one.values()),
                "held_out_accuracy": [p.accuracy for p in judged],
            },
            tolerance=NEAR_RANK_ONE,
            holds=all(abs(o) <= NEAR_RANK_ONE for o in off),
            figure=PICTURE,
        ),
        Claim(
            id="depth_fewer_modes",
            statement="Three factors from the smallest start learn fewer modes than two factors do (n)",
            source="seen in a trial (analyses/elsewhere/criteria.py)",
            expected=f"rank of W < {DEPTH_N} from entries of {DEPTH_STARTS[0]:g}, every m_test and seed",
            measured={
                **{f"rank_from_{e:g}": found for e, found in ranks.items()},
                "held_out_accuracy_from_the_smallest": [
                    p.accuracy for p in measured.points if p.entries == DEPTH_STARTS[0]
                ],
            },
            tolerance=0.0,
            holds=all(rank < DEPTH_N for rank in ranks[DEPTH_STARTS[0]]),
            figure=PICTURE,
        ),
    ]


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, cost="slow", drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
