"""Softmax attention: scores cost no norm, so descent goes neither to r^⅓ nor stays at r^¼.

β of descent with trained softmax attention, prompts (subject, relation, EOS), beside the rank-one point of
the attention that the model has at that time. Left to right: three tasks, five starts each.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D

from analyses.elsewhere.criteria import (
    AT_ITS_ATTENTION,
    ENTRIES,
    FALLS,
    FROM_CUBE_ROOT,
    SOFTMAX_SEEDS,
    SOFTMAX_TASKS,
    TIME,
)
from analyses.elsewhere.fixed_rank import kappa_of, rank_of
from analyses.elsewhere.rank_one import (
    free_softmax_point,
    rank_one_point,
    softmax_attention,
)
from analyses.elsewhere.softmax_descent import softmax_descent
from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.saddle.runs import Sizes, noise_free
from ocr_interp.theory import saddle_solution

PICTURE = "elsewhere_softmax"
SHOWN = (5, 10, 20, 40, 60, 80, 100)
"""log10 of the times at which the rank-one point of the attention is shown."""

MEASURED, POINT = "#0173b2", "0.15"
LINES = {
    "frozen_uniform": "frozen: $r^{1/4}$",
    "linear_trained": "linear, trained: $r^{1/3}$",
    "softmax_in_the_end": "best attention",
}
"""What the lines are at which β would be constant."""


@dataclass(frozen=True)
class SoftmaxPath:
    """One descent.

    Attributes:
        sizes, seed: task and start.
        log10_time, beta, norm_at_margin_1: by decade.
        point_at: β of the rank-one point for the attention at the times SHOWN.
        attention: weights of the subject at TIME: told r1, told r2, untold r1, untold r2.
        rank, kappa: number of modes at TIME, and κ of the residuals.
    """

    sizes: Sizes
    seed: int
    log10_time: list[float]
    beta: list[float]
    norm_at_margin_1: list[float]
    point_at: list[float]
    attention: list[float]
    rank: int
    kappa: float

    def norm_at(self, log10_time: float) -> float:
        """Nuclear norm of W at margin 1 at a time."""
        return float(np.interp(log10_time, self.log10_time, self.norm_at_margin_1))


@dataclass(frozen=True)
class Measured:
    """All descents, and β of the saddles of linear attention and of the end with softmax, by task."""

    paths: list[SoftmaxPath]
    cube_root: dict[Sizes, float]
    frozen: dict[Sizes, float]
    end: dict[Sizes, float]


def follow(sizes: Sizes, seed: int, log10_time: float = TIME) -> SoftmaxPath:
    """One descent and what the small program says about its attention."""
    found = softmax_descent(noise_free(sizes), log10_time=log10_time, entries=ENTRIES, seed=seed)
    history = found.history
    kinds = ["told", "untold", "r1", "r2", "eos"]
    at = [
        softmax_attention(np.array([np.interp(t, history["log10_time"], history[k]) for k in kinds]))
        for t in SHOWN
    ]
    rank = rank_of(found.W)
    return SoftmaxPath(
        sizes=sizes,
        seed=seed,
        log10_time=history["log10_time"].tolist(),
        beta=history["beta"].tolist(),
        norm_at_margin_1=history["norm_at_margin_1"].tolist(),
        point_at=[rank_one_point(sizes, attention).beta for attention in at],
        attention=[weights[0] for weights in at[-1].values()],
        rank=rank,
        kappa=kappa_of(found.W, found.G, rank),
    )


def make(runs: Path, figures: Path) -> Measured:
    torch.set_num_threads(1)
    tasks = {sizes: noise_free(sizes) for sizes in SOFTMAX_TASKS}
    measured = Measured(
        paths=[follow(sizes, seed) for sizes in SOFTMAX_TASKS for seed in SOFTMAX_SEEDS],
        cube_root={sizes: saddle_solution(t, attention="trained").beta for sizes, t in tasks.items()},
        frozen={sizes: saddle_solution(t, inputs="eos").beta for sizes, t in tasks.items()},
        end={sizes: free_softmax_point(sizes).beta for sizes in SOFTMAX_TASKS},
    )
    DRAWING.write(figures / PICTURE, numbers_of(measured))
    return measured


def draw(numbers: dict[str, Any]) -> Picture:
    """β over time, a panel per task, with the rank-one points of the attention at some times."""
    fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.7), sharey=True, layout="constrained")
    for ax, sizes in zip(axes, SOFTMAX_TASKS, strict=True):
        for path in numbers["descents"]:
            if tuple(path["sizes"]) == sizes:
                ax.plot(path["log10_time"], path["beta"], color=MEASURED, lw=1.5, alpha=0.6)
                ax.plot(numbers["shown_log10_time"], path["point_at"], "o", mfc="none", mec=POINT, ms=6)
        lines = numbers["beta_of"][str(sizes)]
        for name, text in LINES.items():
            ax.axhline(lines[name], color="0.45", ls=":", lw=1.1)
            ax.text(105, lines[name] - 0.006, text, fontsize=7, color="0.35", va="top", ha="right")
        ax.set(xscale="log", xlim=(3, 110), ylim=(0.45, 0.93))
        ax.set_xticks((3, 10, 30, 100), [f"$10^{{{t}}}$" for t in (3, 10, 30, 100)])
        ax.minorticks_off()
        ax.set_title(f"{sizes[0]} pairs, {sizes[1]} told,\n{sizes[2]} untold", loc="left", fontsize=9)
    axes[1].set_xlabel("time t of gradient descent")
    axes[0].set_ylabel("held-out coefficient β")
    handles = [
        Line2D([], [], color=MEASURED, lw=2, label="gradient descent"),
        Line2D(
            [], [], ls="", marker="o", mfc="none", mec=POINT, ms=6, label="predicted from the attention then"
        ),
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return fig


DRAWING = Drawing(
    "Softmax attention has no fixed β: attention costs no norm and drifts, and W follows it",
    draw,
)


def numbers_of(measured: Measured) -> dict[str, object]:
    """Every descent, and the lines."""
    lines = {
        str(sizes): {
            "frozen_uniform": measured.frozen[sizes],
            "linear_trained": measured.cube_root[sizes],
            "softmax_in_the_end": measured.end[sizes],
        }
        for sizes in SOFTMAX_TASKS
    }
    return {"beta_of": lines, "shown_log10_time": SHOWN, "descents": [asdict(p) for p in measured.paths]}


def claims(measured: Measured) -> list[Claim]:
    """W at the rank-one point of its attention; β above r^⅓; the norm still falling."""
    paths = measured.paths
    off = [path.beta[-1] - path.point_at[-1] for path in paths]
    above = [path.beta[-1] - measured.cube_root[path.sizes] for path in paths]
    falls = [1 - path.norm_at(TIME) / path.norm_at(20.0) for path in paths]
    n_modes = [path.sizes[0] for path in paths]
    return [
        Claim(
            id="softmax_rank_one_at_its_attention",
            statement="With trained softmax attention W is at t = 1e100 at the rank-one saddle of the "
            "attention that the model has then",
            source="derived after a trial (docs/theory.md §10)",
            expected=f"β within {AT_ITS_ATTENTION} of that point's and rank n, every task and seed",
            measured={
                "beta_minus_point": off,
                "rank_minus_n": [path.rank - n for path, n in zip(paths, n_modes, strict=True)],
                "kappa": [path.kappa for path in paths],
                "beta": [path.beta[-1] for path in paths],
            },
            tolerance=AT_ITS_ATTENTION,
            holds=all(
                abs(o) <= AT_ITS_ATTENTION and path.rank == n
                for o, path, n in zip(off, paths, n_modes, strict=True)
            ),
            figure=PICTURE,
        ),
        Claim(
            id="softmax_not_the_cube_root",
            statement="Softmax attention does not go to the saddle of trained linear attention (r^⅓): at "
            "t = 1e100 β is above it",
            source="derived after a trial (docs/theory.md §10)",
            expected=f"β minus that saddle's > {FROM_CUBE_ROOT}, every task and seed",
            measured={
                "beta_minus_cube_root_saddle": above,
                "beta_minus_frozen_saddle": [p.beta[-1] - measured.frozen[p.sizes] for p in paths],
                "beta_minus_softmax_end": [p.beta[-1] - measured.end[p.sizes] for p in paths],
            },
            tolerance=FROM_CUBE_ROOT,
            holds=all(a > FROM_CUBE_ROOT for a in above),
            figure=PICTURE,
        ),
        Claim(
            id="softmax_attention_drifts",
            statement="Scores in a softmax cost no norm, so attention goes on towards smaller norms of W",
            source="derived after a trial (docs/theory.md §10)",
            expected=f"norm at margin 1 falls by more than {FALLS:.1%} from t = 1e20 to 1e100, every task "
            "and seed",
            measured={
                "share_that_it_falls": falls,
                **{
                    f"attention_to_the_{subject}_subject_under_{relation}": [p.attention[k] for p in paths]
                    for k, (subject, relation) in enumerate(
                        (s, r) for s in ("told", "untold") for r in ("r1", "r2")
                    )
                },
            },
            tolerance=FALLS,
            holds=all(f > FALLS for f in falls),
            figure=PICTURE,
        ),
    ]


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, cost="slow", drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
