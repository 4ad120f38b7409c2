"""The (subject, relation, answer) triples of a task and the four kinds of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from ocr_interp.errors import unknown_name

FACT, IMPLICATION = 0, 1
"""Index of the relations r1 (fact) and r2 (implication). Further implications, r3 and on, are 2 and on."""

SPLITS = ("training_fact", "training_implication", "held_out_fact", "held_out_implication")
"""The four kinds of triples; all but the last are in the training set. "held-out" describes the subject: its
fact is in the training set, its implication (one of them, if a fact has several) is not."""

TRAINED_SPLITS = SPLITS[:3]


@dataclass(frozen=True)
class Triples:
    """(subject, relation, answer) triples of a task, subject-major, facts before implications.

    Attributes:
        subject: index of the subject, 0..n_subjects-1.
        relation: FACT, IMPLICATION, or the index of a further implication.
        answer: index into the answers (facts, then implications) of the correct one.
        split: index into SPLITS.
    """

    subject: Int[np.ndarray, " triple"]
    relation: Int[np.ndarray, " triple"]
    answer: Int[np.ndarray, " triple"]
    split: Int[np.ndarray, " triple"]

    def __len__(self) -> int:
        return len(self.subject)

    def select(self, keep: Bool[np.ndarray, " triple"] | Int[np.ndarray, " kept"]) -> Triples:
        """The triples chosen by a mask or by indices."""
        return Triples(self.subject[keep], self.relation[keep], self.answer[keep], self.split[keep])

    def of_split(self, *splits: str) -> Triples:
        """The triples of the named splits; an unknown name raises with the close matches."""
        for name in splits:
            if name not in SPLITS:
                raise unknown_name("split", name, SPLITS)
        return self.select(np.isin(self.split, [SPLITS.index(name) for name in splits]))


def all_triples(
    right_answer: Int[np.ndarray, "relation subject"], told: Bool[np.ndarray, "relation subject"]
) -> Triples:
    """Every subject's triple under every relation, relation by relation.

    Args:
        right_answer: the answers.
        told: which triples are in the training set; facts are.
    """
    n_relations, n_subjects = right_answer.shape
    of_fact = 2 * (~told.all(axis=0)).astype(np.int64)
    of_implication = 2 * (~told[IMPLICATION:]).astype(np.int64) + 1
    return Triples(
        subject=np.tile(np.arange(n_subjects), n_relations),
        relation=np.repeat(np.arange(n_relations), n_subjects),
        answer=right_answer.flatten(),
        split=np.concatenate([of_fact, of_implication.flatten()]),
    )


def equal_groups(
    fact: Int[np.ndarray, " subject"], told: Bool[np.ndarray, " subject"]
) -> tuple[int, int] | None:
    """Told and untold subjects of every fact, if these are the same numbers for all facts; else None."""
    n_facts = int(fact.max()) + 1
    sizes = [np.bincount(fact[status], minlength=n_facts) for status in (told, ~told)]
    if any((size != size[0]).any() for size in sizes):
        return None
    return int(sizes[0][0]), int(sizes[1][0])
