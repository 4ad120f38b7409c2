"""Which tokens stand behind the rows and columns of a W_OV, for parameterisations to which that matters."""

from __future__ import annotations

from dataclasses import dataclass

from ocr_interp.errors import ConfigError
from ocr_interp.task import FactRecallTask


@dataclass(frozen=True)
class TokenAxes:
    """Rows and columns of a W_OV in the order of a task's tokens.

    Attributes:
        task: the task.
        n_in: rows: the subjects and relations; or all inputs; or the whole vocabulary.
        n_out: columns: the answers, or the whole vocabulary.

    Raises:
        ConfigError: other numbers of rows or columns.
    """

    task: FactRecallTask
    n_in: int
    n_out: int

    def __post_init__(self) -> None:
        task = self.task
        rows, columns = (
            (task.relation_tokens[-1] + 1, task.n_inputs, task.d_vocab),
            (
                task.n_answers,
                task.d_vocab,
            ),
        )
        if self.n_in not in rows or self.n_out not in columns:
            raise ConfigError(
                f"W_OV must have {rows[0]} rows (subjects and relations), {rows[1]} (all inputs) or "
                f"{rows[2]} (the vocabulary) and {columns[0]} (answers) or {columns[1]} columns (the "
                f"vocabulary), got {self.n_in} and {self.n_out}"
            )

    @classmethod
    def of_vocabulary(cls, task: FactRecallTask) -> TokenAxes:
        """Every token as a row and as a column: the weights of a model."""
        return cls(task, task.d_vocab, task.d_vocab)

    @property
    def first_answer(self) -> int:
        """Column of the first answer; the answers are the last columns."""
        return self.n_out - self.task.n_answers
