"""Theorem 1: gradient descent at finite time, and the max-margin (OV-SVM) solution, computed.

The two are kept apart. Evidence about training (left, middle): full-batch gradient descent, no weight decay,
small start, float64, with frozen attention as in the theorem, and with trained attention and the interval of
its smallest norms; AdamW without and with weight decay. Computation (right): annealed L-BFGS, which reaches
the max-margin solution and says nothing about gradient descent. Rows: the distance of the norm at margin 1
from the smallest possible one, the held-out coefficient beta beside that of the saddle, and the cosines with
both max-margin solutions (AdamW: without decay). Norm and cosine are nearly the same at the saddle and at the
max-margin solution: only beta tells where descent goes. Takes some minutes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analyses.house.claims import Claim
from analyses.house.figure import Figure
from analyses.house.looks import COLORS, NAMES
from analyses.house.reproduce import main
from analyses.paper.runs import PAPER, load_all, named
from analyses.saddle.runs import descend
from analyses.theory.limit_runs import NORMS
from ocr_interp import Run, solve
from ocr_interp.theory import saddle_solution, trained_attention_beta_interval
from ocr_interp.training.continuation import ComputedLimit, compute_limit
from ocr_interp.viz.curves import plot_band
from ocr_interp.viz.style import figure_style, save_figure

BETA = solve(PAPER).beta
SADDLE = saddle_solution(PAPER, outputs="vocabulary", inputs="eos")
"""The saddle of the problem as these runs see it: no noise, EOS in every example."""

TRAINED_SADDLE = saddle_solution(PAPER, attention="trained").beta
"""β of the saddle with trained attention, from scores as small as the factors."""

INTERVAL = trained_attention_beta_interval(PAPER)
NORM_OF: dict[str, str] = {**NORMS}
TRAINED_ATTENTION = "#029e73"
NEEDED = (
    "descent_factorized",
    "descent_non_factorized",
    "descent_trained_attention",
    *(f"adamw_{kind}{decay}" for kind in COLORS for decay in ("", "_decay")),
)
LEFT = {"ha": "left", "va": "bottom", "color": "0.3", "fontsize": 8.5}
LATER, LOOKED_AT = 60.0, 59.5
"""log10 of a time of gradient descent that no run of fixed steps reaches, and of where it is read."""

Measured = tuple[dict[str, list[Run]], dict[str, ComputedLimit], list[float]]
"""Runs by experiment, the computed solutions by OV kind, and β of trained attention at LATER, every seed."""


def make(runs: Path, figures: Path) -> Measured:
    found = {name: load_all(runs, name) for name in NEEDED}
    limits = {kind: compute_limit(PAPER, kind, tolerance=3e-4) for kind in COLORS}
    started = {"entries": 0.01, "scores": 1.0}
    later = [descend(runs, (20, 1, 3), LATER, **started, seed=seed).beta_at(LOOKED_AT) for seed in range(3)]
    with figure_style():
        fig, axes = plt.subplots(3, 3, figsize=(12.5, 9.2), sharey="row", layout="constrained")
        draw_descent(axes[:, 0], found)
        draw_adamw(axes[:, 1], found)
        draw_computed(axes[:, 2], limits)
        for ax in axes[0]:
            ax.set(yscale="log")
        axes[0, 0].set_ylabel("norm at margin 1, above the smallest\npossible one (relative)")
        axes[1, 0].set_ylabel("held-out coefficient β")
        for ax in axes[1]:
            ax.axhline(BETA, color="0.3", ls=":", lw=1.2)
            ax.axhline(0, color="0.3", ls=":", lw=1.2)
            ax.set(ylim=(-0.08, 1.0))
            ax.axhline(SADDLE.beta, color="0.3", ls=(0, (5, 2)), lw=1.2)
        for value, name in ((BETA, "max-margin solution, √(1/3)"), (SADDLE.beta, "saddle")):
            axes[1, 2].text(0.02, value + 0.01, name, **LEFT, transform=axes[1, 2].get_yaxis_transform())
        axes[2, 0].set_ylabel("cosine with a max-margin solution")
        axes[2, 2].axis("off")
        for ax in axes.flat:
            if ax.lines:
                ax.legend(frameon=False, fontsize=8, loc=(0.02, 0.18) if ax in axes[1] else "best")
        save_figure(fig, figures / "theorem_1", numbers_of(found, limits))
    return found, limits, later


def claims(measured: Measured) -> list[Claim]:
    """The claims about gradient descent and about the computed solutions."""
    found, limits, later = measured
    trained = attention_claim(found["descent_trained_attention"], later)
    return [*descent_claims(found), trained, *limit_claims(limits)]


def draw_descent(axes: np.ndarray, found: dict[str, list[Run]]) -> None:
    """Gradient descent: frozen attention (the theorem) and trained attention."""
    above, below, cosines = axes
    above.set_title("Evidence: gradient descent", loc="left")
    for kind in COLORS:
        histories = [run.history for run in found[f"descent_{kind}"]]
        for column, dashes, what in (("excess", "-", "true"), ("gap", (0, (2, 2)), "certified")):
            label = f"{NAMES[kind]}: {what}"
            plot_band(above, histories, f"{column}_{NORM_OF[kind]}", COLORS[kind], label, linestyle=dashes)
        plot_band(below, histories, "beta", COLORS[kind], NAMES[kind])
        draw_cosines(cosines, kind, histories)
    histories = [run.history for run in found["descent_trained_attention"]]
    plot_band(below, histories, "beta", TRAINED_ATTENTION, "factorized, trained attention")
    below.axhspan(*INTERVAL, color=TRAINED_ATTENTION, alpha=0.15, lw=0, label="its smallest norms")
    label_steps(axes)


def draw_adamw(axes: np.ndarray, found: dict[str, list[Run]]) -> None:
    """AdamW on the same full batch, without and with weight decay."""
    axes[0].set_title("Another optimiser: AdamW", loc="left")
    for kind in COLORS:
        for suffix, dashes, what in (("", "-", "no decay"), ("_decay", (0, (4, 1.5)), "decay 0.03")):
            histories = [run.history for run in found[f"adamw_{kind}{suffix}"]]
            label = f"{kind.replace('_', '-')}, {what}"
            excess = f"excess_{NORM_OF[kind]}"
            plot_band(axes[0], histories, excess, COLORS[kind], label, linestyle=dashes)
            plot_band(axes[1], histories, "beta", COLORS[kind], label, linestyle=dashes)
        draw_cosines(axes[2], kind, [run.history for run in found[f"adamw_{kind}"]])
    label_steps(axes)


def draw_cosines(ax: Axes, kind: str, histories: list[pd.DataFrame]) -> None:
    """Cosines of a model with both solutions, whose cosine with each other is 0.926."""
    for norm, dashes in (("nuclear", "-"), ("frobenius", (0, (2, 2)))):
        label = f"{kind.replace('_', '-')}: with the {norm}-norm solution"
        plot_band(ax, histories, f"cosine_{norm}", COLORS[kind], label, linestyle=dashes)


def label_steps(axes: np.ndarray) -> None:
    for ax in axes:
        ax.set(xscale="log", xlabel="training step")


def draw_computed(axes: np.ndarray, limits: dict[str, ComputedLimit]) -> None:
    """The stages of the annealing, against seconds."""
    axes[0].set_title("Computing the max-margin solution", loc="left")
    for kind, limit in limits.items():
        seconds = [stage.seconds for stage in limit.stages]
        for ax, values in zip(axes[:2], stage_values(limit), strict=True):
            ax.plot(seconds, values, "o-", ms=3.5, color=COLORS[kind], label=f"{NAMES[kind]}")
    for ax in axes[:2]:
        ax.set(xscale="log", xlabel="seconds")
    mark_percent(axes[0])


def mark_percent(ax: Axes) -> None:
    ax.axhline(0.01, color="0.3", ls=":", lw=1.2, label="1 %")


def stage_values(limit: ComputedLimit) -> tuple[list[float], list[float]]:
    """Certified gap and beta of each stage."""
    return [stage.gap for stage in limit.stages], [stage.beta for stage in limit.stages]


def descent_claims(found: dict[str, list[Run]]) -> list[Claim]:
    """Claims about the direction of both models under gradient descent, at finite time."""
    claims = []
    for kind in COLORS:
        runs, norm = found[f"descent_{kind}"], NORM_OF[kind]
        other = "frobenius" if norm == "nuclear" else "nuclear"
        best = solve(PAPER, norm).beta
        measured = {
            "steps": runs[0].step,
            "beta": last(runs, "beta"),
            "beta_halfway": [float(f"{tail(run, 'beta')[0]:.5g}") for run in runs],
            "beta_max_margin": best,
            **{
                column: last(runs, column)
                for column in (f"excess_{norm}", f"gap_{norm}", f"cosine_{norm}", f"cosine_{other}")
            },
            "excess_falls": [bool(np.diff(tail(run, f"excess_{norm}")).max() < 0) for run in runs],
        }
        claims.append(saddle_claim(runs, measured) if norm == "nuclear" else solution_claim(measured))
    return claims


def saddle_claim(runs: list[Run], measured: dict[str, Any]) -> Claim:
    """The factorized model, by β: norm and cosine fit the saddle and the max-margin solution alike."""
    steps = [tail(run, "beta") for run in runs]
    nearer = [abs(beta[-1] - SADDLE.beta) < abs(beta[-1] - BETA) for beta in steps]
    not_towards = [abs(beta[-1] - BETA) >= abs(beta[0] - BETA) for beta in steps]
    excess = SADDLE.objective / solve(PAPER).objective - 1
    return Claim(
        id="theorem_1_factorized",
        statement="Theorem 1, factorized model under gradient descent (frozen attention, small start): the "
        "KKT point that it nears is the rank-one saddle, not the max-margin solution. Its norm still falls "
        "towards the smallest, and its cosine with the nuclear-norm solution is the larger one, as at the "
        "saddle",
        source="Theorem 1; which KKT point: derived (docs/theory.md §10)",
        expected="beta nearer to the saddle's (EOS in every example) than to the max-margin solution's, and "
        "over the second half of training not moving towards the latter, every seed. Set after the saddle "
        "was known; the first criterion, norm falls and cosine larger, holds at both points",
        measured={
            **measured,
            "beta_saddle": SADDLE.beta,
            "excess_nuclear_of_the_saddle": excess,
            "nearer_to_the_saddle": nearer,
            "not_moving_towards_the_max_margin_solution": not_towards,
        },
        tolerance=0.0,
        holds=all(nearer) and all(not_towards),
        figure="theorem_1",
    )


def solution_claim(measured: dict[str, Any]) -> Claim:
    """The non-factorized model, whose only KKT point is the max-margin solution."""
    nearer = [a > b for a, b in zip(measured["cosine_frobenius"], measured["cosine_nuclear"], strict=True)]
    return Claim(
        id="theorem_1_non_factorized",
        statement="Theorem 1, non-factorized model under gradient descent (frozen attention, small start): "
        "norm and cosine near the Frobenius-norm max-margin solution",
        source="Theorem 1",
        expected="distance to the smallest Frobenius norm falls over the second half of training, and the "
        "cosine with that solution is the larger one, every seed (beta is reported, not judged)",
        measured=measured,
        tolerance=0.0,
        holds=all(nearer) and all(measured["excess_falls"]),
        figure="theorem_1",
    )


def attention_claim(runs: list[Run], later: list[float]) -> Claim:
    """Trained attention from scores of 1: inside the interval of the smallest norms, then above it."""
    beta = [float(run.history["beta"].iloc[-1]) for run in runs]
    early = [float(run.history["beta"].iloc[1]) for run in runs]
    inside = all(INTERVAL[0] <= value <= INTERVAL[1] for value in beta)
    return Claim(
        id="trained_attention_interval",
        statement="With trained attention the smallest norms have beta in another interval. Gradient descent "
        f"from scores of 1 passes through it: it is inside after {runs[0].step:,} steps, and above it later, "
        f"on the way to the saddle of trained attention (beta {TRAINED_SADDLE:.3f})",
        source="derived (docs/theory.md §6, §10)",
        expected=f"beta in [{INTERVAL[0]:.3f}, {INTERVAL[1]:.3f}] after {runs[0].step:,} steps, and above it "
        f"at t = 1e{LATER:g} (the same start of width 40, no EOS), every seed; the second part was set after "
        "the saddle was known",
        measured={
            "beta": beta,
            f"beta_at_1e{LATER:g}": later,
            "beta_at_the_first_logged_step": early,
            "beta_saddle": TRAINED_SADDLE,
        },
        tolerance=0.0,
        holds=inside and min(later) > INTERVAL[1],
        figure="theorem_1",
    )


def last(runs: list[Run], column: str) -> list[float]:
    """The last value of a column, one per seed."""
    return [float(f"{run.history[column].iloc[-1]:.5g}") for run in runs]


def tail(run: Run, column: str) -> np.ndarray:
    """Ten values of a column, evenly over the second half of training."""
    values = run.history[column].to_numpy()
    return values[np.linspace(len(values) // 2, len(values) - 1, 10).astype(int)]


def limit_claims(limits: dict[str, ComputedLimit]) -> list[Claim]:
    """Claims about the computed solutions, judged by the closed form."""
    claims = []
    for kind, limit in limits.items():
        predicted = solve(PAPER, NORM_OF[kind])
        last = limit.stages[-1]
        claims.append(
            Claim(
                id=f"computed_limit_{kind}",
                statement=f"The smallest norm of the {kind.replace('_', '-')} model's own parameters at "
                "margin 1 (annealed L-BFGS; no evidence about gradient descent) is at the max-margin "
                "solution",
                source="closed form (docs/theory.md)",
                expected=f"certified gap <= 1 %, beta within 0.01 of {predicted.beta:.4f}",
                measured={"gap": last.gap, "beta": last.beta, "seconds": last.seconds},
                tolerance=0.01,
                holds=bool(last.gap <= 0.01 and abs(last.beta - predicted.beta) <= 0.01),
                figure="theorem_1",
            )
        )
    return claims


def numbers_of(found: dict[str, list[Run]], limits: dict[str, ComputedLimit]) -> dict[str, object]:
    """The numbers that the figure shows."""
    columns = [f"{c}_{norm}" for c in ("gap", "excess", "cosine") for norm in ("nuclear", "frobenius")]
    numbers: dict[str, object] = {
        "beta_max_margin": BETA,
        "beta_saddle": SADDLE.beta,
        "beta_interval_trained_attention": INTERVAL,
        "beta_saddle_trained_attention": TRAINED_SADDLE,
    }
    for name, runs in found.items():
        numbers[name] = {
            "step": runs[0].history["step"].to_numpy()[::4],
            **{c: [run.history[c].to_numpy()[::4] for run in runs] for c in ("beta", *columns)},
        }
    for kind, limit in limits.items():
        gap, beta = stage_values(limit)
        seconds = [stage.seconds for stage in limit.stages]
        numbers[f"computed_{kind}"] = {"seconds": seconds, "gap": gap, "beta": beta}
    return numbers


FIGURE = Figure(pictures=("theorem_1",), draw=make, claims=claims, cost="slow", experiments=named(*NEEDED))


if __name__ == "__main__":
    main()
