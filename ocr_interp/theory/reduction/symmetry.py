"""The max-margin problem of any task, reduced by the symmetries of its constraints.

Averaging a solution over a symmetry of the constraints keeps it feasible and cannot raise a unitarily
invariant norm, so W may be taken to commute with all of them:

- subjects of the same fact and status are exchangeable: one row, scaled by the root of their number;
- a cluster is an implication with its facts; clusters whose facts have the same group sizes are
  exchangeable. N of them give W = A on the cluster itself plus B between any two: a pair block A of
  multiplicity N − 1 (patterns over the clusters that sum to 0) and a share of one constant block;
- tokens that are never correct are one column, and what every example holds beside its subject and
  relation is one row.

The norm of W is that of the blocks with their multiplicities. docs/theory.md, "Reductions".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from ocr_interp.task import FACT, IMPLICATION, FactRecallTask
from ocr_interp.theory.problem import constant_feature, feature_length


@dataclass(frozen=True)
class Clusters:
    """Implications with their facts, sorted into types of exchangeable ones.

    Attributes:
        type_of_cluster: for every implication its type.
        count: number of clusters of every type.
        facts: for every type [cluster, slot], the facts in each slot.
        implications: for every type the clusters' implications, in the same order.
        group_size: for every type [slot, status], subjects in training and held out.
    """

    type_of_cluster: Int[np.ndarray, " implication"]
    count: Int[np.ndarray, " type"]
    facts: tuple[Int[np.ndarray, "_cluster _slot"], ...]
    implications: tuple[Int[np.ndarray, " _cluster"], ...]
    group_size: tuple[Int[np.ndarray, "_slot status"], ...]


def find_clusters(task: FactRecallTask, merge: bool = True) -> Clusters:
    """Clusters by type; with merge=False every cluster is a type of its own."""
    trained = np.bincount(task.subject_fact[task.subject_trained], minlength=task.n_facts)
    held_out = np.bincount(task.subject_fact[~task.subject_trained], minlength=task.n_facts)
    by_signature: dict[tuple[object, ...], list[tuple[int, list[int]]]] = {}
    order = np.lexsort((held_out, trained, task.fact_implication))
    ends = np.searchsorted(task.fact_implication[order], np.arange(1, task.n_implications))
    for implication, facts in enumerate(np.split(order, ends)):
        ordered = facts.tolist()
        signature: tuple[object, ...] = tuple((int(trained[f]), int(held_out[f])) for f in ordered)
        by_signature.setdefault(signature if merge else (implication,), []).append((implication, ordered))
    groups = list(by_signature.values())
    type_of_cluster = np.zeros(task.n_implications, dtype=np.int64)
    for k, members in enumerate(groups):
        type_of_cluster[[implication for implication, _ in members]] = k
    return Clusters(
        type_of_cluster=type_of_cluster,
        count=np.array([len(members) for members in groups]),
        facts=tuple(np.array([facts for _, facts in members]) for members in groups),
        implications=tuple(np.array([implication for implication, _ in members]) for members in groups),
        group_size=tuple(np.stack([trained[m[0][1]], held_out[m[0][1]]], axis=1) for m in groups),
    )


@dataclass(frozen=True)
class Blocks:
    """A symmetric matrix as its blocks, scaled so that singular values are those of the full matrix.

    Attributes:
        constant: [row group, column group], multiplicity 1.
        pair: [type, row slot, column slot], multiplicity `ReducedProblem.pair_multiplicity`; padded by 0.
    """

    constant: Float[np.ndarray, "group column_group"]
    pair: Float[np.ndarray, "type row column"]

    def __add__(self, other: Blocks) -> Blocks:
        return Blocks(self.constant + other.constant, self.pair + other.pair)

    def __sub__(self, other: Blocks) -> Blocks:
        return Blocks(self.constant - other.constant, self.pair - other.pair)

    def __mul__(self, factor: float) -> Blocks:
        return Blocks(self.constant * factor, self.pair * factor)


@dataclass(frozen=True)
class ReducedProblem:
    """Row groups, column groups and example groups of a task; made by `reduce_problem`.

    Row groups are (type, slot, status) with at least one subject, then r1, r2, then, if examples hold
    more, the constant feature's direction. Example groups are the facts of all subject groups in their
    order, the implications of the training groups, and (never constraints) those of the held-out groups.

    Attributes:
        task, outputs, inputs: the problem.
        clusters: the types.
        row_type, row_slot, row_status, row_size: of every subject group; size per cluster.
        row_offset: row of a subject group inside its type's pair block.
        column_type, column_slot: of every answer column group; slot n_slots is the implication.
        other_tokens: columns that are never correct, one group (the last one) if there are any.
        feature: length of the constant feature; 0 if there is none.
    """

    task: FactRecallTask
    outputs: str
    inputs: str
    clusters: Clusters
    row_type: Int[np.ndarray, " group"]
    row_slot: Int[np.ndarray, " group"]
    row_status: Int[np.ndarray, " group"]
    row_size: Int[np.ndarray, " group"]
    row_offset: Int[np.ndarray, " group"]
    column_type: Int[np.ndarray, " column_group"]
    column_slot: Int[np.ndarray, " column_group"]
    other_tokens: int
    feature: float

    # --- sizes ----------------------------------------------------------------------------------

    @property
    def n_groups(self) -> int:
        """Number of subject groups."""
        return len(self.row_type)

    @cached_property
    def constant_shape(self) -> tuple[int, int]:
        """Shape of the constant block."""
        rows = self.n_groups + 2 + (self.feature > 0)
        return rows, len(self.column_type) + (self.other_tokens > 0)

    @cached_property
    def pair_shape(self) -> tuple[int, int, int]:
        """Shape of the padded stack of pair blocks; empty without exchangeable clusters."""
        if not self.has_pairs:
            return 0, 0, 0
        rows = int(np.bincount(self.row_type).max())
        return len(self.clusters.count), rows, int(np.bincount(self.column_type).max())

    @property
    def has_pairs(self) -> bool:
        """Whether any type has two clusters or more."""
        return bool((self.clusters.count > 1).any())

    @cached_property
    def pair_multiplicity(self) -> Float[np.ndarray, " type"]:
        """How often each pair block's singular values occur in W: clusters − 1."""
        return (self.clusters.count - 1.0)[: self.pair_shape[0]]

    @cached_property
    def column_size(self) -> Float[np.ndarray, " column_group"]:
        """Columns of W that a column group stands for."""
        answers = self.clusters.count[self.column_type].astype(np.float64)
        return np.append(answers, float(self.other_tokens)) if self.other_tokens else answers

    # --- examples -------------------------------------------------------------------------------

    @cached_property
    def trained_rows(self) -> Int[np.ndarray, " trained"]:
        """Subject groups with training implications."""
        return np.flatnonzero(self.row_status == 0)

    @cached_property
    def held_out_rows(self) -> Int[np.ndarray, " held_out"]:
        """Subject groups without."""
        return np.flatnonzero(self.row_status == 1)

    def example_rows(self, held_out: bool = False) -> Int[np.ndarray, " example"]:
        """Subject group of every example group."""
        if held_out:
            return self.held_out_rows
        return np.concatenate([np.arange(self.n_groups), self.trained_rows])

    def example_relations(self, held_out: bool = False) -> Int[np.ndarray, " example"]:
        """Relation of every example group."""
        if held_out:
            return np.full(len(self.held_out_rows), IMPLICATION)
        return np.repeat([FACT, IMPLICATION], [self.n_groups, len(self.trained_rows)])

    @cached_property
    def row_scale(self) -> Float[np.ndarray, " group"]:
        """Root of the number of subjects a subject group stands for, over all clusters of its type."""
        return np.sqrt(self.row_size * self.clusters.count[self.row_type])

    @cached_property
    def n_slots(self) -> Int[np.ndarray, " type"]:
        """Facts of a cluster, by type."""
        return np.array([facts.shape[1] for facts in self.clusters.facts])

    def correct_slot(self, held_out: bool = False) -> Int[np.ndarray, " example"]:
        """Column slot of the correct output inside the example's own cluster."""
        rows, relation = self.example_rows(held_out), self.example_relations(held_out)
        return np.where(relation == FACT, self.row_slot[rows], self.n_slots[self.row_type[rows]])

    @cached_property
    def first_column(self) -> Int[np.ndarray, " type"]:
        """First column group of every type."""
        return np.searchsorted(self.column_type, np.arange(len(self.clusters.count)))


def reduce_problem(
    task: FactRecallTask, outputs: str = "answers", inputs: str = "subject_relation", merge: bool = True
) -> ReducedProblem:
    """The reduced problem of a task.

    Args:
        task, outputs, inputs: as in `max_margin_problem`.
        merge: whether to use that clusters of one type are exchangeable; subjects are always grouped.
    """
    clusters = find_clusters(task, merge)
    rows = []
    for k, size in enumerate(clusters.group_size):
        present = [(slot, status) for slot in range(len(size)) for status in (0, 1) if size[slot, status]]
        rows += [(k, slot, status, size[slot, status], i) for i, (slot, status) in enumerate(present)]
    columns = [(k, slot) for k, facts in enumerate(clusters.facts) for slot in range(facts.shape[1] + 1)]
    row, column = np.array(rows, dtype=np.int64), np.array(columns, dtype=np.int64)
    return ReducedProblem(
        task=task,
        outputs=outputs,
        inputs=inputs,
        clusters=clusters,
        row_type=row[:, 0],
        row_slot=row[:, 1],
        row_status=row[:, 2],
        row_size=row[:, 3],
        row_offset=row[:, 4],
        column_type=column[:, 0],
        column_slot=column[:, 1],
        other_tokens=task.n_inputs if outputs == "vocabulary" else 0,
        feature=feature_length(task, inputs),
    )


def group_of_subject(reduced: ReducedProblem) -> Int[np.ndarray, " subject"]:
    """Subject group of every subject."""
    task, clusters = reduced.task, reduced.clusters
    slot_of_fact = np.zeros(task.n_facts, dtype=np.int64)
    for facts in clusters.facts:
        slot_of_fact[facts] = np.arange(facts.shape[1])
    group = np.full((len(clusters.count), int(reduced.n_slots.max()), 2), -1)
    group[reduced.row_type, reduced.row_slot, reduced.row_status] = np.arange(reduced.n_groups)
    fact = task.subject_fact
    kind = clusters.type_of_cluster[task.fact_implication[fact]]
    return group[kind, slot_of_fact[fact], (~task.subject_trained).astype(np.int64)]


def lift(reduced: ReducedProblem, blocks: Blocks) -> Float[np.ndarray, "input output"]:
    """The full W [input, output], in the task's own order, of a symmetric matrix given by its blocks."""
    task, clusters = reduced.task, reduced.clusters
    first = reduced.other_tokens
    group = group_of_subject(reduced)
    column, cluster_of_column = answer_columns(reduced)
    rows = np.concatenate([group, [reduced.n_groups, reduced.n_groups + 1]])
    row_scale = np.concatenate([reduced.row_scale, [1.0, 1.0]])
    values = blocks.constant[: reduced.n_groups + 2] / row_scale[:, None] / np.sqrt(reduced.column_size)
    feature = constant_feature(task, reduced.inputs)
    W = np.zeros((len(feature), first + task.n_answers))
    every_column = np.concatenate([np.full(first, len(reduced.column_type)), column])
    W[: task.n_subjects + 2] = values[np.ix_(rows, every_column)]
    if reduced.feature:
        shared = blocks.constant[-1] / np.sqrt(reduced.column_size)
        W += np.outer(feature / reduced.feature, shared[every_column])
    cluster = task.fact_implication[task.subject_fact]
    for k in np.flatnonzero(reduced.pair_multiplicity > 0):
        members, columns = (
            np.flatnonzero(reduced.row_type[group] == k),
            np.flatnonzero(reduced.column_type[column] == k),
        )
        size = np.sqrt(reduced.row_size[group[members]])[:, None]
        A = blocks.pair[k][np.ix_(reduced.row_offset[group[members]], reduced.column_slot[column[columns]])]
        same = cluster[members][:, None] == cluster_of_column[columns]
        W[np.ix_(members, first + columns)] += A / size * (same - 1 / clusters.count[k])
    return W


def answer_columns(
    reduced: ReducedProblem,
) -> tuple[Int[np.ndarray, " answer"], Int[np.ndarray, " answer"]]:
    """For every answer its column group, and its cluster (named by the implication)."""
    task, clusters = reduced.task, reduced.clusters
    column = np.zeros(task.n_answers, dtype=np.int64)
    for k, facts in enumerate(clusters.facts):
        column[facts] = reduced.first_column[k] + np.arange(facts.shape[1])
        column[task.n_facts + clusters.implications[k]] = reduced.first_column[k] + facts.shape[1]
    return column, np.concatenate([task.fact_implication, np.arange(task.n_implications)])
