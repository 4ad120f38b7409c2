"""Linear algebra of a reduced problem: blocks -> logits by example group, and back.

Logits of an example group are one value per column group (an average over its columns) and, where
clusters are exchangeable, the pattern that singles out the example's own cluster. `values` turns them
into distinct logits: [example, column group] then [example, own slot]; the first hold the logits of
*other* clusters at the columns of the example's own type, and `multiplicity` counts columns of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from ocr_interp.theory.norms import UnitarilyInvariantNorm
from ocr_interp.theory.reduction.symmetry import Blocks, ReducedProblem


@dataclass(frozen=True)
class ExampleMap:
    """The examples of a reduced problem; made by `example_map`.

    Attributes:
        reduced: the problem.
        rows, relations: subject group and relation of every example group.
        scale: root of the number of examples in each group.
        own_columns: [example, slot] column groups of the example's own type, padded by its first.
        n_clusters: clusters of the example's type.
        multiplicity: [example, value] columns of W that a value stands for; 0 at the correct output and
            at padding. Sums to n_outputs − 1.
        correct: value index of the correct output.
    """

    reduced: ReducedProblem
    rows: Int[np.ndarray, " example"]
    relations: Int[np.ndarray, " example"]
    scale: Float[np.ndarray, " example"]
    own_columns: Int[np.ndarray, "example slot"]
    n_clusters: Float[np.ndarray, " example"]
    multiplicity: Float[np.ndarray, "example value"]
    correct: Int[np.ndarray, " example"]

    def logits(self, blocks: Blocks) -> Blocks:
        """E X: scaled logits [example, column group] and [example, own slot] (pair part)."""
        reduced, top = self.reduced, blocks.constant
        n = reduced.n_groups
        constant = top[n + self.relations]
        if reduced.feature:
            constant = constant + reduced.feature * top[-1]
        constant = constant * self.scale[:, None] + top[self.rows]
        if not reduced.has_pairs:
            return Blocks(constant, blocks.pair)
        return Blocks(
            constant, blocks.pair[reduced.row_type[self.rows], reduced.row_offset[self.rows]][:, None]
        )

    def values(self, logits: Blocks) -> Float[np.ndarray, "example value"]:
        """Distinct logits of every example group."""
        reduced = self.reduced
        average = logits.constant / self.scale[:, None] / np.sqrt(reduced.column_size)
        if not reduced.has_pairs:
            return average
        pattern = logits.pair[:, 0] / self._pair_scale[:, None]
        own = np.take_along_axis(average, self.own_columns, axis=1)
        other = own - pattern / self.n_clusters[:, None]
        own = other + pattern
        out = average.copy()
        out[self._own_index] = other[self._is_slot]
        return np.concatenate([out, own], axis=1)

    def from_values(self, values: Float[np.ndarray, "example value"]) -> Blocks:
        """Inverse of `values` on its range."""
        reduced = self.reduced
        columns = reduced.constant_shape[1]
        scale = self.scale[:, None] * np.sqrt(reduced.column_size)
        if not reduced.has_pairs:
            return Blocks(values * scale, np.zeros((0, 0, 0)))
        average, own = values[:, :columns].copy(), values[:, columns:]
        other = np.take_along_axis(average, self.own_columns, axis=1)
        count = self.n_clusters[:, None]
        mean = (own + (count - 1) * other) / count
        average[self._own_index] = mean[self._is_slot]
        pattern = np.where(self._is_slot & (count > 1), own - other, 0.0) * self._pair_scale[:, None]
        return Blocks(average * scale, pattern[:, None])

    @cached_property
    def _pair_scale(self) -> Float[np.ndarray, " example"]:
        return self.scale / np.sqrt(self.n_clusters)

    @cached_property
    def _is_slot(self) -> Bool[np.ndarray, "example slot"]:
        slots = self.reduced.n_columns[self.reduced.row_type[self.rows]]
        return np.arange(self.own_columns.shape[1]) < slots[:, None]

    @cached_property
    def _own_index(self) -> tuple[np.ndarray, np.ndarray]:
        """Index of own_columns without its padding: with duplicates, which value is written is undefined."""
        return np.nonzero(self._is_slot)[0], self.own_columns[self._is_slot]

    def margins(self, values: Float[np.ndarray, "example value"]) -> Float[np.ndarray, "example value"]:
        """Margins against every distinct wrong output; +inf where a value stands for no wrong output."""
        margin = values[np.arange(len(values)), self.correct][:, None] - values
        return np.where(self.multiplicity > 0, margin, np.inf)

    def adjoint(self, logits: Blocks) -> Blocks:
        """Eᵀ: scaled logits of training examples back to blocks."""
        reduced = self.reduced
        n = reduced.n_groups
        constant, pair = np.zeros(reduced.constant_shape), np.zeros(reduced.pair_shape)
        for relation, of_relation in enumerate(self._of_relation):
            rows = self.rows[of_relation]  # every group once
            constant[rows] += logits.constant[of_relation]
            constant[n + relation] = self.scale[of_relation] @ logits.constant[of_relation]
            if reduced.has_pairs:
                pair[reduced.row_type[rows], reduced.row_offset[rows]] += logits.pair[of_relation, 0]
        if reduced.feature:
            constant[-1] = reduced.feature * constant[n : n + len(self._of_relation)].sum(axis=0)
        return Blocks(constant, pair)

    @cached_property
    def _of_relation(self) -> list[slice]:
        """The example groups of every relation, which are consecutive."""
        ends = np.searchsorted(self.relations, np.arange(self.reduced.task.n_relations + 1))
        return [slice(int(start), int(stop)) for start, stop in pairwise(ends)]


def example_map(reduced: ReducedProblem, held_out: bool = False) -> ExampleMap:
    """The training examples of a reduced problem, or its held-out implications."""
    rows, relations = reduced.example_rows(held_out), reduced.example_relations(held_out)
    kind = reduced.row_type[rows]
    slots = reduced.n_columns[kind]
    correct_slot = reduced.correct_slot(held_out)
    offset = np.arange(int(reduced.n_columns.max()))
    own_columns = reduced.first_column[kind][:, None] + np.where(offset < slots[:, None], offset, 0)
    count = reduced.clusters.count[kind].astype(np.float64)
    multiplicity = np.tile(reduced.column_size, (len(rows), 1))
    example = np.arange(len(rows))
    if reduced.has_pairs:
        np.put_along_axis(
            multiplicity, own_columns, np.tile(count[:, None] - 1, own_columns.shape[1]), axis=1
        )
        multiplicity = np.concatenate([multiplicity, (offset < slots[:, None]).astype(np.float64)], axis=1)
        correct = reduced.constant_shape[1] + correct_slot
    else:
        correct = reduced.first_column[kind] + correct_slot
    multiplicity[example, correct] = 0.0
    return ExampleMap(
        reduced=reduced,
        rows=rows,
        relations=relations,
        scale=reduced.row_scale[rows],
        own_columns=own_columns,
        n_clusters=count,
        multiplicity=multiplicity,
        correct=correct,
    )


def singular_values(reduced: ReducedProblem, blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
    """Singular values of the full matrix and how often each occurs."""
    constant = np.linalg.svd(blocks.constant, compute_uv=False)
    if not reduced.has_pairs:
        return constant, np.ones(len(constant))
    pair = np.linalg.svd(blocks.pair, compute_uv=False)
    count = np.repeat(reduced.pair_multiplicity, pair.shape[1])
    return np.concatenate([constant, pair.ravel()]), np.concatenate([np.ones(len(constant)), count])


def blocks_norm(reduced: ReducedProblem, blocks: Blocks, norm: UnitarilyInvariantNorm) -> float:
    """Norm of the full matrix."""
    return norm.of_spectrum(*singular_values(reduced, blocks))
