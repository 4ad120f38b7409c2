"""The exact max-margin solution of a balanced task, factored: its cost is that of a few pairs.

W commutes with permuting the pairs, so it is fixed by two small matrices: a 2 × 2 pair block, which acts
on the (n − 1)-dimensional pair patterns that sum to zero, and a constant block. With K implications of a fact
the pair block has a column for each of them. docs/theory.md derives
both, and the dual weights that prove them optimal, from the missing entry of the pair block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float

from ocr_interp.errors import ConfigError
from ocr_interp.task import FACT, IMPLICATION, FactRecallTask
from ocr_interp.theory.geometry import (
    Cosines,
    SpectrumBlock,
    centred_patterns,
    predicted_cosines,
    symmetric_factor,
)
from ocr_interp.theory.norms import Norm, UnitarilyInvariantNorm, as_norm
from ocr_interp.theory.problem import check_problem, constant_feature, feature_length, max_margin_problem
from ocr_interp.theory.reduction.certificate import BlockSolution
from ocr_interp.theory.reduction.symmetry import Blocks, ReducedProblem

TRAINING, HELD_OUT = 0, 1
"""Row of the pair block: the subject's status. Its columns are FACT, IMPLICATION and further implications."""


@dataclass(frozen=True)
class ClosedForm:
    """The max-margin solution of a balanced task; made by `closed_form`.

    Attributes:
        task, norm, outputs, inputs: the problem it solves.
        sizes: (n, m_train, m_test).
        beta: coefficient of the held-out implication block; by convention 1 if m_test = 0 and 0 if
            m_train = 0 (`Solution.beta` is NaN there: no block is compared with another).
        objective: the minimal norm at margin 1. For Frobenius it is ‖W‖_F, as certificates bound it.
        pair_block: [status, answer kind], rows scaled by √(subjects of that status per pair); acts on
            each of the n − 1 pair patterns. Rows TRAINING, HELD_OUT; columns FACT, IMPLICATION, ... .
        constant_block: rows training subjects, held-out subjects, r1, r2, ..., constant feature; columns
            facts, implications of every relation, other tokens; each scaled by the root of its size.
    """

    task: FactRecallTask
    norm: UnitarilyInvariantNorm
    outputs: str
    inputs: str
    sizes: tuple[int, int, int]
    beta: float
    objective: float
    pair_block: Float[np.ndarray, "status kind"] = field(repr=False)
    constant_block: Float[np.ndarray, "group column_group"] = field(repr=False)

    @cached_property
    def spectrum(self) -> tuple[SpectrumBlock, ...]:
        """Non-zero singular values with multiplicities, largest first; equal ones are one block."""
        pair = np.linalg.svd(self.pair_block, compute_uv=False)
        constant = np.linalg.svd(self.constant_block, compute_uv=False)
        found = [(float(v), self.sizes[0] - 1, "pair") for v in pair]
        found += [(float(v), 1, "constant") for v in constant]
        found.sort(key=lambda block: -block[0])
        blocks: list[SpectrumBlock] = []
        for value, count, kind in found:
            if value <= 1e-7 * found[0][0]:  # √ε: exact zeros of W come out of LAPACK at about ε
                continue
            if blocks and value >= blocks[-1].value * (1 - 1e-12):
                last = blocks.pop()
                kind = last.kind if last.kind == kind else f"{last.kind} and {kind}"
                value, count = last.value, last.multiplicity + count
            blocks.append(SpectrumBlock(value, count, kind))
        return tuple(blocks)

    @property
    def held_out_margin(self) -> float:
        """Held-out implication against another implication: β; NaN if nothing is held out."""
        return self.beta if self.sizes[2] else float("nan")

    @property
    def held_out_margin_own_fact(self) -> float:
        """Held-out implication against the subject's own fact; NaN if nothing is held out."""
        n, _, m_test = self.sizes
        if not m_test:
            return float("nan")
        aligned = (self.pair_block[HELD_OUT, : IMPLICATION + 1] / np.sqrt(m_test)) @ [-1.0, 1.0]
        shared = self._constant_logits(HELD_OUT, IMPLICATION)[: IMPLICATION + 1]
        return float(aligned * (1 - 1 / n) + shared @ [-1.0, 1.0])

    @property
    def held_out_margin_overall(self) -> float:
        """Held-out implication against every output; NaN if nothing is held out."""
        n, _, m_test = self.sizes
        if not m_test:
            return float("nan")
        pair = self.pair_block[HELD_OUT] / np.sqrt(m_test)
        *shared, to_token = self._constant_logits(HELD_OUT, IMPLICATION)
        correct = pair[IMPLICATION] * (1 - 1 / n) + shared[IMPLICATION]
        against = [
            self.held_out_margin,
            self.held_out_margin_own_fact,
            correct + pair[FACT] / n - shared[FACT],
        ]
        for kind in range(IMPLICATION + 1, len(pair)):  # other implications, the own one and those of others
            against += [correct - x - shared[kind] for x in (pair[kind] * (1 - 1 / n), -pair[kind] / n)]
        return float(min(against + ([correct - to_token] if self.outputs == "vocabulary" else [])))

    def _constant_values(self) -> Float[np.ndarray, "group column_group"]:
        """Entries of W in the constant block, without the scaling; rows of absent groups are 0."""
        rows, columns = _group_sizes(self.task, self.sizes, self.outputs)
        scale = np.sqrt(np.outer(rows, columns))
        return np.divide(self.constant_block, scale, out=np.zeros(scale.shape), where=scale > 0)

    def _constant_logits(self, status: int, relation: int) -> Float[np.ndarray, " column_group"]:
        values = self._constant_values()
        feature = feature_length(self.task, self.inputs)
        return values[status] + values[2 + relation] + feature * values[-1]

    @cached_property
    def cosines(self) -> Cosines:
        """Predicted cosines between subjects, relations and answers; see `Cosines`.

        Raises:
            ConfigError: several implications of a fact.
        """
        if self.task.implied_relations > 1:
            raise ConfigError(
                f"predicted cosines are for one implication of a fact, got implied_relations="
                f"{self.task.implied_relations}: take them from input_embeddings() and output_embeddings()"
            )
        return predicted_cosines(self.sizes, self.pair_block, self.constant_block)

    @cached_property
    def W(self) -> Float[np.ndarray, "input output"]:
        """The solution as a matrix in the task's own order; unused rows and columns are zero."""
        task, (n, m_train, m_test) = self.task, self.sizes
        problem = max_margin_problem(task, self.outputs, self.inputs)
        W = np.zeros(problem.shape)
        first = task.n_inputs if self.outputs == "vocabulary" else 0
        kind_of_column = np.r_[np.full(first, task.n_relations), task.answer_relation]
        status = np.where(task.subject_trained, TRAINING, HELD_OUT)
        constant = self._constant_values()
        rows = np.concatenate([status, 2 + np.arange(task.n_relations)])
        W[: len(rows)] = constant[np.ix_(rows, kind_of_column)]
        feature = constant_feature(task, self.inputs)
        if feature.any():
            W += np.outer(feature / np.linalg.norm(feature), constant[-1][kind_of_column])
        coefficient = self.pair_block[status] / np.sqrt(np.array([m_train, m_test]))[status][:, None]
        subject = np.arange(task.n_subjects)
        for kind, own in enumerate(task.right_answer):
            columns = slice(first + kind * n, first + (kind + 1) * n)
            W[: task.n_subjects, columns] -= coefficient[:, kind, None] / n
            W[subject, first + own] += coefficient[:, kind]
        return W

    def as_blocks(
        self, reduced: ReducedProblem, weights: Float[np.ndarray, "example value"]
    ) -> BlockSolution:
        """The solution in the blocks of the reduced problem, without absent groups, with dual weights."""
        _, m_train, m_test = self.sizes
        status = [s for s, size in enumerate((m_train, m_test)) if size]
        rows = [*status, *range(2, 2 + self.task.n_relations), *([-1] if reduced.feature else [])]
        constant = self.constant_block[rows][:, : reduced.constant_shape[1]]
        blocks = Blocks(constant.copy(), self.pair_block[status][None].copy())
        return BlockSolution(reduced, self.norm, blocks, weights)

    def input_embeddings(self) -> Float[np.ndarray, "input component"]:
        """U Σ^½ of W = U Σ Vᵀ for the rows of W, up to one rotation of the components."""
        task, (n, m_train, m_test) = self.task, self.sizes
        status = np.where(task.subject_trained, TRAINING, HELD_OUT)
        factor = symmetric_factor(self.pair_block, left=True)[status]
        factor = factor / np.sqrt(np.array([m_train, m_test]))[status][:, None]
        pair = np.einsum("sk,sp->skp", factor, centred_patterns(n)[task.subject_fact]).reshape(
            len(status), -1
        )
        constant = symmetric_factor(self.constant_block, left=True)
        sizes = _group_sizes(task, self.sizes, self.outputs)[0]
        group = np.concatenate([status, 2 + np.arange(task.n_relations)])
        shared = constant[group] / np.sqrt(sizes[group])[:, None]
        feature = constant_feature(task, self.inputs)
        rows = np.zeros((len(feature), pair.shape[1] + shared.shape[1]))
        rows[: len(pair), : pair.shape[1]] = pair
        rows[: len(shared), pair.shape[1] :] = shared
        if feature.any():
            rows[:, pair.shape[1] :] += np.outer(feature / np.linalg.norm(feature), constant[-1])
        return rows

    def output_embeddings(self) -> Float[np.ndarray, "output component"]:
        """V Σ^½ for the columns of W, in the same components; input @ output.T is W."""
        task, n = self.task, self.sizes[0]
        # A pair is named by its fact; implications are columns of the same pair patterns.
        of_pair = np.argsort(task.answer_of_fact, axis=1).flatten()
        kind = task.answer_relation
        patterns = centred_patterns(n)[of_pair]
        pair = np.einsum("ok,op->okp", symmetric_factor(self.pair_block, left=False)[kind], patterns)
        pair = pair.reshape(len(kind), -1)
        others = task.n_inputs if self.outputs == "vocabulary" else 0
        group = np.concatenate([np.full(others, task.n_relations), kind])
        sizes = _group_sizes(task, self.sizes, self.outputs)[1]
        shared = symmetric_factor(self.constant_block, left=False)[group] / np.sqrt(sizes[group])[:, None]
        return np.hstack([np.vstack([np.zeros((others, pair.shape[1])), pair]), shared])


def has_closed_form(task: FactRecallTask, norm: str | Norm) -> bool:
    """Whether the task is balanced and the norm defines its held-out coefficient, or its whole solution."""
    found, sizes = as_norm(norm), task.balanced_sizes
    if not found.unitarily_invariant:
        return found.has_closed_solution(task)
    if sizes is None:
        return False
    return _held_out_coefficient(found, task) is not None


def closed_form(
    task: FactRecallTask,
    norm: str | Norm = "nuclear",
    outputs: str = "answers",
    inputs: str = "subject_relation",
) -> ClosedForm:
    """The exact max-margin solution of a balanced task, in closed form.

    Args:
        task: balanced (task.balanced_sizes is not None), in any order of its subjects.
        norm: one that defines a held-out coefficient.
        outputs, inputs: see problem.OUTPUTS and problem.INPUTS. They change the solution only if
            m_train = 0.

    Raises:
        UnknownNameError: an unknown norm.
        ConfigError: a task that is not balanced, or a norm without a closed form.

    Source: docs/theory.md; the nuclear and Frobenius forms are Theorem 2 of arXiv 2506.10887 made exact.
    """
    found = check_problem(norm, outputs, inputs)
    sizes = task.balanced_sizes
    if sizes is None:
        raise ConfigError(
            "method='closed_form' needs a balanced task (one-to-one pairs with equal m_train and m_test, the "
            "same subjects told every implication), got an unbalanced one: use method='auto'"
        )
    n, m_train, m_test = sizes
    beta = _held_out_coefficient(found, task)
    if beta is None or not isinstance(found, UnitarilyInvariantNorm):
        raise ConfigError(
            f"method='closed_form' needs a norm with a closed form, got {found.name!r}: use method='auto'"
        )
    implication = 1.0 if m_train else 0.0
    implied = task.implied_relations
    coefficients = np.array([[1.0, *[implication] * implied], [1.0, *[beta] * implied]])
    pair_block = coefficients * np.sqrt([[m_train], [m_test]])
    constant_block = _constant_block(task, sizes, outputs, inputs)
    values = np.concatenate(
        [np.linalg.svd(pair_block, compute_uv=False), np.linalg.svd(constant_block, compute_uv=False)]
    )
    count = np.r_[np.full(2, n - 1.0), np.ones(len(values) - 2)]
    return ClosedForm(
        task=task,
        norm=found,
        outputs=outputs,
        inputs=inputs,
        sizes=sizes,
        beta=beta,
        objective=found.of_spectrum(values, count),
        pair_block=pair_block,
        constant_block=constant_block,
    )


def _held_out_coefficient(norm: Norm, task: FactRecallTask) -> float | None:
    """β of the norm's closed form; 0 without training implications, 1 without held-out subjects."""
    assert task.balanced_sizes is not None
    _, m_train, m_test = task.balanced_sizes
    found = norm.held_out_coefficient(max(m_train, 1), max(m_test, 1), task.implied_relations)
    if found is None or (m_train and m_test):
        return found
    return 0.0 if m_train == 0 else 1.0


def _group_sizes(
    task: FactRecallTask, sizes: tuple[int, int, int], outputs: str
) -> tuple[Float[np.ndarray, " group"], Float[np.ndarray, " column_group"]]:
    """Rows and columns that each entry of the constant block stands for; the feature is one direction."""
    n, m_train, m_test = sizes
    rows = np.array([n * m_train, n * m_test, *[1.0] * task.n_relations, 1.0])
    others = task.n_inputs if outputs == "vocabulary" else 0
    return rows, np.array([*[n] * task.n_relations, others], dtype=np.float64)


def _constant_block(
    task: FactRecallTask, sizes: tuple[int, int, int], outputs: str, inputs: str
) -> Float[np.ndarray, "group column_group"]:
    """The relation directions, and without training implications what keeps facts above implications."""
    n, m_train, m_test = sizes
    kinds = task.n_relations
    block = np.zeros((3 + kinds, kinds + 1))
    if m_train:
        # Each relation raises its own kind of answers over the others, with rows that sum to 0.
        block[2 : 2 + kinds, :kinds] = np.sqrt(n) * (np.eye(kinds) - 1 / kinds)
        return block
    feature = feature_length(task, inputs)
    # The missing 1/n of margin is spread over all that the examples share, by least squares.
    carriers = np.array([0.0, 1 / np.sqrt(n * m_test), 1.0, *[0.0] * task.implied_relations, feature])
    tokens = task.n_inputs if outputs == "vocabulary" else 0
    others = task.n_implications + tokens
    lower = [-n] * task.implied_relations
    step = np.array([others, *lower, -n if tokens else 0.0]) / (n + others)
    column_scale = np.sqrt([*[n] * kinds, tokens])
    return np.outer(carriers / (n * (carriers @ carriers)), step * column_scale)
