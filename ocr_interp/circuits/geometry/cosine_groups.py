"""Pairwise cosines of a task's subjects, relations and answers, all of them and by kind of pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from ocr_interp.linalg.spectrum import factored_svd
from ocr_interp.linalg.vectors import cosine_table
from ocr_interp.task import FACT, IMPLICATION, FactRecallTask

CHECKS = ("relations", "train_relation", "held_out_relation")
RECALL = ("fact_train", "fact_held_out", "implication_train", "implication_held_out")
GROUPS = (
    "train_train_same_pair",
    "held_out_held_out_same_pair",
    "train_held_out_same_pair",
    "train_train_other_pair",
    "held_out_held_out_other_pair",
    "train_held_out_other_pair",
    *CHECKS,
    *RECALL,
    "fact_implication_same_pair",
    "fact_implication_other_pair",
    "fact_fact_other_pair",
    "implication_implication_other_pair",
)
"""Kinds of pairs, named as in `ocr_interp.theory.geometry.Cosines`: subjects with subjects of their own and
of other pairs; r1 with r2; subjects with r1; subject + relation with its answer; answers with answers. If a
fact has several implications, each kind has those of all relations, and implications with implications are
those of one relation."""

FURTHER_GROUPS = (
    "implication_relations",
    "implications_of_two_relations_same_pair",
    "implications_of_two_relations_other_pair",
)
"""Further kinds if a fact has several implications: r2 with r3 and so on; c_i with d_i, and with d_j."""


@dataclass(frozen=True)
class CosineGroup:
    """Cosines of one kind of pair; NaN where the task has none.

    Attributes:
        name: an entry of GROUPS or FURTHER_GROUPS.
        count: number of pairs.
        mean, smallest, largest: measured.
        predicted: mean of the predicted ones, which are all equal in a balanced task.
        deviation: root mean square of measured − predicted, pair by pair.
    """

    name: str
    count: int
    mean: float
    smallest: float
    largest: float
    predicted: float
    deviation: float


def all_cosines(
    W: Float[np.ndarray, "subject_or_relation answer"], task: FactRecallTask
) -> Float[np.ndarray, "vector vector"]:
    """Cosines of balanced embeddings; vectors as in `vector_labels`; NaN for zero vectors."""
    U, s, V = factored_svd(np.eye(len(W)), W)
    keep = s > 1e-10 * max(float(s[0]), np.finfo(float).tiny)
    inputs, answers = U[:, keep] * np.sqrt(s[keep]), V[:, keep] * np.sqrt(s[keep])
    n = task.n_subjects
    sums = [inputs[:n] + inputs[relation] for relation in task.relation_tokens]
    vectors = np.vstack([inputs, answers, *sums])
    return cosine_table(vectors, vectors)


def vector_labels(task: FactRecallTask) -> tuple[str, ...]:
    """Labels of the vectors: subjects, relations, answers, then s + r1, s + r2, ... of every subject."""
    subjects = task.labels[: task.n_subjects]
    relations = task.labels[task.n_subjects : task.noise_tokens.start]
    answers = task.labels[task.n_inputs :]
    sums = [f"{s}+{r}" for r in relations for s in subjects]
    return (*subjects, *relations, *answers, *sums)


def group_masks(task: FactRecallTask) -> dict[str, Bool[np.ndarray, "vector vector"]]:
    """Which pairs of vectors belong to every kind; each unordered pair of one kind once."""
    n, answers, relations = task.n_subjects, task.n_answers, task.n_relations
    first, size = n + relations, n + relations + answers + relations * n
    fact = np.full(size, -1)
    role = np.full(size, "none", dtype=object)
    fact[:n], role[:n] = task.subject_fact, np.where(task.subject_trained, "train", "held_out")
    fact[first : first + task.n_facts] = np.arange(task.n_facts)
    of_answer = np.full(size, -1)
    of_answer[first : first + answers] = task.answer_relation
    upper = np.triu(np.ones((size, size), dtype=bool), 1)
    masks: dict[str, np.ndarray] = {}
    same = fact[:, None] == fact[None, :]
    for a, b in (("train", "train"), ("held_out", "held_out"), ("train", "held_out")):
        both = (role[:, None] == a) & (role[None, :] == b)
        both = both & upper if a == b else both
        masks[f"{a}_{b}_same_pair"], masks[f"{a}_{b}_other_pair"] = both & same, both & ~same
    alike = (of_answer[:, None] == of_answer[None, :]) & upper
    is_fact, is_implication = of_answer == FACT, of_answer > FACT
    masks["fact_fact_other_pair"] = alike & is_fact[:, None]
    masks["implication_implication_other_pair"] = alike & is_implication[:, None]
    own = np.zeros((size, size), dtype=bool)
    apart = np.zeros((size, size), dtype=bool)
    for of_fact in task.answer_of_fact.T:
        own[first + of_fact[FACT], first + of_fact[IMPLICATION:]] = True
        apart[np.ix_(first + of_fact[IMPLICATION:], first + of_fact[IMPLICATION:])] = True
    across = is_fact[:, None] & is_implication[None, :]
    masks["fact_implication_same_pair"], masks["fact_implication_other_pair"] = across & own, across & ~own
    sums = first + answers
    for status, name in ((True, "train"), (False, "held_out")):
        subjects = np.flatnonzero(task.subject_trained == status)
        masks[f"{name}_relation"] = _pairs(size, subjects, np.full(len(subjects), n))
        for relation, answer in enumerate(task.right_answer[:, subjects]):
            recall = _pairs(size, sums + n * relation + subjects, first + answer)
            kind = f"fact_{name}" if relation == FACT else f"implication_{name}"
            masks[kind] = masks.get(kind, False) | recall
    masks["relations"] = _pairs(size, np.full(relations - 1, n), n + np.arange(1, relations))
    if relations > 2:
        left, right = np.triu_indices(relations - 1, 1)
        masks["implication_relations"] = _pairs(size, n + 1 + left, n + 1 + right)
        two = is_implication[:, None] & is_implication[None, :] & upper & ~alike
        masks["implications_of_two_relations_same_pair"] = two & apart
        masks["implications_of_two_relations_other_pair"] = two & ~apart
    return masks


def _pairs(size: int, left: np.ndarray, right: np.ndarray) -> Bool[np.ndarray, "vector vector"]:
    mask = np.zeros((size, size), dtype=bool)
    mask[left, right] = True
    return mask


def cosine_groups(
    measured: Float[np.ndarray, "vector vector"],
    predicted: Float[np.ndarray, "vector vector"],
    masks: dict[str, Bool[np.ndarray, "vector vector"]],
) -> tuple[CosineGroup, ...]:
    """Measured against predicted cosines, kind by kind, in the order of GROUPS and FURTHER_GROUPS."""
    found = []
    for name in (name for name in (*GROUPS, *FURTHER_GROUPS) if name in masks):
        ours, theirs = measured[masks[name]], predicted[masks[name]]
        if not len(ours):
            found.append(CosineGroup(name, 0, *([float("nan")] * 5)))
            continue
        deviation = float(np.sqrt(((ours - theirs) ** 2).mean()))
        found.append(
            CosineGroup(
                name=name,
                count=len(ours),
                mean=float(ours.mean()),
                smallest=float(ours.min()),
                largest=float(ours.max()),
                predicted=float(theirs.mean()),
                deviation=deviation,
            )
        )
    return tuple(found)
