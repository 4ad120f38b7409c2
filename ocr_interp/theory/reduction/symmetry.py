"""The max-margin problem of any task, reduced by the symmetries of its constraints.

Averaging a solution over a symmetry of the constraints keeps it feasible and cannot raise a unitarily
invariant norm, so W may be taken to commute with all of them:

- subjects of the same fact and status (which implications are told) are exchangeable: one row, scaled by the
  root of their number;
- a cluster is an implication with its facts, and with their other implications if they have several;
  clusters of the same shape and group sizes are exchangeable. N of them give W = A on the cluster itself plus
  B between any two: a pair block A of multiplicity N − 1 (patterns over the clusters that sum to 0) and a
  share of one constant block;
- tokens that are never correct are one column, and what every example holds beside its subject and
  relation is one row.

The norm of W is that of the blocks with their multiplicities. docs/theory.md, "Reductions".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from ocr_interp.task import FACT, IMPLICATION, FactRecallTask, Triples
from ocr_interp.theory.problem import constant_feature, feature_length


@dataclass(frozen=True)
class Clusters:
    """Implications with their facts, sorted into types of exchangeable ones.

    Attributes:
        of_fact: cluster of every fact; clusters are numbered by their first implication of r2.
        type_of_cluster: for every cluster its type.
        count: number of clusters of every type.
        facts: for every type [cluster, slot], the facts in each slot.
        implications: for every type [cluster, implication slot], the implications as answers, in the same
            order of clusters; those of r2 first.
        implication_slot: for every type [relation, slot], the implication slot of a fact's implication; the
            relations are r2, r3, ... .
        group_size: for every type [slot, status], subjects of each status.
        status_told: which implications a status is told; rows of `group_size` sum over all of them.
        status_of_subject: of every subject.
    """

    of_fact: Int[np.ndarray, " fact"]
    type_of_cluster: Int[np.ndarray, " cluster"]
    count: Int[np.ndarray, " type"]
    facts: tuple[Int[np.ndarray, "_cluster _slot"], ...]
    implications: tuple[Int[np.ndarray, "_cluster _implication_slot"], ...]
    implication_slot: tuple[Int[np.ndarray, "relation _slot"], ...]
    group_size: tuple[Int[np.ndarray, "_slot status"], ...]
    status_told: Bool[np.ndarray, "status relation"]
    status_of_subject: Int[np.ndarray, " subject"]


def find_clusters(task: FactRecallTask, merge: bool = True) -> Clusters:
    """Clusters by type; with merge=False every cluster is a type of its own."""
    status_told, status = _statuses(task)
    size = np.zeros((task.n_facts, len(status_told)), dtype=np.int64)
    np.add.at(size, (task.subject_fact, status), 1)
    of_fact = _connected(task)
    type_of: dict[tuple[object, ...], int] = {}
    groups: list[list[tuple[list[int], list[int], tuple[tuple[int, ...], ...]]]] = []
    type_of_cluster: list[int] = []
    sizes, answers = size.tolist(), task.answer_of_fact[IMPLICATION:].T.tolist()
    order = np.lexsort((*size.T[::-1], of_fact))
    ends = np.searchsorted(of_fact[order], np.arange(1, of_fact.max() + 1))
    for cluster, members in enumerate(np.split(order, ends)):
        facts = members.tolist()
        # Implications by first appearance among the ordered facts, relation by relation.
        own = list(zip(*(answers[fact] for fact in facts), strict=True))
        place: dict[int, int] = {}
        slots = tuple(tuple(place.setdefault(answer, len(place)) for answer in row) for row in own)
        shape = tuple(tuple(sizes[fact]) for fact in facts), slots
        kind = type_of.setdefault(shape if merge else (cluster,), len(type_of))
        if kind == len(groups):
            groups.append([])
        groups[kind].append((facts, list(place), slots))
        type_of_cluster.append(kind)
    return Clusters(
        of_fact=of_fact,
        type_of_cluster=np.array(type_of_cluster),
        count=np.array([len(members) for members in groups]),
        facts=tuple(np.array([facts for facts, _, _ in members]) for members in groups),
        implications=tuple(np.array([answers for _, answers, _ in members]) for members in groups),
        implication_slot=tuple(np.array(members[0][2]) for members in groups),
        group_size=tuple(size[members[0][0]] for members in groups),
        status_told=status_told,
        status_of_subject=status,
    )


def _statuses(task: FactRecallTask) -> tuple[np.ndarray, np.ndarray]:
    """Which implications every status is told, told ones first, and the status of every subject.

    With one implication there are always two: told and untold.
    """
    if task.implied_relations == 1:
        return np.array([[True], [False]]), (~task.subject_trained).astype(np.int64)
    untold, status = np.unique(~task.told[IMPLICATION:].T, axis=0, return_inverse=True)
    return ~untold, status.reshape(-1)


def _connected(task: FactRecallTask) -> Int[np.ndarray, " fact"]:
    """Cluster of every fact: facts that share an implication, directly or through other facts.

    Clusters are numbered in the order of their first implication of r2.
    """
    found = task.answer_of_fact[IMPLICATION] - task.n_facts
    for own in task.answer_of_fact[IMPLICATION + 1 :]:
        changed = True
        while changed:
            lowest = found.copy()
            for answers in (own, *task.answer_of_fact[IMPLICATION:]):
                _, place = np.unique(answers, return_inverse=True)
                best = np.full(place.max() + 1, task.n_facts, dtype=np.int64)
                np.minimum.at(best, place, lowest)
                lowest = best[place]
            changed, found = bool((lowest != found).any()), lowest
    return np.unique(found, return_inverse=True)[1].reshape(-1)


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

    Row groups are (type, slot, status) with at least one subject, then r1, r2, ..., then, if examples hold
    more, the constant feature's direction. Example groups are the facts of all subject groups in their
    order, relation by relation the implications of the groups that are told it, and (never constraints)
    likewise those of the others.

    Attributes:
        task, outputs, inputs: the problem.
        clusters: the types.
        row_type, row_slot, row_status, row_size: of every subject group; size per cluster.
        row_offset: row of a subject group inside its type's pair block.
        column_type, column_slot: of every answer column group; slots from n_slots on are implications.
        column_relation: the relation whose answers a column group belongs to.
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
    column_relation: Int[np.ndarray, " column_group"]
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
        rows = self.n_groups + self.task.n_relations + (self.feature > 0)
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

    def asked_rows(self, relation: int, held_out: bool) -> Int[np.ndarray, " asked"]:
        """Subject groups that are told an implication, or those that are not."""
        told = self.clusters.status_told[self.row_status, relation - IMPLICATION]
        return np.flatnonzero(told != held_out)

    def _asked(self, held_out: bool) -> list[Int[np.ndarray, " asked"]]:
        """Subject groups of the example groups of every relation, r1 first."""
        relations = range(IMPLICATION, self.task.n_relations)
        facts = np.arange(0 if held_out else self.n_groups)
        return [facts, *(self.asked_rows(relation, held_out) for relation in relations)]

    def example_rows(self, held_out: bool = False) -> Int[np.ndarray, " example"]:
        """Subject group of every example group."""
        return np.concatenate(self._asked(held_out))

    def example_relations(self, held_out: bool = False) -> Int[np.ndarray, " example"]:
        """Relation of every example group."""
        return np.repeat(np.arange(self.task.n_relations), [len(rows) for rows in self._asked(held_out)])

    def example_of(self, triples: Triples, held_out: bool = False) -> Int[np.ndarray, " triple"]:
        """Example group of every triple, among the training ones or the held-out implications."""
        rows, relations = self.example_rows(held_out), self.example_relations(held_out)
        found = np.full((self.task.n_relations, self.n_groups), -1)
        found[relations, rows] = np.arange(len(rows))
        return found[triples.relation, group_of_subject(self)[triples.subject]]

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
        kind, slot = self.row_type[rows], self.row_slot[rows]
        asked = zip(kind, relation, slot, strict=True)
        own = [self.clusters.implication_slot[k][r - IMPLICATION, s] for k, r, s in asked]
        return np.where(relation == FACT, slot, self.n_slots[kind] + np.array(own, dtype=np.int64))

    @cached_property
    def n_columns(self) -> Int[np.ndarray, " type"]:
        """Facts and implications of a cluster, by type."""
        return np.bincount(self.column_type, minlength=len(self.n_slots))

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
        present = [(int(slot), int(status)) for slot, status in np.argwhere(size)]
        rows += [(k, slot, status, size[slot, status], i) for i, (slot, status) in enumerate(present)]
    columns = []
    for k, (facts, answers) in enumerate(zip(clusters.facts, clusters.implications, strict=True)):
        relations = [FACT] * facts.shape[1] + task.answer_relation[answers[0]].tolist()
        columns += [(k, slot, relation) for slot, relation in enumerate(relations)]
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
        column_relation=column[:, 2],
        other_tokens=task.n_inputs if outputs == "vocabulary" else 0,
        feature=feature_length(task, inputs),
    )


def group_of_subject(reduced: ReducedProblem) -> Int[np.ndarray, " subject"]:
    """Subject group of every subject."""
    task, clusters = reduced.task, reduced.clusters
    slot_of_fact = np.zeros(task.n_facts, dtype=np.int64)
    for facts in clusters.facts:
        slot_of_fact[facts] = np.arange(facts.shape[1])
    group = np.full((len(clusters.count), int(reduced.n_slots.max()), len(clusters.status_told)), -1)
    group[reduced.row_type, reduced.row_slot, reduced.row_status] = np.arange(reduced.n_groups)
    fact = task.subject_fact
    kind = clusters.type_of_cluster[clusters.of_fact[fact]]
    return group[kind, slot_of_fact[fact], clusters.status_of_subject]


def lift(reduced: ReducedProblem, blocks: Blocks) -> Float[np.ndarray, "input output"]:
    """The full W [input, output], in the task's own order, of a symmetric matrix given by its blocks."""
    task, clusters = reduced.task, reduced.clusters
    first = reduced.other_tokens
    group = group_of_subject(reduced)
    column, cluster_of_column = answer_columns(reduced)
    rows = np.concatenate([group, reduced.n_groups + np.arange(task.n_relations)])
    row_scale = np.concatenate([reduced.row_scale, np.ones(task.n_relations)])
    values = blocks.constant[: len(row_scale)] / row_scale[:, None] / np.sqrt(reduced.column_size)
    feature = constant_feature(task, reduced.inputs)
    W = np.zeros((len(feature), first + task.n_answers))
    every_column = np.concatenate([np.full(first, len(reduced.column_type)), column])
    W[: len(rows)] = values[np.ix_(rows, every_column)]
    if reduced.feature:
        shared = blocks.constant[-1] / np.sqrt(reduced.column_size)
        W += np.outer(feature / reduced.feature, shared[every_column])
    cluster = clusters.of_fact[task.subject_fact]
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
    """For every answer its column group, and its cluster."""
    task, clusters = reduced.task, reduced.clusters
    column = np.zeros(task.n_answers, dtype=np.int64)
    for k, (facts, answers) in enumerate(zip(clusters.facts, clusters.implications, strict=True)):
        column[facts] = reduced.first_column[k] + np.arange(facts.shape[1])
        column[answers] = reduced.first_column[k] + facts.shape[1] + np.arange(answers.shape[1])
    cluster = np.zeros(task.n_answers, dtype=np.int64)
    cluster[task.answer_of_fact] = clusters.of_fact
    return column, cluster
