"""ocr-interp solve: what gradient descent converges to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from ocr_interp.task import FactRecallTask
from ocr_interp.theory.norms import norms

_NORM_HELP = (
    f"one of {', '.join(norms.names)}. nuclear: the factorized model's limit; frobenius: the non-factorized "
    "one's; the others: for comparison"
)


@dataclass(frozen=True)
class Solve:
    """Solve the max-margin problem of a task: what gradient descent converges to, with a certificate."""

    task: FactRecallTask = field(default_factory=FactRecallTask)
    norm: Annotated[str, tyro.conf.arg(help=_NORM_HELP)] = "nuclear"
    tolerance: float = 1e-4
    """certified relative gap to reach"""
    outputs: Literal["answers", "vocabulary"] = "answers"
    """the wrong outputs of the margin constraints"""
    inputs: Literal["subject_relation", "eos", "noise_eos"] = "subject_relation"
    """what an example holds"""
    method: Literal["auto", "closed_form", "first_order", "clarabel", "scs"] = "auto"
    """auto takes the closed form where it holds"""

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
        print(solved.summary())
