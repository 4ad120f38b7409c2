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
