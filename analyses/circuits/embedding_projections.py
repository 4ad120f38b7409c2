"""Embeddings of subjects, relations and answers, beside those of the max-margin solutions and of the saddle.

All embeddings are from the balanced SVD of diag(a) W_OV, divided by the smallest training margin. Tasks: the
small task (2, 1, 1) of Figure 5 (gradient descent, no noise), whose embeddings have two dimensions, and the
paper's setting with both of its recipes: AdamW with trained attention, and full-batch gradient descent with
frozen attention. The picture shows the spans; coordinates, cosines, projections and imbalances are in its
JSON.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D

from analyses.circuits.predicted import predicted_circuit, saddle_circuit
from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.looks import COLORS
from analyses.house.reproduce import main
from analyses.paper.runs import PAPER, load_all, named
from analyses.theory.limit_runs import OV_KINDS, OvKind, descend, noise_free_task
from ocr_interp import FactRecallTask, OVCircuit, Run
from ocr_interp.circuits.geometry.embeddings import Embeddings, held_out_span

PICTURE = "embedding_projections"
SMALL, STEPS = noise_free_task(2, 1, 1), 20_000
PLACED = ("s0", "s1", "s2", "s3", "r1", "r2", "b0", "b1", "c0", "c1")
SADDLE_COLOR = "#029e73"
ANCHORS = ("s0", "r1")  # first axis along s0, second towards r1
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


TITLE = (
    "A held-out subject's image lies in the span of the told subjects' images in the factorized model, and "
    "no more than chance in the other"
)


def draw(numbers: dict[str, Any]) -> Picture:
    """Share of held-out subjects' images in that span: a mark per seed, beside solutions and chance."""
    found = {name: runs for name, runs in numbers.items() if name.endswith(tuple(RECIPES))}
    fig, ax = plt.subplots(figsize=(WIDTH, 2.6), layout="constrained")
    looks = {
        "predicted": {"ls": "-", "color": "0.1", "lw": 1.8},
        "saddle": {"ls": "--", "color": SADDLE_COLOR, "lw": 1.8},
        "random": {"ls": ":", "color": "0.3", "lw": 1.8},
    }
    for y, (name, runs) in enumerate(found.items()):
        shares = runs[0]["held_out_span"]
        for way in (way for way in looks if way in shares):
            ax.plot([shares[way]] * 2, [y - 0.36, y + 0.36], **looks[way])
        ov = "non_factorized" if name.startswith("non") else "factorized"
        values = [run["held_out_span"]["trained"] for run in runs]
        ax.plot(values, [y] * len(values), "o", ms=6, color=COLORS[ov], alpha=0.8, zorder=3)
    ax.set_yticks(range(len(found)), list(found))
    ax.set(xlim=(0.0, 1.04), ylim=(len(found) - 0.5, -0.5))
    ax.set_xlabel("share of the squared length of held-out subjects' images in the span")
    handles = [Line2D([], [], ls="", marker="o", ms=6, color="0.3", label="trained (a mark per seed)")]
    words = {"predicted": "max-margin solution", "saddle": "saddle", "random": "random weights"}
    handles += [Line2D([], [], **look, label=words[way]) for way, look in looks.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return fig


DRAWING = Drawing(TITLE, draw)


def numbers_of(small: dict[str, Embeddings], found: dict[str, list[dict]]) -> dict[str, Any]:
    """The numbers of the JSON: the small task in the plane, and what `describe` says of every run."""
    places = {name: e.coordinates(PLACED, 2, ANCHORS) for name, e in small.items()}
    planes = {
        name: {"tokens": p.labels, "xy": p.values, "explained": p.explained, "rule": p.rule}
        for name, p in places.items()
    }
    return {"anchors": ANCHORS, "small_task": planes, "tokens": SHOWN, **found}


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
    DRAWING.write(figures / PICTURE, numbers_of(small, found))
    return found


FIGURE = Figure(
    pictures=(PICTURE,),
    drawings={PICTURE: DRAWING},
    draw=make,
    claims=claims,
    cost="slow",
    experiments=named(*(prefix + ov for prefix in RECIPES.values() for ov in OV_KINDS)),
)


if __name__ == "__main__":
    main()
