"""A run as a section: heat map, geometry and mechanism at its snapshots, and its curves, under one slider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.graphs.mechanism_graph import mechanism_graph
from ocr_interp.storage.plain import plain
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import solve
from ocr_interp.theory.closed.closed_form import has_closed_form
from ocr_interp.theory.geometry import symmetric_factor
from ocr_interp.training.run import Run, Snapshot
from ocr_interp.viz.geometry import PairGeometry
from ocr_interp.viz.heatmaps import DisplayOrder
from ocr_interp.viz.report.circuits import ablation_panel, circuit_panel
from ocr_interp.viz.report.curves import run_charts
from ocr_interp.viz.report.panels import (
    DIGITS,
    LEVELS,
    MATRIX_BYTES,
    Panel,
    Section,
    label,
    quantized,
    table_panel,
)
from ocr_interp.viz.text.predictions import PredictedBeta, run_verdict
from ocr_interp.viz.text.run import describe_run

MOST_STEPS = 60
"""Snapshots that the slider moves over."""

MOST_CELLS = 250_000
"""Largest heat map; a page cannot show more cells than it has pixels."""

MOST_GEOMETRIES = 1_200
"""Pairs times snapshots whose geometry a page holds, about 300 bytes each."""


def run_section(
    title: str, run: Run, *, expert: int | None = None, share: float = 1.0, max_subjects: int = 6
) -> Section:
    """Everything that a page shows of one run.

    Args:
        title: name of the run.
        run: the run.
        expert: of routed experts, whose circuit is drawn; without it, such a run has curves and tables alone.
        share: of the room that a report has for matrices.
        max_subjects: as in `mechanism_graph`.
    """
    task = run.task
    notes: list[str] = []
    steps = _steps(run, share)
    panels = run_charts(run, _predicted_betas(run), steps)
    routed = run.weights.linear_map.n_routes is not None and expert is None
    if routed:
        notes.append(
            f"prompts are routed to {run.weights.linear_map.n_routes} experts and no single W_OV is the "
            "model's own: --expert 0 draws the circuit of one"
        )
    else:
        left_out = len({*run.snapshot_steps, run.step}) - len(steps)
        if left_out:
            notes.append(
                f"{left_out} of {left_out + len(steps)} snapshots are left out to keep the page small"
            )
        if len(steps) == 1:
            notes.append(
                "the run has no snapshots, so there is one step: train with snapshots=20 for a slider"
            )
        models = [run if step == run.step else run.at(step) for step in steps]
        circuits = [_relevant(model, expert) for model in models]
        heat = heatmap_panel(task, [circuit.W for circuit in circuits])
        if isinstance(heat, str):
            notes.append(heat)
        geometry = geometry_panel(task, circuits, _predictions(run))
        if isinstance(geometry, str):
            notes.append(geometry)
        graphs = {
            f"step {model.step:,}": mechanism_graph(model, max_subjects=max_subjects, expert=expert)
            for model in models
        }
        before = "The slider chooses the step; before is the first snapshot."
        drawn = [
            heat,
            geometry,
            circuit_panel("The circuit", graphs, before, by_step=True),
            ablation_panel(run, max_subjects=max_subjects, expert=expert),
        ]
        panels = [*(panel for panel in drawn if isinstance(panel, Panel)), *panels]
        panels.append(table_panel("Subjects", run.table(), _SUBJECTS, "subjects.csv"))
    text = (
        "One row per logged step; history.csv of the run has every digit. `ocr-interp info RUN --columns` "
        "says what the columns are."
    )
    panels.append(table_panel("History", run.history, text, "history.csv"))
    return Section(
        label(title),
        _facts(run),
        tuple(panels),
        steps=tuple(steps),
        words=describe_run(run),
        notes=tuple(notes),
        verdict=run_verdict(run),
    )


_SUBJECTS = (
    "At the end of training. Margins are leads of the right answer in logits: fact_margin over every output, "
    "implication_margin over other implications, implication_margin_overall over every output. rank: how "
    "many implications come before the right one; first: which one comes first."
)


def _facts(run: Run) -> tuple[tuple[str, str], ...]:
    task, model, recipe = run.task, run.config.model, run.config.train
    sizes = task.balanced_sizes
    shape = f"(n, m_train, m_test) = {sizes}" if sizes else f"{task.n_subjects} subjects in unequal groups"
    trained = "trained" if model.train_attention else "frozen"
    return (
        ("status", f"{run.status} at step {run.step:,} of {recipe.steps:,}"),
        ("task", shape),
        ("model", f"{model.ov}, {model.attention} attention, {trained}"),
        ("recipe", f"{recipe.optimizer}, rate {recipe.lr:g}, {recipe.data} data, seed {recipe.seed}"),
        ("fingerprint", run.config.fingerprint),
    )


def _relevant(model: Snapshot, expert: int | None) -> OVCircuit:
    return OVCircuit.from_run(model, expert=expert).subjects_and_relations


def _steps(run: Run, share: float) -> list[int]:
    """Steps with a snapshot, as many as there is room for, the first and the last always."""
    steps = sorted({*run.snapshot_steps, run.step})
    cells = run.task.noise_tokens.start * run.task.n_answers
    room = int(MATRIX_BYTES * share) // cells if cells <= MOST_CELLS else MOST_STEPS
    most = max(2, min(MOST_STEPS, room))
    if len(steps) <= most:
        return steps
    return [steps[k] for k in np.unique(np.linspace(0, len(steps) - 1, most).round().astype(int))]


SADDLE = "saddle, where a small start goes"


def _predicted_betas(run: Run) -> dict[str, float]:
    """Name -> β of what theory predicts for a run."""
    known = PredictedBeta.of(run)
    if known is None:
        return {}
    found = {} if known.saddle is None else {SADDLE: known.saddle}
    if known.is_interval:
        return {**found, "smallest norm: at most": known.high, "smallest norm: at least": known.low}
    return {**found, "smallest norm": known.low}


def _predictions(run: Run) -> dict[str, np.ndarray]:
    """Name -> matrix (subjects and relations by answers) of what theory predicts for a run."""
    found: dict[str, np.ndarray] = {}
    rows = run.task.noise_tokens.start
    saddle = run.saddle
    if saddle is not None:
        found[SADDLE] = saddle.W[:rows]
    norm = run.weights.linear_map.norm
    if norm is not None and run.config.model.attention == "linear" and has_closed_form(run.task, norm):
        solution = solve(run.task, norm)
        name = {"nuclear": "OV-SVM (nuclear)", "frobenius": "W-SVM (Frobenius)"}.get(
            solution.norm, solution.norm
        )
        known = PredictedBeta.of(run)
        frozen = ", frozen attention" if known is not None and known.is_interval else ""
        found[f"{name} max-margin solution{frozen}"] = solution.W
    return found


# --- heat map ------------------------------------------------------------------------------------


def heatmap_panel(
    task: FactRecallTask, matrices: Sequence[Float[np.ndarray, "subject_or_relation answer"]]
) -> Panel | str:
    """W[input, answer] of every snapshot, quantized, inputs from left to right; or why there is none."""
    rows, columns = matrices[0].shape
    if rows * columns > MOST_CELLS:
        return f"the heat map of {rows:,} × {columns:,} entries is left out: at most {MOST_CELLS:,} are drawn"
    order = DisplayOrder.of(task)
    values, worth = quantized([matrix[order.rows].T for matrix in matrices])
    kinds = ["facts", *_implication_names(task)]
    groups = [
        ("training subjects", order.n_training),
        ("held-out subjects", order.n_held_out),
        ("relations", task.n_relations),
    ]
    data = {
        "rows": [label(text) for text in task.labels[task.n_inputs :]],
        "columns": [label(task.labels[k]) for k in order.rows],
        "row_groups": list(zip(kinds, [task.n_facts, *task.implication_counts], strict=True)),
        "column_groups": [group for group in groups if group[1]],
        "frame": [task.n_facts, task.n_implications, order.n_training, order.n_held_out],
        "values": values,
        "worth": plain(worth, DIGITS),
        "levels": LEVELS,
        "unit": "logits",
    }
    text = (
        "The OV circuit diag(a) W_OV, in logits: what seeing a token (left to right) adds to an answer. "
        "Framed: implications of held-out subjects, never told. Entries are rounded to "
        f"{2 * LEVELS + 1} levels between plus and minus the largest of each step."
    )
    return Panel("heatmap", "The OV circuit", text, data)


def _implication_names(task: FactRecallTask) -> list[str]:
    several = len(task.implication_counts) > 1
    return [
        f"implications of r{k + 2}" if several else "implications"
        for k in range(len(task.implication_counts))
    ]


# --- geometry ------------------------------------------------------------------------------------


def geometry_panel(
    task: FactRecallTask, circuits: Sequence[OVCircuit], predicted: dict[str, np.ndarray]
) -> Panel | str:
    """One pair's embeddings in three dimensions at every snapshot, beside the predicted ones; or why not."""
    sizes = task.balanced_sizes
    if sizes is None or sizes[0] < 2 or 0 in sizes[1:] or task.implied_relations > 1:
        return (
            "the geometry of a pair is left out: three dimensions show it for balanced tasks of two pairs or "
            "more, with training and held-out subjects and one implication of a fact"
        )
    count = min(sizes[0], max(1, MOST_GEOMETRIES // len(circuits)))
    measured = [_geometries(circuit.W, task, count) for circuit in circuits]
    if not any(any(pairs) for pairs in measured):
        return "the geometry of a pair is left out: W_OV is zero at every snapshot"
    beside = [{"name": label(name), "pairs": _geometries(W, task, count)} for name, W in predicted.items()]
    answers = task.labels[task.n_inputs :]
    data = {
        "pairs": [
            label(f"{answers[pair]}, {answers[task.n_facts + task.fact_implication[pair]]}")
            for pair in range(count)
        ],
        "measured": measured,
        "predicted": [one for one in beside if any(one["pairs"])],
    }
    left_out = f" The first {count} of {sizes[0]} pairs can be chosen." if count < sizes[0] else ""
    text = (
        "Embeddings of a fact b and its implication c, U Σ^½ and V Σ^½ of W = U Σ Vᵀ: s is the mean of its "
        "training subjects, s' of its held-out ones, dashed are the sums s' + r. Dots: the means of the "
        "other facts and implications. Each picture has its own scale; both turn together: drag, or "
        f"use the arrow keys.{left_out}"
    )
    return Panel("geometry", "Geometry of a pair", text, data)


def _geometries(
    W: Float[np.ndarray, "subject_or_relation answer"], task: FactRecallTask, count: int
) -> list[dict[str, Any] | None]:
    """Points, cosines and shown share of the first pairs; None without a direction between the relations."""
    inputs, outputs = symmetric_factor(W, left=True), symmetric_factor(W, left=False)
    if not inputs.size or np.linalg.norm(np.subtract(*inputs[list(task.relation_tokens)])) == 0:
        return [None] * count
    with np.errstate(all="ignore"):
        return [_plain_geometry(PairGeometry.of(inputs, outputs, task, pair)) for pair in range(count)]


def _plain_geometry(found: PairGeometry) -> dict[str, Any] | None:
    if not all(np.isfinite(point).all() for point in found.points.values()):
        return None
    points = {name: plain(point, DIGITS) for name, point in found.points.items()}
    return {"points": points, "cosines": plain(found.cosines, DIGITS), "shown": plain(found.shown, DIGITS)}
