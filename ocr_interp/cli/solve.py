"""ocr-interp solve: the max-margin solution of a task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from ocr_interp.cli.files import say
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.norms import norms

_NORM_HELP = (
    f"one of {', '.join(norms.names)}. nuclear: OV-SVM, for the factorized model; frobenius: W-SVM, for the "
    "non-factorized model; the others are for comparison"
)


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
        say(solved.summary())
