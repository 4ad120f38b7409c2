"""The norm of sums of Kronecker products: the nuclear norm of Van Loan's rearrangement, for one layout.

It depends on which tokens stand where, so it is made for a layout and has no name in the registry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ocr_interp.errors import ConfigError
from ocr_interp.layouts import KroneckerLayout
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.norms.base import Norm, largest_singular_value
from ocr_interp.theory.norms.nuclear import NORM as NUCLEAR


@dataclass(frozen=True)
class KroneckerNorm(Norm):
    """Σ over layers of ‖R(W_grid)‖_*, plus ‖W_dense‖_* of the rows beside the grid.

    The smallest Σ (‖A_k‖² + ‖B_k‖²)/2 of factors of a given grid is the first part, and the smallest
    (‖D_V‖² + ‖D_O‖²)/2 of D_V D_O = W_dense the second. Subjects write to answers alone: with another
    entry in a subject's row the value is inf, and the dual norm does not see such entries.

    Attributes:
        layout: places of subjects and answers.

    Source: docs/theory.md, "Kronecker products".
    """

    layout: KroneckerLayout

    name, label = "kronecker", "nuclear norm of the rearrangement"

    def _parts(
        self, W: Float[np.ndarray, "row column"]
    ) -> tuple[
        Float[np.ndarray, "layer entry_of_a entry_of_b"],
        Float[np.ndarray, "dense column"],
        Float[np.ndarray, "subject other"],
    ]:
        """Rearranged grid, dense rows, and the subjects' columns that are no answers."""
        n_subjects, n_answers = self.layout.shape
        subjects, first = W[:n_subjects], W.shape[1] - n_answers
        return self.layout.rearranged(subjects[:, first:]), W[n_subjects:], subjects[:, :first]

    def _whole(
        self, R: Float[np.ndarray, "layer entry_of_a entry_of_b"], dense: Float[np.ndarray, "dense column"]
    ) -> Float[np.ndarray, "row column"]:
        """W from its rearranged grid and its dense rows."""
        n_subjects, n_answers = self.layout.shape
        W = np.zeros((n_subjects + len(dense), dense.shape[1]))
        W[:n_subjects, dense.shape[1] - n_answers :] = self.layout.restored(R)
        W[n_subjects:] = dense
        return W

    def _matrices(self, W: Float[np.ndarray, "row column"]) -> Iterator[Float[np.ndarray, "a b"]]:
        R, dense, _ = self._parts(W)
        yield from R
        if len(dense):
            yield dense

    def value(self, W: Float[np.ndarray, "row column"]) -> float:
        if self._parts(W)[2].any():
            return float("inf")
        return float(sum(NUCLEAR.value(part) for part in self._matrices(W)))

    def dual_value(self, G: Float[np.ndarray, "row column"]) -> float:
        return max(largest_singular_value(part) for part in self._matrices(G))

    def ball_point(self, G: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
        R, dense, _ = self._parts(G)
        parts = [*R, dense]
        lengths = np.array([largest_singular_value(part) if part.size else 0.0 for part in parts])
        top = lengths >= lengths.max() * (1 - 1e-9)
        points = [
            NUCLEAR.ball_point(part) / top.sum() if chosen else np.zeros_like(part)
            for part, chosen in zip(parts, top, strict=True)
        ]
        return self._whole(np.stack(points[:-1]), points[-1])

    def prox(self, W: Float[np.ndarray, "row column"], step: float) -> Float[np.ndarray, "row column"]:
        R, dense, _ = self._parts(W)
        shrunk = dense if not len(dense) else _shrunk(dense, step)
        return self._whole(np.stack([_shrunk(part, step) for part in R]), shrunk)

    def allowed(self, W: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
        """W with subjects that write to answers alone."""
        R, dense, _ = self._parts(W)
        return self._whole(R, dense)

    def atom(self, W: Any) -> Any:
        import cvxpy as cp
        from cvxpy.transforms.indicator import indicator

        n_subjects, n_answers = self.layout.shape
        first = W.shape[1] - n_answers
        entries = cp.vec(W[:n_subjects, first:], order="C")[self.layout.inverse]
        layers, entries_a, entries_b = self.layout.rearranged_shape
        size = entries_a * entries_b
        parts: list[Any] = [
            cp.normNuc(cp.reshape(entries[k * size : (k + 1) * size], (entries_a, entries_b), order="C"))
            for k in range(layers)
        ]
        if W.shape[0] > n_subjects:
            parts.append(cp.normNuc(W[n_subjects:]))
        if first:
            parts.append(indicator([W[:n_subjects, :first] == 0]))
        return sum(parts)

    def check_fits(self, task: FactRecallTask, n_inputs: int, n_outputs: int) -> None:
        wanted = (task.n_subjects, task.n_answers)
        if self.layout.shape != wanted:
            raise ConfigError(
                f"the layout of a KroneckerNorm must be of the task's {wanted[0]} subjects x {wanted[1]} "
                f"answers, got one of {self.layout.shape[0]} x {self.layout.shape[1]}: make it with "
                "token_layout(task)"
            )

    def has_closed_solution(self, task: FactRecallTask) -> bool:
        """Whether the task is balanced, with told implications, and one factor runs over pairs alone."""
        told = task.subject_trained.any()
        return bool(task.balanced_sizes is not None and told and self.separates_pairs(task))

    def closed_solution(
        self, task: FactRecallTask, n_inputs: int, n_outputs: int
    ) -> tuple[Float[np.ndarray, "input output"], Float[np.ndarray, "example output"]] | None:
        """W and dual weights of a balanced task whose factors run over pairs and over (member, type).

        W = (1 − 1/n) or −1/n where it is told, 0 where it is not: β = 0, and the norm is
        √((n − 1) · told entries of a pair) + K √n, K the number of implied relations.
        """
        if task.balanced_sizes is None or not self.has_closed_solution(task):
            return None
        n, triples, told = task.n_facts, task.triples, task.training_triples
        n_types = int(triples.relation.max()) + 1
        first, subject = n_outputs - task.n_answers, task.subject_fact
        answer_pair, answer_type = _of_answers(task)
        is_told = np.zeros((task.n_subjects, n_types), dtype=bool)
        is_told[told.subject, told.relation] = True
        W = np.zeros((n_inputs, n_outputs))
        own = (subject[:, None] == answer_pair[None]) - 1 / n
        W[: task.n_subjects, first:] = own * is_told[:, answer_type]
        relation_rows = task.n_subjects + np.arange(n_types)
        W[relation_rows, first:] = (np.arange(n_types)[:, None] == answer_type) - 1 / n_types
        of_pair = int(is_told.sum()) // n
        t, nu = 1 / (n * np.sqrt((n - 1) * of_pair)), 1 / (task.balanced_sizes[1] * n_types * np.sqrt(n))
        weights = np.zeros((len(told), n_outputs))
        same_type = answer_type[None] == told.relation[:, None]
        weights[:, first:] = t * same_type
        own_others = (answer_pair[None] == subject[told.subject][:, None]) & ~same_type
        weights[:, first:] += nu * (own_others & np.all(is_told[told.subject], axis=1, keepdims=True))
        weights[np.arange(len(told)), first + told.answer] = 0.0
        return W, weights

    def separates_pairs(self, task: FactRecallTask) -> bool:
        """Whether one factor runs over pairs alone and the other over (member, type) alone."""
        n, layers = task.n_facts, self.layout.layers
        if layers > 1 or task.n_answers % n or n * (task.n_subjects // n) != task.n_subjects:
            return False
        answer_pair, answer_type = _of_answers(task)
        if (answer_pair < 0).any():
            return False
        rows = np.lexsort((np.arange(task.n_subjects), ~task.subject_trained, task.subject_fact))
        columns = np.lexsort((answer_type, answer_pair))
        index = self.layout.index[np.ix_(rows, columns)].reshape(n, len(rows) // n, n, len(columns) // n)
        a, b = np.divmod(index, self.layout.rearranged_shape[2])
        return (_depends_on(a, (0, 2)) and _depends_on(b, (1, 3))) or (
            _depends_on(b, (0, 2)) and _depends_on(a, (1, 3))
        )


def _of_answers(task: FactRecallTask) -> tuple[Int[np.ndarray, " answer"], Int[np.ndarray, " answer"]]:
    """Pair and type (relation) of every answer."""
    triples = task.triples
    pair, kind = np.full(task.n_answers, -1), np.full(task.n_answers, -1)
    pair[triples.answer], kind[triples.answer] = task.subject_fact[triples.subject], triples.relation
    return pair, kind


def _depends_on(values: Int[np.ndarray, "pair member other_pair type"], axes: tuple[int, int]) -> bool:
    """Whether values do not change along the other axes."""
    others = tuple(axis for axis in range(4) if axis not in axes)
    return bool((values == values.min(axis=others, keepdims=True)).all())


def _shrunk(W: Float[np.ndarray, "a b"], step: float) -> Float[np.ndarray, "a b"]:
    """Soft threshold of the singular values, from the smaller Gram matrix."""
    B = W if W.shape[0] >= W.shape[1] else W.T
    squared, V = np.linalg.eigh(B.T @ B)
    s = np.sqrt(np.maximum(squared, 0.0))
    ratio = np.divide(np.maximum(s - step, 0.0), s, out=np.zeros_like(s), where=s > 0)
    out = (B @ (V * ratio)) @ V.T
    return out if B is W else out.T
