"""Certificates and full-size arrays of a reduced solution.

Blocks have the norm of the matrix they stand for, and an example group the margins of its examples, so
bounds of the reduced problem are bounds of the full one: no array is built at full size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from ocr_interp.task import FACT
from ocr_interp.theory.certificate import Certificate, make_certificate
from ocr_interp.theory.geometry import SpectrumBlock
from ocr_interp.theory.norms import UnitarilyInvariantNorm
from ocr_interp.theory.problem import max_margin_problem
from ocr_interp.theory.reduction.bounds import UNKNOWN, Accuracy, reduced_dual_bound
from ocr_interp.theory.reduction.margins import ExampleMap, blocks_norm, example_map
from ocr_interp.theory.reduction.symmetry import (
    Blocks,
    ReducedProblem,
    answer_columns,
    lift,
)


@dataclass(frozen=True)
class BlockSolution:
    """A matrix in blocks of a reduced problem, with dual weights; its certificate is computed on first use.

    Attributes:
        reduced: the problem with its symmetries used.
        norm: the norm that is minimised.
        blocks: W as the reduced problem's blocks.
        reduced_weights: dual weights [example group, distinct value].
        iterations: steps of the method that found it; 0 for methods without steps.
        accuracy: error bars of margins and singular values.
    """

    reduced: ReducedProblem
    norm: UnitarilyInvariantNorm
    blocks: Blocks
    reduced_weights: Float[np.ndarray, "example value"] = field(repr=False)
    iterations: int = 0
    accuracy: Accuracy = UNKNOWN

    @cached_property
    def W(self) -> Float[np.ndarray, "input output"]:
        """The matrix at full size, in the task's order."""
        return lift(self.reduced, self.blocks)

    @cached_property
    def weights(self) -> Float[np.ndarray, "example output"]:
        """Dual weights of the full problem, for `certify(..., weights=)`."""
        return lift_weights(self.reduced, self.reduced_weights)

    @cached_property
    def certificate(self) -> Certificate:
        """As `certify` would for W and weights, without building them."""
        return certify_reduced(self.reduced, self.blocks, self.reduced_weights, self.norm)

    @cached_property
    def spectrum(self) -> tuple[SpectrumBlock, ...]:
        """Singular values by block, largest first; those that may be 0 are left out (`zero_below`).

        A pair block's values occur clusters − 1 times; the constant block's once each.
        """
        blocks = [
            SpectrumBlock(float(value), 1, "constant")
            for value in np.linalg.svd(self.blocks.constant, compute_uv=False)
        ]
        for k in range(self.reduced.pair_shape[0]):
            count = int(self.reduced.pair_multiplicity[k])
            values = np.linalg.svd(self.blocks.pair[k], compute_uv=False) if count else []
            blocks += [SpectrumBlock(float(value), count, "pair") for value in values]
        blocks.sort(key=lambda block: -block.value)
        least = zero_below(blocks[0].value, self.accuracy.value, self.certificate.gap)
        return tuple(block for block in blocks if block.value > least)


def zero_below(largest: float, error: float, gap: float) -> float:
    """The value up to which a singular value counts as 0.

    Its error bar or the root of the gap (relative to the largest value), whichever is smaller: the bar also
    holds what other minimisers have, where there are several. At least 1e-6 of the largest.
    """
    rounding, of_gap = 1e-6 * largest, np.sqrt(max(gap, 0.0)) * largest
    return float(max(rounding, np.fmin(error, of_gap)))


def certify_reduced(
    reduced: ReducedProblem,
    blocks: Blocks,
    weights: Float[np.ndarray, "example value"],
    norm: UnitarilyInvariantNorm,
) -> Certificate:
    """The certificate of the full problem, computed afresh from blocks and weights alone.

    Args:
        reduced: the problem.
        blocks: W as the reduced problem's blocks.
        weights: dual weights [example group, distinct value].
        norm: of the bounds.

    Returns: as `certify` would for the lifted W and weights; margins in the order of the task's triples.
    """
    task = reduced.task
    training, held_out = example_map(reduced), example_map(reduced, held_out=True)
    margins = training.margins(training.values(training.logits(blocks))).min(axis=1)
    held_out_margins = held_out.margins(held_out.values(held_out.logits(blocks)))
    implications = np.where(among_implications(held_out), held_out_margins, np.inf).min(
        axis=1, initial=np.inf
    )
    of_held_out = reduced.example_of(task.triples.of_split("held_out_implication"), held_out=True)
    no_other = np.where(np.isfinite(implications), implications, np.nan)
    return make_certificate(
        norm=norm.name,
        outputs=reduced.outputs,
        inputs=reduced.inputs,
        norm_value=blocks_norm(reduced, blocks, norm),
        dual=reduced_dual_bound(training, weights, norm),
        margins=margins[reduced.example_of(task.training_triples)],
        held_out=no_other[of_held_out],
        held_out_overall=held_out_margins.min(axis=1, initial=np.inf)[of_held_out],
    )


def among_implications(held_out: ExampleMap) -> Bool[np.ndarray, "example value"]:
    """Which of the distinct values are logits of the asked relation's implications."""
    return value_relations(held_out) == held_out.relations[:, None]


def value_relations(examples: ExampleMap) -> Int[np.ndarray, "example value"]:
    """The relation whose answers every distinct value belongs to; FACT for tokens that are no answers."""
    reduced = examples.reduced
    column = np.full(reduced.constant_shape[1], FACT)
    column[: len(reduced.column_relation)] = reduced.column_relation
    found = np.tile(column, (len(examples.rows), 1))
    if not reduced.has_pairs:
        return found
    return np.concatenate([found, reduced.column_relation[examples.own_columns]], axis=1)


def lift_weights(
    reduced: ReducedProblem, weights: Float[np.ndarray, "example value"]
) -> Float[np.ndarray, "triple output"]:
    """Dual weights of the full problem, [training triple, output], for `certify(..., weights=)`."""
    task = reduced.task
    triples = task.training_triples
    example = reduced.example_of(triples)
    column, cluster = answer_columns(reduced)
    first, n_columns = reduced.other_tokens, reduced.constant_shape[1]
    full = np.zeros((len(triples), first + task.n_answers))
    full[:, :first] = weights[example, len(reduced.column_type) : n_columns]
    full[:, first:] = weights[example][:, column]
    if reduced.has_pairs:
        own = reduced.clusters.of_fact[task.subject_fact[triples.subject]]
        rows, answers = np.nonzero(own[:, None] == cluster)
        slot = reduced.column_slot[column[answers]]
        full[rows, first + answers] = weights[example[rows], n_columns + slot]
    full[np.arange(len(triples)), max_margin_problem(task, reduced.outputs, reduced.inputs).correct] = 0
    return full
