"""Pairwise cosines of a task's subjects, relations and answers, all of them and by kind of pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from ocr_interp.linalg.spectrum import factored_svd
from ocr_interp.linalg.vectors import cosine_table
from ocr_interp.task import FactRecallTask

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
of other pairs; r1 with r2; subjects with r1; subject + relation with its answer; answers with answers."""


@dataclass(frozen=True)
class CosineGroup:
    """Cosines of one kind of pair; NaN where the task has none.

    Attributes:
        name: an entry of GROUPS.
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
    vectors = np.vstack([inputs, answers, inputs[:n] + inputs[n], inputs[:n] + inputs[n + 1]])
    return cosine_table(vectors, vectors)


def vector_labels(task: FactRecallTask) -> tuple[str, ...]:
    """Labels of the vectors: subjects, r1, r2, answers, then s + r1 and s + r2 of every subject."""
    subjects = task.labels[: task.n_subjects]
    answers = task.labels[task.n_inputs :]
    sums = [f"{s}+{r}" for r in ("r1", "r2") for s in subjects]
    return (*subjects, "r1", "r2", *answers, *sums)


def group_masks(task: FactRecallTask) -> dict[str, Bool[np.ndarray, "vector vector"]]:
    """Which pairs of vectors belong to every kind; each unordered pair of one kind once."""
    n, answers = task.n_subjects, task.n_answers
    size = n + 2 + answers + 2 * n
    fact = np.full(size, -1)
    role = np.full(size, "none", dtype=object)
    fact[:n], role[:n] = task.subject_fact, np.where(task.subject_trained, "train", "held_out")
    first = n + 2
    fact[first : first + task.n_facts] = np.arange(task.n_facts)
    role[first : first + task.n_facts] = "fact"
    role[first + task.n_facts : first + answers] = "implication"
    upper = np.triu(np.ones((size, size), dtype=bool), 1)
    masks: dict[str, np.ndarray] = {}
    same = fact[:, None] == fact[None, :]
    for a, b in (("train", "train"), ("held_out", "held_out"), ("train", "held_out")):
        both = (role[:, None] == a) & (role[None, :] == b)
        both = both & upper if a == b else both
        masks[f"{a}_{b}_same_pair"], masks[f"{a}_{b}_other_pair"] = both & same, both & ~same
    for kind in ("fact", "implication"):
        masks[f"{kind}_{kind}_other_pair"] = (role[:, None] == kind) & (role[None, :] == kind) & upper
    own = np.zeros((size, size), dtype=bool)
    for f, c in enumerate(task.fact_implication):
        own[first + f, first + task.n_facts + c] = True
    across = (role[:, None] == "fact") & (role[None, :] == "implication")
    masks["fact_implication_same_pair"], masks["fact_implication_other_pair"] = across & own, across & ~own
    for status, name in ((True, "train"), (False, "held_out")):
        subjects = np.flatnonzero(task.subject_trained == status)
        own_fact = task.subject_fact[subjects]
        own_implication = task.n_facts + task.fact_implication[own_fact]
        masks[f"{name}_relation"] = _pairs(size, subjects, np.full(len(subjects), n))
        masks[f"fact_{name}"] = _pairs(size, first + answers + subjects, first + own_fact)
        masks[f"implication_{name}"] = _pairs(size, first + answers + n + subjects, first + own_implication)
    masks["relations"] = _pairs(size, np.array([n]), np.array([n + 1]))
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
    """Measured against predicted cosines, kind by kind, in the order of GROUPS."""
    found = []
    for name in GROUPS:
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
