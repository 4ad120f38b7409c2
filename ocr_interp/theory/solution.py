"""A max-margin solution, however it was found: one class for the closed form and for the solvers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ocr_interp.errors import SolverError
from ocr_interp.storage.notebooks import ShownAsTable
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.certificate import Certificate, held_out_beta
from ocr_interp.theory.closed.closed_form import ClosedForm
from ocr_interp.theory.closed.dual import balanced_reduced_weights
from ocr_interp.theory.geometry import Cosines, SpectrumBlock, symmetric_factor
from ocr_interp.theory.problem import MaxMarginProblem, max_margin_problem
from ocr_interp.theory.reduction.bounds import EXACT, UNKNOWN, Accuracy
from ocr_interp.theory.reduction.certificate import BlockSolution
from ocr_interp.theory.reduction.symmetry import reduce_problem
from ocr_interp.theory.solver.cvxpy_program import solve_reduced_cvxpy
from ocr_interp.theory.solver.full import FullSolution
from ocr_interp.theory.subject_table import subject_logits, subject_table

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 12
"""Largest number of blocks of singular values in a summary."""


@dataclass(frozen=True)
class Solution(ShownAsTable):
    """The max-margin solution of a task; made by `solve`.

    Expensive parts (W, weights, certificate, embeddings) are computed on first use, so the closed form of a
    balanced task of a million pairs is immediate.

    Attributes:
        task: the task, balanced or not.
        norm: name of the norm that is minimised.
        outputs, inputs: the problem; see problem.OUTPUTS and problem.INPUTS.
        objective: norm of W, whose smallest training margin is 1 (Frobenius: ‖W‖_F, not its square; that is
            `squared_norm`). Exact for the closed form, else at most 1 + gap times the optimum.
        method: the method that found it: one of METHODS except "auto".
        seconds: wall-clock time of the method.
        iterations: steps of the splitting method; 0 for the others.
        tolerance: relative gap that the certificate must reach.
        found: the result of the method itself.
    """

    task: FactRecallTask
    norm: str
    outputs: str
    inputs: str
    objective: float
    method: str
    seconds: float
    iterations: int
    tolerance: float
    found: ClosedForm | BlockSolution | FullSolution = field(repr=False)

    # --- the matrix and what proves it -----------------------------------------------------------

    @property
    def W(self) -> Float[np.ndarray, "input output"]:
        """The solution at full size, in the task's order; unused rows and columns are zero."""
        return self.found.W

    @property
    def weights(self) -> Float[np.ndarray, "example output"]:
        """Dual weights that prove it optimal, for `certify(..., weights=)`; as in task.training_triples."""
        return self._proof.weights

    @property
    def certificate(self) -> Certificate:
        """Bounds and margins, computed afresh from the solution and its dual weights.

        Raises:
            SolverError: the gap is above the tolerance. `solve` has checked it where a solver found the
                solution; the closed form is checked when the certificate is first asked for.
        """
        certificate = self._proof.certificate
        if not certificate.gap <= self.tolerance:
            raise SolverError(
                f"gap {certificate.gap:.3g} is above the tolerance {self.tolerance:.3g} after "
                f"{self.seconds:.1f} s of {self.method} ({certificate.dual:.8g} <= optimum <= "
                f"{certificate.primal:.8g}): raise tolerance or max_seconds, or try another method"
            )
        return certificate

    @cached_property
    def _proof(self) -> BlockSolution | FullSolution:
        if not isinstance(self.found, ClosedForm):
            return self.found
        reduced = reduce_problem(self.task, self.outputs, self.inputs)
        weights = balanced_reduced_weights(reduced, self.found.norm)
        if weights is None:  # a norm may bring its coefficient without weights that prove it
            weights = solve_reduced_cvxpy(reduced, self.found.norm).weights
        return self.found.as_blocks(reduced, weights)

    @property
    def squared_norm(self) -> float:
        """objective², the form in which the Frobenius problem is often stated."""
        return self.objective**2

    @property
    def is_unique(self) -> bool | None:
        """Whether no other W attains the norm (with the symmetries of the task); None if it is not known.

        Several facts with groups of different sizes often have several nuclear minimisers: see `accuracy`.
        The spectral norm has many minimisers; the closed form is the one with every training coefficient 1
        and the smallest pair block.
        """
        return self.found.norm.is_unique if isinstance(self.found, ClosedForm) else self.accuracy.unique

    # --- error bars ------------------------------------------------------------------------------

    @property
    def accuracy(self) -> Accuracy:
        """How far held-out margins and singular values may be from the optimum's; 0 for the closed form.

        Proved for small problems: everything of smallest norm, up to the gap, is within. If a small problem
        has several minimisers (`is_unique` is False) it is how far their numbers are apart. Estimated for
        larger problems, from how the numbers moved while the gap fell; NaN if nothing is known.
        """
        if isinstance(self.found, ClosedForm):
            return EXACT
        return self.found.accuracy if isinstance(self.found, BlockSolution) else UNKNOWN

    @property
    def margin_error(self) -> float:
        """Largest error of a held-out margin, in logits; see `accuracy`."""
        return self.accuracy.margin

    # --- spectrum --------------------------------------------------------------------------------

    @property
    def spectrum(self) -> tuple[SpectrumBlock, ...]:
        """Non-zero singular values with multiplicities, largest first.

        Values that may be 0 are left out: below 1e-7 of the largest in the closed form, else up to
        `accuracy.value` or the root of the gap, but at least 1e-6 of the largest. In the closed form equal
        values are one block.
        """
        return self.found.spectrum

    @property
    def rank(self) -> int:
        """Number of singular values above their error: no smaller d_head can reach W."""
        return sum(block.multiplicity for block in self.spectrum)

    # --- margins ---------------------------------------------------------------------------------

    @property
    def beta(self) -> float:
        """Coefficient of the held-out implication block relative to the training one.

        The closed form's own; else measured on W by `held_out_beta`, projection. NaN without training or
        without held-out implications, as in `held_out_beta` and in a run's history.
        """
        if isinstance(self.found, ClosedForm):
            _, m_train, m_test = self.found.sizes
            return self.found.beta if m_train and m_test else float("nan")
        return held_out_beta(self.W, self.task).projection

    @property
    def training_margin(self) -> float:
        """Smallest training margin, in logits: 1 by the problem's scaling."""
        return 1.0

    @property
    def held_out_margin(self) -> float:
        """Smallest margin of held-out implications against other implications; NaN if nothing is held out.

        β for the closed form.
        """
        if isinstance(self.found, ClosedForm):
            return self.found.held_out_margin
        return _smallest(self.certificate.held_out_margins)

    @property
    def held_out_margin_own_fact(self) -> float:
        """Smallest margin of held-out implications against the subject's own fact; NaN likewise."""
        if isinstance(self.found, ClosedForm):
            return self.found.held_out_margin_own_fact
        problem, held_out = self._problem, self.task.triples.of_split("held_out_implication")
        logits, example = problem.x_held_out @ self.W, np.arange(len(held_out))
        own_fact = problem.shape[1] - self.task.n_answers + self.task.subject_fact[held_out.subject]
        return _smallest(logits[example, problem.correct_held_out] - logits[example, own_fact])

    @property
    def held_out_margin_overall(self) -> float:
        """Smallest margin of held-out implications against every output; NaN likewise."""
        if isinstance(self.found, ClosedForm):
            return self.found.held_out_margin_overall
        return _smallest(self.certificate.held_out_margins_overall)

    @property
    def _problem(self) -> MaxMarginProblem:
        return max_margin_problem(self.task, self.outputs, self.inputs)

    def table(self) -> pd.DataFrame:
        """One row per subject: told or not, margins in logits with their range, rank.

        Columns as in `subject_table.TABLE_COLUMNS` and `RANGE_COLUMNS`. Logits closer than `margin_error` are
        a tie, unless that is not known.
        """
        error = 0.0 if np.isnan(self.margin_error) else self.margin_error
        logits = subject_logits(self.task, self.W, self.inputs)
        return subject_table(self.task, logits, error=error, ranges=self._ranges)

    @property
    def _ranges(self) -> Float[np.ndarray, "untold end"]:
        """Smallest and largest margin of every untold implication among implications; NaN if not known."""
        found, untold = self.found, self.task.triples.of_split("held_out_implication")
        if isinstance(found, ClosedForm):
            return np.full((len(untold), 2), self.held_out_margin)
        if isinstance(found, FullSolution) or found.accuracy.ranges is None:
            return np.full((len(untold), 2), np.nan)
        return found.accuracy.ranges[found.reduced.example_of(untold, held_out=True)]

    # --- geometry --------------------------------------------------------------------------------

    def input_embeddings(self) -> Float[np.ndarray, "input component"]:
        """U Σ^½ of W = U Σ Vᵀ for the rows of W, up to one rotation of the components.

        Rows are the subjects, r1 and r2, and with inputs="eos" or "noise_eos" noise and EOS.
        """
        if isinstance(self.found, ClosedForm):
            return self.found.input_embeddings()
        return symmetric_factor(self.W, left=True)

    def output_embeddings(self) -> Float[np.ndarray, "output component"]:
        """V Σ^½ for the columns of W, in the same components; input @ output.T is W.

        Columns are the answers, and with outputs="vocabulary" the input tokens before them.
        """
        if isinstance(self.found, ClosedForm):
            return self.found.output_embeddings()
        return symmetric_factor(self.W, left=False)

    @property
    def sizes(self) -> tuple[int, int, int] | None:
        """(n, m_train, m_test) of a balanced task; None for another."""
        return self.task.balanced_sizes

    @property
    def pair_block(self) -> Float[np.ndarray, "status kind"]:
        """The closed form's pair block; see `ClosedForm`.

        Raises:
            SolverError: another method found the solution.
        """
        return self._closed("pair_block").pair_block

    @property
    def constant_block(self) -> Float[np.ndarray, "group column_group"]:
        """The closed form's constant block; see `ClosedForm`.

        Raises:
            SolverError: another method found the solution.
        """
        return self._closed("constant_block").constant_block

    @property
    def cosines(self) -> Cosines:
        """Predicted cosines between subjects, relations and answers of a balanced task; see `Cosines`.

        Raises:
            SolverError: another method than the closed form found the solution.
        """
        return self._closed("cosines").cosines

    def _closed(self, asked: str) -> ClosedForm:
        if isinstance(self.found, ClosedForm):
            return self.found
        raise SolverError(
            f"{asked} belongs to the closed form, and this solution was found by {self.method}: use W, "
            "spectrum, input_embeddings() and output_embeddings(), or solve a balanced task in closed form"
        )

    # --- text ------------------------------------------------------------------------------------

    def summary(self) -> str:
        """Readable text: objective, spectrum by block, margins, certificate."""
        task, shown = self.task, self.spectrum[:_SHOWN]
        squared = f"   squared {self.squared_norm:.8g}" if self.found.norm.stated_squared else ""
        lines = [
            f"{self.norm} max-margin solution: {task.n_facts} facts, {task.n_implications} implications, "
            f"{task.n_subjects} subjects ({int(task.told[1:].any(axis=0).sum())} in training)",
            f"  problem           outputs {self.outputs}, inputs {self.inputs}",
            f"  objective         {self.objective:.8g}{squared}",
            f"  method            {self.method}, {self.seconds:.2f} s"
            + (f", {self.iterations} iterations" if self.iterations else ""),
            f"  rank              {self.rank}",
        ]
        lines += [f"  singular value    {b.value:.6g} x {b.multiplicity} ({b.kind})" for b in shown]
        if len(self.spectrum) > len(shown):
            lines.append(f"  singular value    ... {len(self.spectrum) - len(shown)} more blocks")
        if not isinstance(self.found, ClosedForm):
            lines.append(f"  error bars        {_error_bars(self.accuracy)}")
        lines.append(f"  certificate       {self.certificate.summary()}")
        if isinstance(self.found, ClosedForm):
            lines.append(f"closed form of the balanced task: objective {self.objective:.10g}")
            if np.isnan(self.beta):
                lines.append("  beta              undefined: it compares untold implications with told ones")
            else:
                lines.append(
                    f"  beta {self.beta:.10g}, held-out margin {self.held_out_margin:.8g} against "
                    f"other implications, {self.held_out_margin_own_fact:.8g} against the own fact"
                )
        return "\n".join(lines)


def _error_bars(accuracy: Accuracy) -> str:
    if np.isnan(accuracy.margin):
        return "not known"
    bars = f"held-out margins ±{accuracy.margin:.1g}, singular values ±{accuracy.value:.1g}"
    if accuracy.unique is False:
        return f"{bars}: other matrices of the same norm differ by that much"
    return f"{bars} ({'proved' if accuracy.proved else 'estimated'})"


def _smallest(margins: Float[np.ndarray, " held_out"]) -> float:
    return float(margins.min()) if len(margins) else float("nan")
