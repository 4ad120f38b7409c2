"""Embeddings of subjects, relations and answers, beside those of the max-margin solutions and of the saddle.

All embeddings are from the balanced SVD of diag(a) W_OV, divided by the smallest training margin. Tasks: the
small task (2, 1, 1) of Figure 5 (gradient descent, no noise), whose embeddings have two dimensions, and the
paper's setting with both of its recipes: AdamW with trained attention, and full-batch gradient descent with
frozen attention.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from analyses.circuits.predicted import predicted_circuit, saddle_circuit
from analyses.house.claims import Claim
from analyses.house.figure import Figure
from analyses.house.looks import COLORS
from analyses.house.reproduce import main
from analyses.paper.runs import PAPER, load_all, named
from analyses.theory.limit_runs import OV_KINDS, OvKind, descend, noise_free_task
from ocr_interp import FactRecallTask, OVCircuit, Run
from ocr_interp.circuits.geometry.embeddings import Coordinates, Embeddings, held_out_span
from ocr_interp.viz.style import DIVERGING, HELD_OUT, figure_style, save_figure

PICTURE = "embedding_projections"
SMALL, STEPS = noise_free_task(2, 1, 1), 20_000
PLACED = ("s0", "s1", "s2", "s3", "r1", "r2", "b0", "b1", "c0", "c1")
SADDLE_COLOR = "#029e73"
ANCHORS = ("s0", "r1")  # first axis along s0, second towards r1
LINES = {"predicted": ("0.1", "-"), "saddle": (SADDLE_COLOR, "--")}
SHOWN = ("s0", "s1", "s4", "s5", "r1", "r2", "b0", "b1", "c0", "c1")  # two pairs, training subjects s0, s4
GRAMS = ("trained", "predicted", "saddle")
RECIPES = {"AdamW": "", "gradient descent": "descent_"}


def circuit_of(run: Run) -> OVCircuit:
    """diag(a) W_OV of subjects and relations over the smallest training margin."""
    circuit = OVCircuit.from_run(run).effective.subjects_and_relations
    return replace(circuit, left=circuit.left / run.history["train_margin"].iloc[-1])


def projections(circuit: OVCircuit, task: FactRecallTask) -> dict[str, dict[str, float]]:
    """Mean share of squared length in two subspaces, by kind of token, with that of a random direction."""
    embeddings, subjects = circuit.embeddings(1e-6), np.array(task.labels[: task.n_subjects])
    answers = task.labels[task.n_inputs :]
    tokens = {
        "training subjects": tuple(subjects[task.subject_trained]),
        "held-out subjects": tuple(subjects[~task.subject_trained]),
        "relations": ("r1", "r2"),
        "facts": answers[: task.n_facts],
        "implications": answers[task.n_facts :],
    }
    spans = {name: tokens[name] for name in ("training subjects", "relations")}
    found = {}
    for span, onto in spans.items():
        shares = {kind: embeddings.projection(labels, onto) for kind, labels in tokens.items()}
        found[span] = {kind: share.mean for kind, share in shares.items()}
        found[span]["a random direction"] = shares["facts"].random_share
    return found


def describe(run: Run, ov: OvKind) -> dict[str, Any]:
    """All numbers of a run of the paper's task, of the solution, the saddle, random weights and the start."""
    circuit = circuit_of(run)
    start = OVCircuit.from_run(run.at(0)).effective.subjects_and_relations
    ways = {
        "trained": circuit,
        "predicted": predicted_circuit(circuit, ov),
        **({"saddle": saddle_circuit(circuit)} if ov == "factorized" else {}),
        "untrained": start,
        "random": circuit.random_like(run.config.train.seed),
    }
    factors = {"trained": run, "untrained": run.at(0)}
    return {
        "provenance": circuit.provenance.summary(),
        "held_out_span": {name: held_out_span(c).mean for name, c in ways.items()},
        "held_out_span_random_share": held_out_span(circuit).random_share,
        "projections": {name: projections(c, PAPER) for name, c in ways.items()},
        "gram": {name: c.embeddings().gram(SHOWN) for name, c in ways.items() if name in GRAMS},
        "cosines": {name: c.embeddings().cosines(SHOWN) for name, c in ways.items()},
        "imbalance": {
            name: OVCircuit.from_run(which, "vocabulary", raw=True).embeddings().imbalance
            for name, which in factors.items()
        },
    }


def draw_plane(ax: Axes, place: Coordinates, title: str) -> None:
    """Tokens of the small task in the plane; sums subject + relation as crosses beside their answers."""
    at = dict(zip(place.labels, place.values, strict=True))
    colors = {"s": "0.15", "r": "0.55", "b": COLORS["factorized"], "c": COLORS["factorized"]}
    held_out = {"s1", "s3"}
    drawn: list[np.ndarray] = []
    for label, point in at.items():
        color = HELD_OUT if label in held_out else colors[label[0]]
        ax.annotate("", point, (0, 0), arrowprops={"arrowstyle": "-|>", "color": color, "lw": 1.3})
        same = sum(bool(np.linalg.norm(point - other) < 0.12) for other in drawn)
        drawn.append(point)
        side = 1 if point[0] >= 0 or label[0] == "r" else -1
        ax.annotate(
            label, point, (7 * side, 4 - 11 * same), textcoords="offset points", color=color, fontsize=9
        )
    for subject in sorted(held_out):
        for relation in ("r1", "r2"):
            ax.plot(*(at[subject] + at[relation]), "x", color=HELD_OUT, ms=7, mew=1.6)
    ax.axhline(0, color="0.85", lw=0.8, zorder=0)
    ax.axvline(0, color="0.85", lw=0.8, zorder=0)
    ax.set(xlim=(-1.6, 1.6), ylim=(-1.35, 1.35), xticks=[], yticks=[], aspect="equal")
    ax.set_title(
        f"{title}\nin view: at least {place.explained.min():.0%} of every squared length",
        loc="left",
        fontsize=9.5,
    )


def draw_cosines(ax: Axes, cosines: np.ndarray, title: str) -> None:
    """Cosines among tokens of two pairs."""
    ax.imshow(cosines, cmap=DIVERGING, vmin=-1, vmax=1)
    for (i, j), value in np.ndenumerate(cosines):
        color = "white" if abs(value) > 0.7 else "0.15"
        ax.text(
            j, i, f"{value:.2f}".replace("-0.00", "0.00"), ha="center", va="center", fontsize=5.5, color=color
        )
    ax.set_xticks(range(len(SHOWN)), SHOWN, fontsize=8)
    ax.set_yticks(range(len(SHOWN)), SHOWN, fontsize=8)
    ax.tick_params(length=0)
    ax.set_title(title, loc="left", fontsize=9.5)


def draw_span(ax: Axes, found: dict[str, list[dict]]) -> None:
    """Held-out subjects' images in the span of the training subjects': seeds as dots, solutions as lines."""
    for k, (name, runs) in enumerate(found.items()):
        ov = "non_factorized" if name.startswith("non") else "factorized"
        shares = [run["held_out_span"]["trained"] for run in runs]
        ax.bar(k, np.mean(shares), 0.6, color=COLORS[ov])
        ax.plot([k] * len(shares), shares, ".", color="0.15", ms=4)
        best, chance = (runs[0]["held_out_span"][way] for way in ("predicted", "random"))
        label = "max-margin solution" if not k else None
        ax.plot([k - 0.35, k + 0.35], [best] * 2, color="0.1", lw=1.8, label=label)
        if "saddle" in runs[0]["held_out_span"]:
            value, label = runs[0]["held_out_span"]["saddle"], "saddle" if k == len(found) - 1 else None
            ax.plot([k - 0.35, k + 0.35], [value] * 2, "--", color=SADDLE_COLOR, lw=1.8, label=label)
        ax.plot(
            [k - 0.35, k + 0.35], [chance] * 2, ":", color="0.1", label="random weights" if not k else None
        )
    ax.axhline(0.5, color="0.6", lw=0.8, zorder=0)
    ax.set_xticks(range(len(found)), [name.replace(", ", "\n") for name in found], fontsize=8)
    ax.set(ylim=(0, 1.25), ylabel="share of squared length")
    ax.set_title("Held-out subjects' images in the span\nof the training subjects'", loc="left", fontsize=9.5)
    ax.legend(frameon=False, fontsize=8, loc="upper right", ncols=3)


def draw_projections(ax: Axes, found: dict[str, list[dict]]) -> None:
    """Shares inside the subspace of training subjects, by kind of token, with solutions as lines."""
    names = [name for name in found if name.endswith("gradient descent")]
    kinds = (
        "training subjects",
        "held-out subjects",
        "relations",
        "facts",
        "implications",
        "a random direction",
    )
    for k, name in enumerate(names):
        ov = "non_factorized" if name.startswith("non") else "factorized"
        measured = [
            [run["projections"]["trained"]["training subjects"][i] for i in kinds] for run in found[name]
        ]
        solved = found[name][0]["projections"]
        x = np.arange(len(kinds)) + 0.4 * (k - 0.5)
        ax.bar(x, np.mean(measured, axis=0), 0.38, color=COLORS[ov], label=name.split(",")[0])
        for at, kind in zip(x, kinds, strict=True):
            for way, (color, style) in LINES.items():
                if way in solved:
                    value = solved[way]["training subjects"][kind]
                    ax.plot([at - 0.19, at + 0.19], [value] * 2, color=color, ls=style, lw=1.8)
    ax.set_xticks(range(len(kinds)), [kind.replace(" ", "\n", 1) for kind in kinds], fontsize=8)
    ax.set(ylim=(0, 1.25))
    ax.set_title("Embeddings in the training subjects' subspace,\ngradient descent", loc="left", fontsize=9.5)
    ax.legend(frameon=False, fontsize=8, ncols=2)


def draw_imbalance(ax: Axes, found: dict[str, list[dict]]) -> None:
    """How far trained factors are from balanced, before and after training."""
    names = [name for name in found if name.startswith("factorized")]
    for k, name in enumerate(names):
        for j, way in enumerate(("untrained", "trained")):
            values = [run["imbalance"][way] for run in found[name]]
            ax.bar(
                k + 0.4 * (j - 0.5),
                np.mean(values),
                0.38,
                color=("0.8", COLORS["factorized"])[j],
                label=way if not k else None,
            )
            ax.text(
                k + 0.4 * (j - 0.5),
                float(np.mean(values)) + 0.03,
                f"{np.mean(values):.2g}",
                ha="center",
                fontsize=8,
            )
    ax.set_xticks(range(len(names)), [name.replace(", ", "\n") for name in names], fontsize=8)
    ax.set(ylim=(0, 2))
    ax.set_title(
        "Imbalance of the factors,\n$\\|W_V^T W_V - W_O W_O^T\\|$ relative", loc="left", fontsize=9.5
    )
    ax.legend(frameon=False, fontsize=8)


def make_figure(small: dict[str, Embeddings], found: dict[str, list[dict]], figures: Path) -> None:
    with figure_style():
        fig = plt.figure(figsize=(17, 11.2), layout="constrained")
        top, middle, bottom = np.asarray(fig.subfigures(3, 1, height_ratios=(1, 1.2, 0.95)))
        places = {name: e.coordinates(PLACED, 2, ANCHORS) for name, e in small.items()}
        for ax, (name, place) in zip(top.subplots(1, 4), places.items(), strict=True):
            draw_plane(ax, place, name)
        top.suptitle(
            "(2, 1, 1): first axis along s0, second towards r1; red: held out; ×: held-out + relation\n"
        )
        panels = {
            "OV-SVM solution": found["factorized, AdamW"][0]["cosines"]["predicted"],
            "saddle": found["factorized, AdamW"][0]["cosines"]["saddle"],
            **{f"factorized, {r}": found[f"factorized, {r}"][0]["cosines"]["trained"] for r in RECIPES},
            "random weights": found["factorized, AdamW"][0]["cosines"]["random"],
        }
        for ax, (name, cosines) in zip(middle.subplots(1, 5), panels.items(), strict=True):
            draw_cosines(ax, cosines, name)
        middle.suptitle(
            "(20, 1, 3): cosines of balanced embeddings; s0, s4 training, s1, s5 held-out subjects"
        )
        left, centre, right = bottom.subplots(1, 3, width_ratios=(1.1, 1.4, 0.8))
        draw_span(left, found)
        draw_projections(centre, found)
        draw_imbalance(right, found)
        planes = {
            name: {"tokens": p.labels, "xy": p.values, "explained": p.explained, "rule": p.rule}
            for name, p in places.items()
        }
        save_figure(
            fig, figures / PICTURE, {"anchors": ANCHORS, "small_task": planes, "tokens": SHOWN, **found}
        )


def claims(found: dict[str, list[dict]]) -> list[Claim]:
    span = {name: [round(run["held_out_span"]["trained"], 4) for run in runs] for name, runs in found.items()}
    chance = [round(run["held_out_span"]["random"], 4) for runs in found.values() for run in runs]
    ours = [v for name, values in span.items() if name.startswith("factorized") for v in values]
    theirs = [v for name, values in span.items() if name.startswith("non") for v in values]
    best = round(found["factorized, AdamW"][0]["held_out_span"]["predicted"], 4)
    saddle = round(found["factorized, AdamW"][0]["held_out_span"]["saddle"], 4)
    spread = max(abs(v - 0.5) for v in chance)
    imbalance = {
        r: [round(run["imbalance"]["trained"], 4) for run in found[f"factorized, {r}"]] for r in RECIPES
    }
    return [
        Claim(
            id="embeddings_held_out_span",
            statement="Factorized: a held-out subject's image lies in the span of the training subjects' "
            "images; non-factorized: no more than a random vector's does",
            source="docs/theory.md, section 3 (OV-SVM solution: (1 + β)² / (2 (1 + β²)), and 1/2)",
            expected=f"factorized at least the OV-SVM solution, {best}; non-factorized as near 0.5 as random "
            f"weights (within {spread:.3f})",
            measured={**span, "random_weights": chance, "saddle": saddle},
            tolerance=round(spread, 4),
            holds=min(ours) >= best and max(abs(v - 0.5) for v in theirs) <= spread,
            figure=PICTURE,
        ),
        Claim(
            id="embeddings_balance",
            statement="Gradient descent from a small start leaves balanced factors, AdamW with trained "
            "attention does not: raw cosines of its W_V and W_O would mean nothing",
            source="gradient flow keeps W_Vᵀ W_V − W_O W_Oᵀ",
            expected="imbalance below 0.01 after gradient descent; reported for AdamW",
            measured=imbalance,
            tolerance=0.01,
            holds=max(imbalance["gradient descent"]) < 0.01,
            figure=PICTURE,
        ),
    ]


def make(runs: Path, figures: Path) -> dict[str, list[dict]]:
    small: dict[str, Embeddings] = {}
    for ov in reversed(OV_KINDS):
        run = descend(SMALL, ov, STEPS, runs / "figure_5" / f"{ov}_2_1_1")
        circuit = circuit_of(run)
        name = ov.replace("_", "-")
        small[f"{name}, max-margin solution"] = predicted_circuit(circuit, ov).embeddings()
        small[f"{name}, {STEPS:,} steps"] = circuit.embeddings()
    found = {
        f"{ov.replace('_', '-')}, {recipe}": [describe(run, ov) for run in load_all(runs, f"{prefix}{ov}")]
        for ov in reversed(OV_KINDS)
        for recipe, prefix in RECIPES.items()
    }
    make_figure(small, found, figures)
    return found


FIGURE = Figure(
    pictures=(PICTURE,),
    draw=make,
    claims=claims,
    cost="slow",
    experiments=named(*(prefix + ov for prefix in RECIPES.values() for ov in OV_KINDS)),
)


if __name__ == "__main__":
    main()
