"""ocr-interp solve: the max-margin solution of a task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

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
    """Solve the max-margin problem of a task (OV-SVM or W-SVM) and certify the solution."""

    task: FactRecallTask = field(default_factory=FactRecallTask)
    norm: Annotated[str, tyro.conf.arg(help=_NORM_HELP)] = "nuclear"
    tolerance: float = 1e-4
    """certified relative gap to reach"""
    outputs: Literal["answers", "vocabulary"] = "answers"
    """wrong outputs in the margin constraints: all other answers, or all other tokens of the vocabulary"""
    inputs: Literal["subject_relation", "eos", "noise_eos"] = "subject_relation"
    """tokens of an example: subject and relation alone, with EOS, or with mean noise and EOS"""
    method: Literal["auto", "closed_form", "first_order", "clarabel", "scs"] = "auto"
    """auto uses the closed form if the task and norm have one"""

    def run(self) -> None:
        from ocr_interp.theory.solve import solve

        solved = solve(
            self.task,
            self.norm,
            self.tolerance,
            outputs=self.outputs,
            inputs=self.inputs,
            method=self.method,
        )
        if self.task.balanced_sizes is None:
            print("\n".join(_groups(self.task)))
        print(solved.summary())
        if beside := self._saddle():
            print(beside)

    def _saddle(self) -> str:
        """Where descent goes instead of a nuclear-norm solution; empty if there is no other point."""
        from ocr_interp.theory.saddle import saddle_solution

        sizes = self.task.balanced_sizes
        if self.norm != "nuclear" or sizes is None or not 0 < sizes[1] < sizes[2]:
            return ""
        saddle = saddle_solution(self.task, inputs=self.inputs)
        return (
            f"gradient descent from a small start goes to a saddle instead: beta {saddle.beta:.8g}, rank "
            f"{saddle.rank}, nuclear norm {saddle.objective:.8g} (docs/theory.md, section 10)"
        )


def _groups(task: FactRecallTask) -> list[str]:
    """One row per fact of a task with unequal groups: its implication and who is asked about it."""
    lines = [f"{'fact':6}{'implies':9}{'training subjects':34}held-out subjects"]
    for fact in range(min(task.n_facts, _MOST_FACTS)):
        members = [s for s in range(task.n_subjects) if task.subject_fact[s] == fact]
        told, untold = (
            [task.labels[s] for s in members if bool(task.subject_trained[s]) is trained]
            for trained in (True, False)
        )
        implication = task.labels[task.n_inputs + task.n_facts + int(task.fact_implication[fact])]
        lines.append(f"b{fact:<5}{implication:9}{_few(told):34}{_few(untold)}")
    if task.n_facts > _MOST_FACTS:
        lines.append(f"... {task.n_facts - _MOST_FACTS} more facts")
    return [*lines, ""]


def _few(labels: list[str]) -> str:
    shown = ", ".join(labels[:5]) + (f", ... ({len(labels)} in all)" if len(labels) > 5 else "")
    return shown or "none"
