"""A certificate for any weights: how far their norm at margin 1 can be above the optimum.

For any W with positive training margins, ‖W‖ / min margin is an upper bound of the optimal norm. For any
μ >= 0 on the training constraints A_k, weak duality gives the lower bound Σ μ_k / dual_norm(Σ μ_k A_k):
Σ μ_k <= Σ μ_k ⟨A_k, W⟩ <= dual_norm(Σ μ_k A_k) ‖W‖ for every feasible W. No solver has to be trusted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from ocr_interp.checks import check_flag, check_number, check_type
from ocr_interp.errors import WeightsError, unknown_name
from ocr_interp.task import IMPLICATION, FactRecallTask
from ocr_interp.theory.norms import Norm
from ocr_interp.theory.problem import as_matrix, check_problem, fitting_problem, max_margin_problem
from ocr_interp.theory.residuals import best_residual_bound, dual_bound, refined_residual_bound

SMALLEST, LARGEST = 1e-300, 1e300
"""The largest entry of a certified matrix must be between these in size."""


@dataclass(frozen=True)
class Certificate:
    """Bounds of the optimal norm that a matrix and dual weights prove.

    Attributes:
        norm, outputs, inputs: the problem they are bounds for.
        primal: ‖W‖ / smallest training margin, an upper bound; inf when a margin is <= 0.
        dual: lower bound of the optimal norm (Frobenius: of ‖W‖_F, not of its square).
        gap: primal / dual − 1, relative; inf when there is no primal bound.
        norm_value: ‖W‖ of the given W, not rescaled.
        min_margin: the smallest training margin, in logits.
        margins: smallest margin of every training triple over all wrong outputs, in logits.
        held_out_margins: of every held-out implication, against the other implications of its relation only.
        held_out_margins_overall: the same against every output.
        scale: factor on W whose softmax residuals are the dual weights; None if weights were given.
        message: why there is no primal bound; empty otherwise.

    Source: weak duality; docs/theory.md §4.
    """

    norm: str
    outputs: str
    inputs: str
    primal: float
    dual: float
    gap: float
    norm_value: float
    min_margin: float
    margins: Float[np.ndarray, " example"] = field(repr=False)
    held_out_margins: Float[np.ndarray, " held_out"] = field(repr=False)
    held_out_margins_overall: Float[np.ndarray, " held_out"] = field(repr=False)
    scale: float | None
    message: str

    def summary(self) -> str:
        """One line: bounds, gap and margins."""
        held_out = self.held_out_margins
        shown = f"{held_out.min():.6g} to {held_out.max():.6g}" if len(held_out) else "none"
        bound = self.message or f"{self.dual:.8g} <= optimum <= {self.primal:.8g}, gap {self.gap:.3g}"
        return f"{bound}; smallest training margin {self.min_margin:.6g}, held-out margins {shown}"


@runtime_checkable
class HasWeights(Protocol):
    """A solution with weights and the problem they belong to."""

    @property
    def task(self) -> FactRecallTask: ...
    @property
    def outputs(self) -> str: ...
    @property
    def inputs(self) -> str: ...
    @property
    def W(self) -> np.ndarray: ...


def certify(
    W: Float[np.ndarray, "input output"],
    task: FactRecallTask,
    norm: str | Norm = "nuclear",
    weights: Float[np.ndarray, "example output"] | None = None,
    *,
    outputs: str = "answers",
    inputs: str = "subject_relation",
    scale: float | None = None,
    refine: bool = False,
) -> Certificate:
    """Bounds of the optimal norm from any weights: a trained model, a checkpoint, a user's matrix.

    Args:
        W: rows: subjects, r1, r2, or all inputs, or the vocabulary; columns: answers or the vocabulary.
            For a model with trained attention pass diag(a) W_OV.
        task: the task; only its training constraints are used.
        norm: a name of `theory.norms`, or a Norm.
        weights: dual weights [example, output], zero at the correct outputs, any overall scale. None: the
            softmax residuals of W (the negative loss gradient) at several scales of W, always including 1, of
            which the best bound is returned. At the max-margin solution itself W does not determine the dual
            weights of its tight constraints: set refine, or pass `weights=solution.weights`.
        outputs, inputs: the problem; see problem.OUTPUTS and problem.INPUTS.
        scale: use the residuals of scale · W only, without the search.
        refine: also reweight the residuals by kind of constraint for the best bound (0.1 s at (20, 1, 3)):
            tight at the max-margin solution of a balanced task. That of an unbalanced task needs its own dual
            weights: `weights=solution.weights`.

    Returns: the certificate. With a margin <= 0, primal and gap are inf and `message` says why; the dual
        bound still holds.

    Raises:
        WeightsError: W or weights of a wrong shape, not finite, or zero throughout.
        UnknownNameError: an unknown norm.
        ConfigError: an unknown outputs or inputs, or a scale that is not positive.
    """
    check_type("task", task, FactRecallTask, "the order is certify(W, task)")
    found = check_problem(norm, outputs, inputs)
    check_flag("refine", refine)
    problem = fitting_problem(task, found, outputs, inputs)
    kept, size = _unit_size(problem.restrict(as_matrix(W)))
    margins = problem.constraint_margins(kept)
    worst = margins.min(axis=1)
    if weights is not None:
        problem.check_weights(weights)
        dual = dual_bound(
            problem, np.asarray(weights, dtype=np.float64) / _power(float(np.max(weights))), found
        )
    else:
        if scale is not None:
            check_number("scale", scale, above=0.0)
        own = min(size, LARGEST) if scale is None else min(scale * size, LARGEST)
        dual, sharpness = best_residual_bound(problem, margins, found, own, search=scale is None)
        if refine:
            dual, sharpness = max((dual, sharpness), refined_residual_bound(problem, margins, found))
        scale = sharpness / size
    return make_certificate(
        norm=found.name,
        outputs=outputs,
        inputs=inputs,
        norm_value=found.value(kept),
        dual=dual,
        margins=worst,
        held_out=problem.held_out_margins(kept),
        held_out_overall=problem.held_out_margins(kept, among_implications=False),
        scale=None if weights is not None else scale,
        size=size,
    )


def _unit_size(W: Float[np.ndarray, "input output"]) -> tuple[Float[np.ndarray, "input output"], float]:
    """W over the power of 2 below its largest entry in size, and that power.

    Bounds do not depend on it, a power of 2 changes no bit of them, and squares of very small or large
    entries would be 0 or infinite.

    Raises:
        WeightsError: a largest entry outside of 1e-300 to 1e300.
    """
    size = float(np.abs(W).max())
    if not SMALLEST <= size <= LARGEST:
        raise WeightsError(
            f"the largest entry of W in size must be between {SMALLEST:g} and {LARGEST:g}, got {size:g}: "
            "multiply W by a constant; bounds do not depend on it"
        )
    unit = _power(size)
    return W / unit, unit


def _power(value: float) -> float:
    """The largest power of 2 up to a positive value."""
    return math.ldexp(1.0, math.frexp(value)[1] - 1)


def make_certificate(
    *,
    norm: str,
    outputs: str,
    inputs: str,
    norm_value: float,
    dual: float,
    margins: Float[np.ndarray, " example"],
    held_out: Float[np.ndarray, " held_out"],
    held_out_overall: Float[np.ndarray, " held_out"],
    scale: float | None = None,
    size: float = 1.0,
) -> Certificate:
    """Puts bounds together; there is no primal one unless every training margin is positive.

    Args: the fields of Certificate. norm_value and margins are those of W / size.
    """
    smallest = float(margins.min())
    primal = norm_value / smallest if smallest > 0 else np.inf
    message = ""
    if smallest <= 0:
        message = (
            f"no primal bound: {int((margins <= 0).sum())} of {len(margins)} training margins are <= 0 "
            f"(smallest {size * smallest:.3g}); dual bound {dual:.8g} <= optimum"
        )
    return Certificate(
        norm=norm,
        outputs=outputs,
        inputs=inputs,
        primal=float(primal),
        dual=float(dual),
        gap=float(primal / dual - 1) if dual > 0 else np.inf,
        norm_value=float(norm_value) * size,
        min_margin=smallest * size,
        margins=margins * size,
        held_out_margins=held_out * size,
        held_out_margins_overall=held_out_overall * size,
        scale=scale,
        message=message,
    )


def cosine_with(W: Float[np.ndarray, "input output"], solution: HasWeights) -> float:
    """Cosine of W with a solution's W, both as vectors, on the solution's rows and columns.

    It hardly tells solutions apart: the Frobenius and nuclear solutions of one task have cosine 0.93 at (20,
    1, 3). Report it for both of them, and `held_out_beta` beside it.
    """
    problem = max_margin_problem(solution.task, solution.outputs, solution.inputs)
    kept, _ = _unit_size(problem.restrict(as_matrix(W)))
    other = solution.W
    return float(np.vdot(kept, other) / (np.linalg.norm(kept) * np.linalg.norm(other)))


@dataclass(frozen=True)
class HeldOutBeta:
    """The measured β of W: what it does with held-out implications, relative to training ones.

    Attributes:
        projection: held-out implication block's coefficient on its pair-aligned, centred pattern over the
            training block's. A block's coefficient is the mean over its subjects of W[s, own c] minus
            the mean of W[s, other c], with the implications of one relation. Relation rows are not used. NaN
            without one of the blocks.
        margin: smallest held-out implication margin against the other implications over the smallest
            training implication margin against the other implications. NaN likewise.

    At a symmetric W both agree; away from it `projection` is an average and `margin` a worst case.
    """

    projection: float
    margin: float


def held_out_beta(
    W: Float[np.ndarray, "input output"], task: FactRecallTask, relation: str | None = None
) -> HeldOutBeta:
    """The held-out implication coefficient β of any W; the certificate constrains it only loosely.

    Args:
        W: shapes as in `certify`.
        task: balanced or not, at least two implications.
        relation: "r2", "r3", ...: only the implications of this relation; None: those of all together.

    Raises:
        WeightsError: as in `certify`.
        UnknownNameError: a relation that is none of an implication.
    """
    names = [task.labels[token] for token in task.relation_tokens[IMPLICATION:]]
    if relation is not None and relation not in names:
        raise unknown_name("implication relation", relation, names)
    problem = max_margin_problem(task)
    kept, _ = _unit_size(problem.restrict(as_matrix(W)))
    asked = (
        range(IMPLICATION, task.n_relations) if relation is None else [names.index(relation) + IMPLICATION]
    )
    told = task.told[list(asked)]
    if told.all() or not told.any() or min(task.implication_counts[k - IMPLICATION] for k in asked) < 2:
        return HeldOutBeta(projection=float("nan"), margin=float("nan"))
    subject = np.arange(task.n_subjects)
    aligned, margin = np.zeros(told.shape), np.zeros(told.shape)
    for row, k in enumerate(asked):
        columns = np.flatnonzero(task.answer_relation == k)
        block = kept[: task.n_subjects, columns]
        implication = task.right_answer[k] - columns[0]
        own = block[subject, implication]
        aligned[row] = own - (block.sum(axis=1) - own) / (len(columns) - 1)
        logits = block + kept[task.n_subjects + k, columns]
        correct = logits[subject, implication]
        logits[subject, implication] = -np.inf
        margin[row] = correct - logits.max(axis=1)
    denominator, smallest = float(aligned[told].mean()), float(margin[told].min())
    return HeldOutBeta(
        projection=float(aligned[~told].mean()) / denominator if denominator else float("nan"),
        margin=float(margin[~told].min()) / smallest if smallest else float("nan"),
    )
