"""Figure 5: both max-margin solutions and the saddle beside trained models, and their embeddings' geometry.

Heat maps are in figure_5_max_margin, the geometry in figure_5_geometry. The models are trained by full-batch
gradient descent for STEPS steps, with frozen attention and without weight decay. For m_train < m_test the
factorized one goes to the saddle, which stands beside gradient descent at t = 1e100. The max-margin solution
is also computed by L-BFGS, and only that is judged against the theory.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from analyses.house.claims import Claim
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.saddle.runs import descend as descend_to
from analyses.theory.limit_runs import NORMS, OvKind, computed_limit, descend, noise_free_task
from ocr_interp import FactRecallTask, Run, held_out_beta, solve
from ocr_interp.theory import SaddleSolution, Solution, cosine_with, saddle_solution
from ocr_interp.training.long_descent import LongDescent
from ocr_interp.viz.geometry import PairGeometry, plot_pair_geometry
from ocr_interp.viz.heatmaps import plot_ov_circuit
from ocr_interp.viz.style import figure_style, save_figure

SIZES = ((2, 1, 1), (20, 1, 3))
STEPS = 20_000
TOLERANCE = 0.01
HEAT_MAPS = "figure_5_max_margin"
GEOMETRY = "figure_5_geometry"
CAPTION = (
    "One pair: $s$ its training and $s'$ its held-out subject (means), $b$ its fact, $c$ its implication. "
)
CAPTION += "Shaded: the subjects' plane. Dots: the other pairs' mean answers."
EXPECTED_RECALL = {"2_1_1": 0.985, "20_1_3": 0.61}
ROWS: tuple[OvKind, ...] = ("non_factorized", "factorized")
PROBLEM = {"factorized": "OV-SVM", "non_factorized": "W-SVM"}
TIME, SMALL_START = 100.0, 0.001
"""log10 of the time, and the entries at the start, of the descent beside the saddle."""


def balanced_embeddings(W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """U Σ^½ and V Σ^½ of W = U Σ Vᵀ: balanced embeddings, whose cosines are well defined."""
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    return U * np.sqrt(s), Vt.T * np.sqrt(s)


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosines of the rows of two matrices."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return (left * right).sum(1) / lengths


def measure(W: np.ndarray, task: FactRecallTask) -> dict[str, float]:
    """β, cosines with both solutions, and the cosines of the geometry, means over tokens."""
    inputs, outputs = balanced_embeddings(W)
    subjects, relations = inputs[: task.n_subjects], inputs[task.n_subjects :]
    r1, r2 = relations[:1], relations[1:]
    with_relation = [abs(cosines(subjects, np.broadcast_to(r, subjects.shape))).max() for r in (r1, r2)]
    test = task.triples.of_split("held_out_implication")
    recalled = cosines(inputs[test.subject] + r2, outputs[test.answer])
    told = task.subject_trained
    return {
        "beta": held_out_beta(W, task).projection,
        **{f"cosine_{PROBLEM[ov]}": cosine_with(W, solve(task, NORMS[ov])) for ov in ROWS},
        "relations": float(cosines(r1, r2)[0]),
        "subject_relation_largest": float(max(with_relation)),
        "train_held_out_same_pair": _same_pair(subjects, task.subject_fact, told),
        "held_out_recall": float(recalled.mean()),
        "held_out_recall_smallest": float(recalled.min()),
    }


def _same_pair(subjects: np.ndarray, pair: np.ndarray, told: np.ndarray) -> float:
    """Mean cosine of a pair's training subjects with its held-out ones."""
    found = [cosines(subjects[[s]], subjects[~told & (pair == pair[s])]) for s in np.flatnonzero(told)]
    return float(np.mean(np.concatenate(found)))


def heat_map(ax: Axes, W: np.ndarray, task: FactRecallTask, title: str, bar: bool) -> dict[str, float]:
    """One circuit at training margin 1, with its numbers in the title."""
    found = measure(W, task)
    plot_ov_circuit(ax, W, task, 1 - 1 / task.n_pairs, "W at training margin 1")
    colour_bar = ax.collections[0].colorbar
    if colour_bar is not None and not bar:
        colour_bar.remove()
    ax.set_xticks(ax.get_xticks(), ["training", "held-out", ""])
    beta = f"{found['beta']:.3f}".replace("-0.000", "0.000")
    shown = ", ".join(f"{p} {found[f'cosine_{p}']:.3f}" for p in PROBLEM.values())
    ax.set_title(f"{title}\nβ = {beta}\ncos: {shown}", loc="left", fontsize=9.5, pad=16)
    return found


def draw_heat_maps(
    trained: dict[tuple[int, ...], dict[OvKind, Run]], late: LongDescent, figures: Path
) -> dict:
    """Rows: W-SVM, OV-SVM, the saddle; columns: solution and trained model of both tasks."""
    numbers = {}
    fig, axes = plt.subplots(
        3, 4, figsize=(15, 11), width_ratios=(1.08, 1.2, 1.6, 1.75), layout="constrained"
    )
    left, right = axes[2, 2:]
    sizes, W = SIZES[1], late.W / late.history["margin"].iloc[-1]
    exact = saddle_solution(late.task)
    numbers["saddle"] = {
        "solution": heat_map(left, exact.W, late.task, f"saddle, {sizes}", bar=False),
        "trained": heat_map(right, W, late.task, "factorized, t = $10^{100}$", bar=True),
        "nuclear_norm_above_the_smallest": exact.objective / solve(late.task).objective - 1,
    }
    for ax in axes[2, :2]:
        ax.axis("off")
    equal = "At equal group sizes, as in (2, 1, 1),\nthe saddle is the OV-SVM solution itself."
    axes[2, 0].text(0, 0.6, equal, fontsize=10)
    for k, (sizes, runs) in enumerate(trained.items()):
        for row, ov in enumerate(ROWS):
            run = runs[ov]
            exact = solve(run.task, NORMS[ov]).W
            learned = run.subjects_and_relations_W / run.history["train_margin"].iloc[-1]
            name = f"{PROBLEM[ov]} solution, {sizes}"
            left, right = axes[row, 2 * k : 2 * k + 2]
            steps = f"{ov.replace('_', '-')}, {STEPS:,} steps"
            numbers[f"{ov}_{sizes}"] = {
                "solution": heat_map(left, exact, run.task, name, bar=False),
                "trained": heat_map(right, learned, run.task, steps, bar=True),
                "trained_circuit_over_margin": learned,
            }
    save_figure(fig, figures / HEAT_MAPS, {"gradient_descent_steps": STEPS, **numbers})
    return numbers


def draw_geometry(trained: dict[tuple[int, ...], dict[OvKind, Run]], figures: Path) -> None:
    """Rows: tasks; columns: W-SVM, OV-SVM, the saddle, the trained factorized model."""
    fig = plt.figure(figsize=(17, 10))
    numbers = {}
    for row, (sizes, runs) in enumerate(trained.items()):
        run = runs["factorized"]
        shown: dict[str, Solution | SaddleSolution] = {
            f"{PROBLEM[ov]} solution": solve(run.task, NORMS[ov]) for ov in ROWS
        }
        saddle = saddle_solution(run.task)
        shown["saddle" if saddle.is_strict_saddle else "saddle (the OV-SVM solution)"] = saddle
        embeddings = {name: (s.input_embeddings(), s.output_embeddings()) for name, s in shown.items()}
        circuit = run.subjects_and_relations_W / run.history["train_margin"].iloc[-1]
        embeddings[f"factorized, {STEPS:,} steps"] = balanced_embeddings(circuit)
        for column, (name, (inputs, outputs)) in enumerate(embeddings.items()):
            ax = fig.add_subplot(2, 4, 4 * row + column + 1, projection="3d")
            geometry = PairGeometry.of(inputs, outputs, run.task)
            plot_pair_geometry(ax, geometry)
            held = f"{geometry.shown:.0%} of every squared length lies in view"
            if geometry.shown < 0.995:
                held = "at least " + held
            ax.set_title(f"{name}, {sizes}\n{held}", fontsize=10, y=1.08)
            numbers[f"{name} {sizes}"] = asdict(geometry)
    fig.text(0.5, 0.015, CAPTION, ha="center", fontsize=10)
    fig.subplots_adjust(0, 0.02, 1, 0.91, wspace=0, hspace=0.06)
    save_figure(fig, figures / GEOMETRY, numbers)


def claims(found: dict[str, dict[str, dict[str, float]]]) -> list[Claim]:
    """Judged by closed form and computed solution; the saddle and gradient descent are only reported."""
    judged = ("closed_form", "computed_limit")
    measured: dict[str, dict[str, list[float]]] = {"geometry": {}, "recall": {}}
    off: dict[str, list[float]] = {"geometry": [], "recall": []}
    for sizes, ways in found.items():
        for by, m in ways.items():
            measured["geometry"][f"{by}_relations_{sizes}"] = [round(m["relations"], 6)]
            largest = [round(m["subject_relation_largest"], 6)]
            measured["geometry"][f"{by}_subject_relation_largest_{sizes}"] = largest
            same = [round(m["train_held_out_same_pair"], 6)]
            measured["geometry"][f"{by}_train_held_out_same_pair_{sizes}"] = same
            recall = [round(m[key], 6) for key in ("held_out_recall_smallest", "held_out_recall")]
            measured["recall"][f"{by}_{sizes}"] = recall
            if by in judged:
                off["geometry"] += [abs(m["relations"] + 1), m["subject_relation_largest"]]
                off["recall"] += [abs(value - EXPECTED_RECALL[sizes]) for value in recall]
    rule = (
        f"closed form and solution by L-BFGS within {TOLERANCE}, both tasks; the saddle and gradient descent "
    )
    rule += f"after {STEPS:,} steps reported, not judged"
    table = {
        "geometry": "relations are antipodal (cosine -1) and orthogonal to every subject (0)",
        "recall": "held-out subject + r2 with its implication: cosine 0.985 at (2, 1, 1) and 0.61 at "
        "(20, 1, 3); smallest and mean over subjects",
    }
    return [
        Claim(
            id=f"figure_5_{key}",
            statement=f"Smallest nuclear norm: {statement}",
            source="docs/theory.md, section 3; Figure 5 of the paper",
            expected=rule,
            measured=measured[key],
            tolerance=TOLERANCE,
            holds=max(off[key]) <= TOLERANCE,
            figure=GEOMETRY,
        )
        for key, statement in table.items()
    ]


def make(runs: Path, figures: Path) -> dict[str, dict[str, dict[str, float]]]:
    trained: dict[tuple[int, ...], dict[OvKind, Run]] = {}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for sizes in SIZES:
        task, name = noise_free_task(*sizes), "_".join(map(str, sizes))
        trained[sizes] = {ov: descend(task, ov, STEPS, runs / "figure_5" / f"{ov}_{name}") for ov in ROWS}
        limit = computed_limit(task, "factorized")
        found[name] = {
            "closed_form": measure(solve(task).W, task),
            **({"computed_limit": measure(limit.W, task)} if limit else {}),
            "saddle": measure(saddle_solution(task).W, task),
            "gradient_descent": measure(trained[sizes]["factorized"].subjects_and_relations_W, task),
        }
    late = descend_to(runs, SIZES[1], TIME, entries=SMALL_START)
    with figure_style():
        draw_heat_maps(trained, late, figures)
        draw_geometry(trained, figures)
    return found


FIGURE = Figure(pictures=(HEAT_MAPS, GEOMETRY), draw=make, claims=claims, cost="slow")


if __name__ == "__main__":
    main()
