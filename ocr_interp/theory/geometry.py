"""Balanced embeddings of subjects, relations and answers in a solution, and their cosines.

W_V and W_O are defined only up to an invertible matrix between them, so cosines of trained factors mean
nothing by themselves. Those of the balanced factors U Σ^½ and V Σ^½ of W = U Σ Vᵀ do: inner products
within the inputs are (W Wᵀ)^½, within the outputs (Wᵀ W)^½, and between the two W itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class SpectrumBlock:
    """A degenerate block of singular values; single vectors inside it mean nothing, its span does.

    Attributes:
        value: the singular value.
        multiplicity: its dimension.
        kind: "pair" (patterns over pairs that sum to 0), "constant" (the relation direction), or both;
            "matrix" where W was solved for without symmetries.
    """

    value: float
    multiplicity: int
    kind: str


@dataclass(frozen=True)
class Cosines:
    """Predicted cosines between balanced embeddings; NaN where a group is absent or its vectors are 0.

    Attributes:
        train_train_same_pair, held_out_held_out_same_pair, train_held_out_same_pair: subjects of a pair.
        train_train_other_pair, held_out_held_out_other_pair, train_held_out_other_pair: of two pairs.
        relations: r1 with r2.
        train_relation, held_out_relation: a subject with r1 (with r2: the opposite sign, if m_train > 0).
        fact_train, fact_held_out: subject + r1 with its fact.
        implication_train, implication_held_out: subject + r2 with its implication.
        fact_implication_same_pair, fact_implication_other_pair: b_i with c_i, and with c_j.
        fact_fact_other_pair, implication_implication_other_pair: answers of one kind.
    """

    train_train_same_pair: float
    held_out_held_out_same_pair: float
    train_held_out_same_pair: float
    train_train_other_pair: float
    held_out_held_out_other_pair: float
    train_held_out_other_pair: float
    relations: float
    train_relation: float
    held_out_relation: float
    fact_train: float
    fact_held_out: float
    implication_train: float
    implication_held_out: float
    fact_implication_same_pair: float
    fact_implication_other_pair: float
    fact_fact_other_pair: float
    implication_implication_other_pair: float


def symmetric_factor(
    block: Float[np.ndarray, "row column"], left: bool
) -> Float[np.ndarray, "side component"]:
    """U Σ^½ (left) or V Σ^½ of a block, without the components whose singular value is 0."""
    U, s, Vt = np.linalg.svd(block, full_matrices=False)
    keep = s > 1e-7 * max(s[0], np.finfo(float).tiny)
    return (U if left else Vt.T)[:, keep] * np.sqrt(s[keep])


class _Gram:
    """Inner products of the balanced embeddings, from the factors of the two blocks."""

    def __init__(
        self,
        sizes: tuple[int, int, int],
        pair_block: Float[np.ndarray, "status kind"],
        constant_block: Float[np.ndarray, "group column_group"],
    ) -> None:
        n, m_train, m_test = sizes
        size = np.array([m_train, m_test], dtype=float)
        group_size = np.concatenate([n * size, np.ones(3)])
        with np.errstate(divide="ignore", invalid="ignore"):  # absent groups: NaN throughout
            self._subject = symmetric_factor(pair_block, True) / np.sqrt(size)[:, None]
            self.group = symmetric_factor(constant_block, True) / np.sqrt(group_size)[:, None]
        self._answer = symmetric_factor(pair_block, False)
        self._answer_group = symmetric_factor(constant_block, False)[:2] / np.sqrt(n)
        self.same, self.other = 1 - 1 / n, -1 / n

    def subjects(self, x: int, y: int, overlap: float) -> float:
        return float(self._subject[x] @ self._subject[y] * overlap + self.group[x] @ self.group[y])

    def answers(self, x: int, y: int, overlap: float) -> float:
        return float(
            self._answer[x] @ self._answer[y] * overlap + self._answer_group[x] @ self._answer_group[y]
        )

    def subject_cosine(self, x: int, y: int, overlap: float) -> float:
        lengths = self.subjects(x, x, self.same), self.subjects(y, y, self.same)
        return _cosine(self.subjects(x, y, overlap), *lengths)

    def answer_cosine(self, x: int, y: int, overlap: float) -> float:
        lengths = self.answers(x, x, self.same), self.answers(y, y, self.same)
        return _cosine(self.answers(x, y, overlap), *lengths)

    def relation_cosine(self, status: int) -> float:
        r1 = self.group[2]
        length = self.subjects(status, status, self.same)
        return _cosine(float(self.group[status] @ r1), length, float(r1 @ r1))

    def recall_cosine(self, status: int, kind: int) -> float:
        """Subject + relation with its answer: inputs and outputs share their components."""
        shared = self.group[status] + self.group[2 + kind]
        subject = self._subject[status]
        logit = float(subject @ self._answer[kind] * self.same + shared @ self._answer_group[kind])
        squared = float(subject @ subject * self.same + shared @ shared)
        return _cosine(logit, squared, self.answers(kind, kind, self.same))


def predicted_cosines(
    sizes: tuple[int, int, int],
    pair_block: Float[np.ndarray, "status kind"],
    constant_block: Float[np.ndarray, "group column_group"],
) -> Cosines:
    """Cosines from the two blocks of a balanced solution; O(1) in the number of pairs.

    Args:
        sizes: (n, m_train, m_test).
        pair_block, constant_block: as in `ClosedForm`, scaled by the roots of the group sizes.
    """
    gram = _Gram(sizes, pair_block, constant_block)
    same, other = gram.same, gram.other
    r1, r2 = gram.group[2], gram.group[3]
    return Cosines(
        train_train_same_pair=gram.subject_cosine(0, 0, same),
        held_out_held_out_same_pair=gram.subject_cosine(1, 1, same),
        train_held_out_same_pair=gram.subject_cosine(0, 1, same),
        train_train_other_pair=gram.subject_cosine(0, 0, other),
        held_out_held_out_other_pair=gram.subject_cosine(1, 1, other),
        train_held_out_other_pair=gram.subject_cosine(0, 1, other),
        relations=_cosine(float(r1 @ r2), float(r1 @ r1), float(r2 @ r2)),
        train_relation=gram.relation_cosine(0),
        held_out_relation=gram.relation_cosine(1),
        fact_train=gram.recall_cosine(0, 0),
        fact_held_out=gram.recall_cosine(1, 0),
        implication_train=gram.recall_cosine(0, 1),
        implication_held_out=gram.recall_cosine(1, 1),
        fact_implication_same_pair=gram.answer_cosine(0, 1, same),
        fact_implication_other_pair=gram.answer_cosine(0, 1, other),
        fact_fact_other_pair=gram.answer_cosine(0, 0, other),
        implication_implication_other_pair=gram.answer_cosine(1, 1, other),
    )


def _cosine(inner: float, squared_left: float, squared_right: float) -> float:
    """inner / (|left| |right|); NaN for absent or zero vectors."""
    if not squared_left > 0 or not squared_right > 0:
        return float("nan")
    return float(inner / np.sqrt(squared_left * squared_right))


def centred_patterns(n: int) -> Float[np.ndarray, "pair pattern"]:
    """Rows in R^(n−1) with Gram matrix I − 1/n: the pair indicators, centred, in a Helmert basis."""
    k = np.arange(1, n)
    basis = np.where(np.arange(n)[:, None] < k, 1.0, 0.0)
    basis[k, k - 1] = -k
    return basis / np.sqrt(k * (k + 1.0))
