"""ocr-interp solve: the max-margin solution of a task."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ocr_interp.cli.arguments.fact_file import task_of_file, told_rule
from ocr_interp.cli.arguments.files import check_output, say, write_output
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.norms import norms

_NORM_HELP = (
    f"one of {', '.join(norms.names)}. nuclear: OV-SVM, the smallest norm that a factorized model can have; "
    "frobenius: W-SVM, the same for a non-factorized model; the others are for comparison"
)


_MOST_FACTS = 20
"""Rows of facts that are shown for a task with unequal groups."""


@dataclass(frozen=True)
class Solve:
    """Solve the max-margin problem of a task (OV-SVM or W-SVM) and certify the solution.

    The task is given by its sizes, or by a file of facts with one row per subject and the columns subject,
    fact, implication and told (yes or no); without told a row with an implication is told. Then every
    subject's margins are shown: which untold implications will be deduced.
    """

    facts: Annotated[Path | None, tyro.conf.Positional] = None
    """a .csv, .tsv or .json file of facts; it replaces --n-pairs, --m-train and --m-test"""
    task: FactRecallTask = field(default_factory=FactRecallTask)
    norm: Annotated[str, tyro.conf.arg(help=_NORM_HELP)] = "nuclear"
    tolerance: float = 1e-4
    """certified relative gap to reach"""
    margin_tolerance: float = 0.01
    """error of held-out margins to reach, in logits, once the gap is reached"""
    outputs: Literal["answers", "vocabulary"] = "answers"
    """wrong outputs in the margin constraints: all other answers, or all other tokens of the vocabulary"""
    inputs: Literal["subject_relation", "eos", "noise_eos"] = "subject_relation"
    """tokens of an example: subject and relation alone, with EOS, or with mean noise and EOS"""
    method: Literal["auto", "closed_form", "first_order", "clarabel", "scs"] = "auto"
    """auto uses the closed form if the task and norm have one"""
    table: Path | None = None
    """a .csv file for the table of subjects, with all digits"""

    def run(self) -> None:
        check_output(self.table, (".csv",))
        task = self.task if self.facts is None else task_of_file(self.facts, self.task)
        from ocr_interp.theory.solve import solve
        from ocr_interp.viz.text.subjects import describe_subjects

        solved = solve(
            task,
            self.norm,
            self.tolerance,
            outputs=self.outputs,
            inputs=self.inputs,
            method=self.method,
            margin_tolerance=self.margin_tolerance,
        )
        if self.facts is None and task.balanced_sizes is None:
            say("\n".join(_groups(task)))
        say(solved.summary())
        if self.facts is not None:
            say(told_rule(self.facts, task))
        if beside := self._saddle(task):
            say(beside)
        if self.facts is None and self.table is None:
            return
        found = solved.table()
        if self.facts is not None:
            say(f"\n{describe_subjects(found)}")
        if self.table is not None:
            write_output(self.table, found.to_csv(index=False).encode())
            say(f"\nall subjects: {self.table}")

    def _saddle(self, task: FactRecallTask) -> str:
        """Where descent goes instead of a nuclear-norm solution; empty if there is no other point."""
        from ocr_interp.theory.saddle import has_saddle, saddle_solution

        if not has_saddle(task, self.norm):
            return ""
        saddle = saddle_solution(task, inputs=self.inputs)
        return (
            f"gradient descent from a small start goes to a saddle instead: beta {saddle.beta:.8g}, rank "
            f"{saddle.rank}, nuclear norm {saddle.objective:.8g} (docs/theory.md, section 10)"
        )


def _groups(task: FactRecallTask) -> list[str]:
    """One row per fact of a task with unequal groups: its implication and who is asked about it."""
    if not task.same_told:
        return [f"{task.implied_relations} implications of a fact, each told to subjects of its own", ""]
    lines = [f"{'fact':6}{'implies':9}{'training subjects':34}held-out subjects"]
    for fact in range(min(task.n_facts, _MOST_FACTS)):
        members = [s for s in range(task.n_subjects) if task.subject_fact[s] == fact]
        told, untold = (
            [task.labels[s] for s in members if bool(task.subject_trained[s]) is trained]
            for trained in (True, False)
        )
        implication = ", ".join(task.labels[task.n_inputs + a] for a in task.answer_of_fact[1:, fact])
        lines.append(f"b{fact:<5}{implication:9}{_few(told):34}{_few(untold)}")
    if task.n_facts > _MOST_FACTS:
        lines.append(f"... {task.n_facts - _MOST_FACTS} more facts")
    return [*lines, ""]


def _few(labels: list[str]) -> str:
    shown = ", ".join(labels[:5]) + (f", ... ({len(labels)} in all)" if len(labels) > 5 else "")
    return shown or "none"
