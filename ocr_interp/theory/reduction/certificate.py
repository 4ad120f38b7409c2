"""Certificates and full-size arrays of a reduced solution.

Blocks have the norm of the matrix they stand for, and an example group the margins of its examples, so
bounds of the reduced problem are bounds of the full one: nothing needs to be built at full size.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from ocr_interp.task import FACT, Triples
from ocr_interp.theory.certificate import Certificate, make_certificate
from ocr_interp.theory.problem import max_margin_problem
from ocr_interp.theory.reduction.margins import ExampleMap, blocks_norm, example_map
from ocr_interp.theory.reduction.symmetry import ReducedProblem, answer_columns, group_of_subject
from ocr_interp.theory.solver.first_order import ReducedSolution, reduced_dual_bound


def certify_reduced(reduced: ReducedProblem, solution: ReducedSolution, norm: str) -> Certificate:
    """The certificate of the full problem, computed afresh from blocks and weights alone.

    Args:
        reduced: the problem.
        solution: whose blocks and weights count; its own bounds are not looked at.
        norm: one of NORMS.

    Returns: as `certify` would for the lifted W and weights; margins in the order of the task's triples.
    """
    task = reduced.task
    training, held_out = example_map(reduced), example_map(reduced, held_out=True)
    margins = training.margins(training.values(training.logits(solution.blocks))).min(axis=1)
    held_out_margins = held_out.margins(held_out.values(held_out.logits(solution.blocks)))
    implications = np.where(_implication_values(held_out), held_out_margins, np.inf).min(
        axis=1, initial=np.inf
    )
    groups = group_of_subject(reduced)
    of_held_out = np.searchsorted(reduced.held_out_rows, groups[~task.subject_trained])
    no_other = np.where(np.isfinite(implications), implications, np.nan)
    return make_certificate(
        norm=norm,
        outputs=reduced.outputs,
        inputs=reduced.inputs,
        norm_value=blocks_norm(reduced, solution.blocks, norm),
        dual=reduced_dual_bound(training, solution.weights, norm),
        margins=margins[example_of_triple(reduced, task.training_triples)],
        held_out=no_other[of_held_out],
        held_out_overall=held_out_margins.min(axis=1, initial=np.inf)[of_held_out],
    )


def _implication_values(examples: ExampleMap) -> np.ndarray:
    """Which values are logits of implications, [example, value]."""
    reduced = examples.reduced
    column = np.zeros(reduced.constant_shape[1], dtype=bool)
    column[: len(reduced.column_slot)] = reduced.column_slot == reduced.n_slots[reduced.column_type]
    mask = np.tile(column, (len(examples.rows), 1))
    if not reduced.has_pairs:
        return mask
    last = reduced.n_slots[reduced.row_type[examples.rows]][:, None]
    return np.concatenate([mask, np.arange(examples.own_columns.shape[1]) == last], axis=1)


def example_of_triple(reduced: ReducedProblem, triples: Triples) -> Int[np.ndarray, " triple"]:
    """Training example group of every training triple."""
    group = group_of_subject(reduced)[triples.subject]
    implication = reduced.n_groups + np.searchsorted(reduced.trained_rows, group)
    return np.where(triples.relation == FACT, group, implication)


def lift_weights(
    reduced: ReducedProblem, weights: Float[np.ndarray, "example value"]
) -> Float[np.ndarray, "triple output"]:
    """Dual weights of the full problem, [training triple, output], for `certify(..., weights=)`."""
    task = reduced.task
    triples = task.training_triples
    example = example_of_triple(reduced, triples)
    column, cluster = answer_columns(reduced)
    first, n_columns = reduced.other_tokens, reduced.constant_shape[1]
    full = np.zeros((len(triples), first + task.n_answers))
    full[:, :first] = weights[example, len(reduced.column_type) : n_columns]
    full[:, first:] = weights[example][:, column]
    if reduced.has_pairs:
        own = task.fact_implication[task.subject_fact[triples.subject]]
        rows, answers = np.nonzero(own[:, None] == cluster)
        slot = reduced.column_slot[column[answers]]
        full[rows, first + answers] = weights[example[rows], n_columns + slot]
    full[np.arange(len(triples)), max_margin_problem(task, reduced.outputs, reduced.inputs).correct] = 0
    return full
