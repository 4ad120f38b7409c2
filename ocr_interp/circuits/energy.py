"""Where the weight of a circuit sits: norms and shares of energy by kind of input and kind of output."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from ocr_interp.errors import unknown_name
from ocr_interp.hooked.tokens.token_set import TokenSet
from ocr_interp.task import FactRecallTask

ANSWER_KINDS = ("own fact", "other facts", "own implication", "other implications", "rest")
"""Kinds of outputs as seen from one input. Only subjects have own answers: for relations, noise and EOS
every fact is an other fact. Implications are those of all relations."""


@dataclass(frozen=True)
class BlockEnergy:
    """A circuit broken down by kinds of inputs (rows) and outputs (columns); no entry is counted twice.

    Attributes:
        rows, columns: names of the kinds.
        norms: Frobenius norm of each part, in logits; 0 for a part without entries.
        shares: squared norm of each part over that of all parts; they sum to 1 (NaN for a zero circuit).
        means: mean entry of each part, in logits; NaN for a part without entries.
        counts: number of entries of each part; over their sum, the share of a part of equal entries.
        fingerprint: of the weights, as in Provenance.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    norms: Float[np.ndarray, "input_kind output_kind"] = field(repr=False)
    shares: Float[np.ndarray, "input_kind output_kind"] = field(repr=False)
    means: Float[np.ndarray, "input_kind output_kind"] = field(repr=False)
    counts: Int[np.ndarray, "input_kind output_kind"] = field(repr=False)
    fingerprint: str = ""

    def share(self, row: str, column: str) -> float:
        """The share of one part; an unknown name raises with the close matches."""
        return float(self.shares[self._row(row), self._column(column)])

    def mean(self, row: str, column: str) -> float:
        """The mean entry of one part, in logits."""
        return float(self.means[self._row(row), self._column(column)])

    def norm(self, row: str, column: str) -> float:
        """The Frobenius norm of one part, in logits."""
        return float(self.norms[self._row(row), self._column(column)])

    def _row(self, name: str) -> int:
        if name not in self.rows:
            raise unknown_name("kind of input", name, self.rows)
        return self.rows.index(name)

    def _column(self, name: str) -> int:
        if name not in self.columns:
            raise unknown_name("kind of output", name, self.columns)
        return self.columns.index(name)


def block_energy(
    W: Float[np.ndarray, "input output"],
    kind: Int[np.ndarray, "input output"],
    inputs: TokenSet,
    columns: tuple[str, ...],
    fingerprint: str = "",
) -> BlockEnergy:
    """Sums W by the group of its input and the kind of each entry's output (an index into `columns`)."""
    shape = (len(inputs.group_names), len(columns))
    cell = np.array(inputs.group)[:, None] * shape[1] + kind
    counts = np.bincount(cell.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    squared = np.bincount(cell.ravel(), (W**2).ravel(), shape[0] * shape[1]).reshape(shape)
    total = np.bincount(cell.ravel(), W.ravel(), shape[0] * shape[1]).reshape(shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares, means = squared / squared.sum(), total / counts
    return BlockEnergy(inputs.group_names, columns, np.sqrt(squared), shares, means, counts, fingerprint)


def answer_kinds(
    task: FactRecallTask, inputs: TokenSet, outputs: TokenSet
) -> Int[np.ndarray, "input output"]:
    """Index into ANSWER_KINDS of every entry of a circuit of the task."""
    answer = np.array(outputs.ids) - task.n_inputs
    kind_of_column = np.select([answer < 0, answer < task.n_facts], [4, 1], 3)
    kind = np.tile(kind_of_column, (len(inputs), 1))
    for row, token in enumerate(inputs.ids):
        if token < task.n_subjects:
            fact, *implications = task.right_answer[:, token]
            kind[row, answer == fact] = 0
            kind[row, np.isin(answer, implications)] = 2
    return kind
