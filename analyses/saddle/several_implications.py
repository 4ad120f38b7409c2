"""The more implications are told of a subject, the less each is deduced: β against K, solved and descended.

Left: β of the smallest nuclear norm, full CVXPY programs on the law min(√(a / (K b)), 1). Right: β of
gradient descent at t = 1e100 from two small starts, with the saddle's and the max-margin solution's.

Two claims miss at a = K b, where β is 1 and there is no saddle. The norm is flat in β there: full programs
have β to the root of their accuracy, problems in blocks, solved to 1e-12, to 1e-6. And descent approaches 1
slowly, from below.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.saddle.several_criteria import (
    ALWAYS_LESS,
    BETA_WITHIN,
    DESCENDED,
    IMPLIED,
    NEAR_SADDLE,
    NORM_WITHIN,
    SEEDS,
    SOLVED,
    STARTS,
    TIME,
)
from ocr_interp import FactRecallTask, held_out_beta, solve
from ocr_interp.theory import saddle_solution
from ocr_interp.theory.problem import max_margin_problem
from ocr_interp.theory.solver.cvxpy_program import solve_cvxpy
from ocr_interp.training.long_descent import long_descent

PICTURE = "saddle_several_implications"
COLORS = {1e-3: "#de8f05", 1e-6: "#0173b2"}
LOGIT_STEP, RELATIVE_STEP = 0.1, 0.05
ACCURACY = 1e-11
"""Of Clarabel. Where a = K b the norm is flat in β: β is right to about the root of it."""


@dataclass(frozen=True)
class Solved:
    """A full program: its norm over the closed form's less 1, its β, and the law's.

    in_blocks is β of the same problem with its symmetries used, added after the full programs were seen.
    """

    sizes: tuple[int, int, int]
    implied: int
    norm_off: float
    beta: float
    law: float
    in_blocks: float


@dataclass(frozen=True)
class Descended:
    """β of descents by seed from entries of one size, beside those of the saddle and the smallest norm."""

    sizes: tuple[int, int, int]
    implied: int
    entries: float
    betas: tuple[float, ...]
    saddle: float
    kappa: float
    max_margin: float


@dataclass(frozen=True)
class Measured:
    """All points."""

    solved: tuple[Solved, ...]
    descended: tuple[Descended, ...]


def task_of(sizes: tuple[int, int, int], implied: int) -> FactRecallTask:
    """A balanced task with the smallest vocabulary."""
    return FactRecallTask(*sizes, n_noise=0, seq_len=3, implied_relations=implied)


def solved(sizes: tuple[int, int, int], implied: int) -> Solved:
    """The full program by Clarabel, without the closed form and without symmetries."""
    task, (_, a, b) = task_of(sizes, implied), sizes
    problem = max_margin_problem(task)
    W, _ = solve_cvxpy(problem, "nuclear", accuracy=ACCURACY)
    margin = float(problem.constraint_margins(W).min())
    norm = float(np.linalg.svd(W, compute_uv=False).sum()) / margin
    law = min((a / (implied * b)) ** 0.5, 1.0)
    beta = held_out_beta(W, task).projection
    in_blocks = solve(task, method="clarabel").beta
    return Solved(sizes, implied, norm / solve(task).objective - 1, beta, law, in_blocks)


def descended(runs: Path, sizes: tuple[int, int, int], implied: int, entries: float) -> Descended:
    """Descents from every seed, kept in runs/saddle and resumed."""
    torch.set_num_threads(1)
    task, betas = task_of(sizes, implied), []
    for seed in SEEDS:
        named = f"{'-'.join(map(str, sizes))}_implied-{implied}_entries-{entries:g}_seed-{seed}.safetensors"
        file = runs / "saddle" / "several" / named
        found = long_descent(
            task,
            log10_time=TIME,
            entries=entries,
            seed=seed,
            logit_step=LOGIT_STEP,
            relative_step=RELATIVE_STEP,
            file=file,
        )
        betas.append(found.beta_at(TIME - 0.5))
    saddle = saddle_solution(task)
    return Descended(sizes, implied, entries, tuple(betas), saddle.beta, saddle.kappa, solve(task).beta)


def make(runs: Path, figures: Path) -> Measured:
    programs = [solved(sizes, implied) for sizes in SOLVED for implied in IMPLIED]
    descents = [
        descended(runs, sizes, implied, entries)
        for sizes in DESCENDED
        for implied in IMPLIED
        for entries in STARTS
    ]
    found = Measured(tuple(programs), tuple(descents))
    DRAWING.write(figures / PICTURE, asdict(found))
    return found


def draw(numbers: dict[str, Any]) -> Picture:
    """Left the smallest norm, then descents at two sizes."""
    fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.7), sharey=True, layout="constrained")
    _draw_solved(axes[0], numbers["solved"])
    for ax, sizes in zip(axes[1:], DESCENDED, strict=True):
        _draw_descended(ax, [p for p in numbers["descended"] if tuple(p["sizes"]) == sizes])
    axes[0].set_ylabel("β: untold over told implications")
    handles, labels = axes[1].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return fig


def _draw_solved(ax: Axes, points: list[dict[str, Any]]) -> None:
    x = np.geomspace(0.05, 4, 200)
    ax.plot(x, np.minimum(np.sqrt(x), 1), color="0.6", ls="--", lw=1.5)
    ratios = [p["sizes"][1] / (p["implied"] * p["sizes"][2]) for p in points]
    ax.plot(ratios, [p["beta"] for p in points], "o", color="k", ms=4)
    ax.set(xscale="log", xlabel="told / (K · untold)", ylim=(0, 1.06))
    ax.set_xticks((0.1, 0.3, 1, 3), ("0.1", "0.3", "1", "3"))
    ax.minorticks_off()
    ax.text(0.97, 0.04, "line: the law\ndots: solved", transform=ax.transAxes, ha="right", fontsize=8)
    ax.set_title("smallest norm", loc="left")


def _draw_descended(ax: Axes, points: list[dict[str, Any]]) -> None:
    _, a, b = points[0]["sizes"]
    one = [p for p in points if p["entries"] == STARTS[0]]
    K = [p["implied"] for p in one]
    ax.plot(K, [p["max_margin"] for p in one], color="0.6", ls="--", lw=1.5, label="smallest norm")
    saddle = [p["saddle"] for p in one]
    ax.plot(K, saddle, color="0.15", lw=1, marker="o", mfc="none", ms=9, mew=0.9, label="saddle")
    for entries, shift in zip(STARTS, (-0.07, 0.07), strict=True):
        mine = [p for p in points if p["entries"] == entries]
        x = [p["implied"] + shift for p in mine for _ in p["betas"]]
        betas = [beta for p in mine for beta in p["betas"]]
        ax.plot(x, betas, "o", color=COLORS[entries], ms=4, label=f"descent from entries of {entries:g}")
    ax.set(xlabel="implications of a fact, K", xticks=K)
    ax.set_title(f"descent, {a} told, {b} untold", loc="left")


DRAWING = Drawing(
    "The more implications a fact has, the less gradient descent deduces of each; so does the smallest "
    "norm if told subjects are few",
    draw,
)


def claims(found: Measured) -> list[Claim]:
    """The closed form by CVXPY, the saddle by descent, and that β falls with K."""
    norms = [p.norm_off for p in found.solved]
    betas = [p.beta - p.law for p in found.solved]
    flat = [p.sizes[1] == p.implied * p.sizes[2] for p in found.solved]
    small = [p for p in found.descended if p.entries == min(STARTS)]
    off: dict[int, list[float]] = {implied: [] for implied in IMPLIED}
    falls: dict[int, list[float]] = {implied: [] for implied in IMPLIED[1:]}
    for p in small:
        off[p.implied] += [round(beta - p.saddle, 4) for beta in p.betas]
    large = [p for p in found.descended if p.entries == max(STARTS)]
    for p, q in pairwise(large):
        if p.sizes == q.sizes:
            falls[q.implied] += [round(y - x, 4) for x, y in zip(p.betas, q.betas, strict=True)]
    worst = max(abs(value) for values in off.values() for value in values)
    return [
        Claim(
            id="several_implications_smallest_norm",
            statement="With K implications of a fact told together the smallest nuclear norm has "
            "β = min(√(a / (K b)), 1)",
            source="derived (docs/theory.md §2)",
            expected=f"full programs: norm within {NORM_WITHIN:g} of the closed form's, β within "
            f"{BETA_WITHIN:g} of the law, {len(norms)} tasks",
            measured={
                "largest_norm_off": _largest(norms),
                "largest_beta_off": _largest(betas),
                "largest_where_a_is_not_K_b": _largest(
                    b for b, at in zip(betas, flat, strict=True) if not at
                ),
                "largest_in_blocks": _largest(p.in_blocks - p.law for p in found.solved),
            },
            tolerance=BETA_WITHIN,
            holds=max(map(abs, norms)) <= NORM_WITHIN and max(map(abs, betas)) <= BETA_WITHIN,
            figure=PICTURE,
        ),
        Claim(
            id="several_implications_saddle",
            statement="From entries of 1e-6 gradient descent at t = 1e100 is at the saddle for any number of "
            "implications",
            source="derived (docs/theory.md §10)",
            expected=f"within {NEAR_SADDLE} of the saddle's β, every K and seed",
            measured={
                "largest": worst,
                "largest_of_2_to_4": max(abs(v) for implied in IMPLIED[1:] for v in off[implied]),
                **{f"beta_minus_saddle_of_{implied}": values for implied, values in off.items()},
            },
            tolerance=NEAR_SADDLE,
            holds=worst <= NEAR_SADDLE,
            figure=PICTURE,
        ),
        Claim(
            id="several_implications_each_deduced_less",
            statement="The more implications are told of a subject, the less each is deduced for the untold: "
            "descent from entries of 1e-3",
            source="derived (docs/theory.md §10)",
            expected="β falls from K to K + 1 in every task and seed",
            measured={f"change_of_beta_to_{implied}": values for implied, values in falls.items()},
            tolerance=ALWAYS_LESS,
            holds=all(value < ALWAYS_LESS for values in falls.values() for value in values),
            figure=PICTURE,
        ),
    ]


def _largest(values: Iterable[float]) -> float:
    """Largest size, to two digits."""
    return float(f"{max(map(abs, values)):.2g}")


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, cost="slow", drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
