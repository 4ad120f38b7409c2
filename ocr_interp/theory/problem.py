"""The max-margin problem of a fact-recall task as data: examples, correct outputs, margins.

minimise ‖W‖ over W [input, output] subject to (x W)[correct] − (x W)[wrong] >= 1 for every training
example x and every wrong output. Noise-free and with frozen uniform attention x = e_s + e_r.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from ocr_interp.checks import check_choice
from ocr_interp.errors import SolverError, WeightsError
from ocr_interp.task import FACT, FactRecallTask, Triples
from ocr_interp.theory.norms import Norm, as_norm

OUTPUTS = ("answers", "vocabulary")
"""Columns of W and the wrong outputs of a constraint: the answers alone, or every token (task.labels)."""

INPUTS = ("subject_relation", "eos", "noise_eos")
"""What an example x holds: e_s + e_r; also e_EOS; also the expected noise counts.

"noise_eos" adds (seq_len − 3) / n_noise to every noise token. Asking for the margins of *every* noise
multiset instead gives the same optimal norm: the mean lies in the hull of the multisets, and averaging
a solution over the exchangeable noise tokens makes its margins the same for all of them.
"""


@dataclass(frozen=True)
class MaxMarginProblem:
    """The constraints of a task; made by `max_margin_problem`.

    Attributes:
        task: the task.
        outputs: one of OUTPUTS.
        inputs: one of INPUTS.
        x: sparse [example, input], the training examples in the order of task.training_triples.
        correct: column of every example's correct output.
        x_held_out: sparse [example, input], the held-out implications.
        correct_held_out: column of their correct output.
        column_relation: the relation whose answers every column belongs to; −1 for tokens that are none.
    """

    task: FactRecallTask
    outputs: str
    inputs: str
    x: Any
    correct: Int[np.ndarray, " example"]
    x_held_out: Any
    correct_held_out: Int[np.ndarray, " held_out"]
    column_relation: Int[np.ndarray, " output"]

    @property
    def shape(self) -> tuple[int, int]:
        """(inputs, outputs): the shape of W."""
        return self.x.shape[1], len(self.column_relation)

    @property
    def is_implication(self) -> Bool[np.ndarray, " output"]:
        """Which columns are implication answers, of any relation."""
        return self.column_relation > FACT

    @cached_property
    def _x_transposed(self) -> Any:
        return self.x.T.tocsr()

    @cached_property
    def _example(self) -> Int[np.ndarray, " example"]:
        return np.arange(len(self.correct))

    def constraint_margins(self, W: Float[np.ndarray, "input output"]) -> Float[np.ndarray, "example output"]:
        """Logit of the correct output minus that of every output, in logits; +inf at the correct one."""
        logits = self.x @ W
        margins = logits[self._example, self.correct][:, None] - logits
        margins[self._example, self.correct] = np.inf
        return margins

    def held_out_margins(
        self, W: Float[np.ndarray, "input output"], among_implications: bool = True
    ) -> Float[np.ndarray, " held_out"]:
        """Smallest margin of every held-out implication, in logits.

        Args:
            W: the weights.
            among_implications: count only the other implications as wrong (the quantity of Theorem 2), those
                of the same relation if there are several, or every output. NaN where there is no wrong
                output.
        """
        logits = self.x_held_out @ W
        example = np.arange(len(self.correct_held_out))
        correct = logits[example, self.correct_held_out]
        logits[example, self.correct_held_out] = -np.inf
        if among_implications:
            asked = self.column_relation[self.correct_held_out]
            logits[asked[:, None] != self.column_relation] = -np.inf
        worst = np.max(logits, axis=1, initial=-np.inf)
        return np.where(np.isfinite(worst), correct - worst, np.nan)

    def dual_matrix(self, weights: Float[np.ndarray, "example output"]) -> Float[np.ndarray, "input output"]:
        """Σ μ_k A_k for weights μ that vanish at the correct outputs; h_k(W) = ⟨A_k, W⟩."""
        push = -weights
        push[self._example, self.correct] = weights.sum(axis=1)
        return self._x_transposed @ push

    def restrict(
        self, W: Float[np.ndarray, "row column"], *, may_be_zero: bool = False
    ) -> Float[np.ndarray, "input output"]:
        """W in this problem's rows and columns, float64.

        Args:
            W: rows are subjects and relations; or all inputs (then noise, EOS); or the whole vocabulary.
                Columns are the answers or the whole vocabulary. Rows and columns that the problem does
                not have are left out: they affect no margin, and dropping them does not raise the norm.
            may_be_zero: whether W may be zero throughout, as what is updated may.

        Raises:
            WeightsError: another shape, an entry that is not finite, or zero throughout.
        """
        if W.dtype.kind not in "fiu":
            raise WeightsError(f"W must have real numbers, got dtype {W.dtype}")
        task, (n_rows, n_columns) = self.task, self.shape
        row_counts = sorted({n_rows, task.n_inputs, task.d_vocab})
        column_counts = sorted({n_columns, task.d_vocab})
        if W.ndim != 2 or W.shape[0] not in row_counts or W.shape[1] not in column_counts:
            relations = ", ".join(task.labels[token] for token in task.relation_tokens)
            raise WeightsError(
                f"W must be [input, output] with {' or '.join(map(str, row_counts))} rows (subjects, "
                f"{relations}; all inputs; vocabulary) and {' or '.join(map(str, column_counts))} columns "
                f"(answers; vocabulary) for inputs={self.inputs!r}, outputs={self.outputs!r}, got {W.shape}: "
                "check for a transposed matrix, or pass other inputs= or outputs="
            )
        if not np.isfinite(W).all():
            raise WeightsError(f"W must be finite, got {int((~np.isfinite(W)).sum())} entries that are not")
        first = task.n_inputs if W.shape[1] != n_columns else 0
        kept = np.asarray(W[:n_rows, first : first + n_columns], dtype=np.float64)
        if not may_be_zero and not kept.any():
            raise WeightsError("W must have an entry that is not zero, got zero throughout: it has no margin")
        return kept

    def check_weights(self, weights: Float[np.ndarray, "row column"]) -> None:
        """Requires dual weights [example, output]: >= 0, finite, 0 at the correct outputs, not all 0."""
        shape = (len(self.correct), self.shape[1])
        if weights.shape != shape:
            raise WeightsError(
                f"dual weights must be [example, output] = {shape} (training triples only, in the order of "
                f"task.training_triples), got {weights.shape}"
            )
        if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
            raise WeightsError(
                "dual weights must be finite, >= 0 and not all 0: clip them with np.maximum(w, 0)"
            )
        if weights[self._example, self.correct].any():
            raise WeightsError("dual weights must be 0 at the correct outputs: there is no constraint there")


def as_matrix(W: Any) -> np.ndarray:
    """W as a numpy array; a tensor is refused, since it may have a graph or live on a GPU."""
    if hasattr(W, "detach"):
        raise WeightsError(
            "W must be a numpy array, got a tensor: pass W.detach().cpu().numpy(), and for one of our models "
            "run.effective_W, which has the attention in it"
        )
    return np.asarray(W)


def check_problem(norm: str | Norm, outputs: str, inputs: str) -> Norm:
    """The norm of a problem; requires names from the registry of norms, OUTPUTS and INPUTS."""
    found = as_norm(norm)
    _check_constraints(outputs, inputs)
    return found


def fitting_problem(task: FactRecallTask, norm: Norm, outputs: str, inputs: str) -> MaxMarginProblem:
    """`max_margin_problem`, for a norm that fits it.

    Raises:
        ConfigError: a norm that was made for rows or columns of another task.
    """
    problem = max_margin_problem(task, outputs, inputs)
    norm.check_fits(task, *problem.shape)
    return problem


def _check_constraints(outputs: str, inputs: str) -> None:
    check_choice("outputs", outputs, OUTPUTS)
    check_choice("inputs", inputs, INPUTS)


def constant_feature(task: FactRecallTask, inputs: str) -> Float[np.ndarray, " input"]:
    """What every example holds beside subject and relation, by input row."""
    first_noise = task.noise_tokens.start
    feature = np.zeros(first_noise if inputs == "subject_relation" else task.n_inputs)
    if inputs != "subject_relation":
        feature[task.eos_token] = 1.0
    if inputs == "noise_eos" and task.n_noise:
        feature[first_noise : task.eos_token] = (task.seq_len - 3) / task.n_noise
    return feature


def feature_length(task: FactRecallTask, inputs: str) -> float:
    """Euclidean length of `constant_feature`, without building a row per subject."""
    if inputs == "subject_relation":
        return 0.0
    noise = (task.seq_len - 3) ** 2 / task.n_noise if inputs == "noise_eos" and task.n_noise else 0.0
    return float(np.sqrt(1.0 + noise))


@lru_cache(maxsize=16)
def max_margin_problem(
    task: FactRecallTask, outputs: str = "answers", inputs: str = "subject_relation"
) -> MaxMarginProblem:
    """The max-margin problem of a task; cached, since training needs it at every logged step.

    Args:
        task: balanced or not.
        outputs: "answers" or "vocabulary", the columns of W.
        inputs: one of INPUTS. W has one row per subject and relation, and with "eos" or "noise_eos" every
            input token's row (the noise rows of "eos" are never used).

    Raises:
        ConfigError: an unknown name.
        SolverError: two examples with the same input and different answers.
    """
    _check_constraints(outputs, inputs)
    first = task.n_inputs if outputs == "vocabulary" else 0
    held_out = task.triples.of_split("held_out_implication")
    training = task.training_triples
    check_consistent(training)
    return MaxMarginProblem(
        task=task,
        outputs=outputs,
        inputs=inputs,
        x=_examples(task, training, inputs),
        correct=first + training.answer,
        x_held_out=_examples(task, held_out, inputs),
        correct_held_out=first + held_out.answer,
        column_relation=np.concatenate([np.full(first, -1), task.answer_relation]),
    )


def _examples(task: FactRecallTask, triples: Triples, inputs: str) -> Any:
    """Sparse [example, input]: subject, relation, and what every example holds."""
    feature = constant_feature(task, inputs)
    constant = np.flatnonzero(feature)
    example = np.arange(len(triples))
    rows = np.concatenate([example, example, np.repeat(example, len(constant))])
    columns = np.concatenate(
        [triples.subject, task.n_subjects + triples.relation, np.tile(constant, len(triples))]
    )
    values = np.concatenate([np.ones(2 * len(triples)), np.tile(feature[constant], len(triples))])
    return sp.csr_array((values, (rows, columns)), shape=(len(triples), len(feature)))


def check_consistent(triples: Triples) -> None:
    """Requires one answer per question: with two, no W has positive margins."""
    question = triples.subject * (triples.relation.max(initial=0) + 1) + triples.relation
    order = np.lexsort((triples.answer, question))
    same = question[order][1:] == question[order][:-1]
    clash = np.flatnonzero(same & (triples.answer[order][1:] != triples.answer[order][:-1]))
    if len(clash):
        subject = int(triples.subject[order][clash[0]])
        raise SolverError(f"infeasible: subject {subject} has two answers to one relation; give it one")
