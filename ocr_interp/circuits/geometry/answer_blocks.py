"""The parts of a fact-recall circuit that the theory names: relation, large and small pair patterns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from ocr_interp.circuits.matrix import OVMatrix
from ocr_interp.errors import ModelError
from ocr_interp.task import FactRecallTask

NEGLIGIBLE = 1e-3
"""Singular values below this share of the part's largest are in no part."""


@dataclass(frozen=True)
class AnswerBlock:
    """A subspace of the answers' logits.

    Attributes:
        name: "relation block", "large pair patterns" or "small pair patterns", with its dimension.
        values: singular values of W in it, largest first, in logits.
        basis: orthonormal columns.
    """

    name: str
    values: Float[np.ndarray, " direction"] = field(repr=False)
    basis: Float[np.ndarray, "answer direction"] = field(repr=False)


def answer_blocks(circuit: OVMatrix) -> tuple[AnswerBlock, ...]:
    """Relation block, large and small pair patterns of a balanced fact-recall circuit.

    The answers' logits split into what is the same for all facts and for all implications of a relation (two
    directions; the relation block is the one along which r1 and r2 differ, or the K along which r1 and the
    relations of K implications do) and pair patterns, which sum
    to 0 over facts and over implications. The right singular vectors of W within the patterns are taken
    largest first: n − 1 large ones and as many small ones. In a predicted solution, which is invariant under
    permuting pairs, these are its degenerate blocks, also where two of them have the same singular value; in
    a trained model they are the closest thing to it.

    Args:
        circuit: of a balanced task, with its relations and all answers, usually
            `run.circuit.subjects_and_relations`.

    Raises:
        ModelError: a circuit of another model, of unequal groups, or without all answers.
    """
    task = circuit.task
    if task is None or task.balanced_sizes is None:
        raise ModelError(
            "answer_blocks needs the circuit of a balanced fact-recall task: use circuit.spectrum(tolerance) "
            "and its blocks"
        )
    answers = task.labels[task.n_inputs :]
    if circuit.outputs.labels != answers:
        raise ModelError("answer_blocks needs all answers as outputs, in the order of the task")
    n, W = task.n_facts, circuit.W
    kinds = task.n_relations
    constant = np.kron(np.eye(kinds), np.ones((n, 1))) / np.sqrt(n)
    relations = W[circuit.inputs.positions(task.labels[task.n_subjects : task.noise_tokens.start])] @ constant
    found = []
    if kinds == 2:
        relation = constant @ (relations[0] - relations[1])
        length = np.linalg.norm(relation)
        basis = (relation / length)[:, None] if length > 0 else None
    else:
        _, s, Vt = np.linalg.svd(relations - relations.mean(axis=0))
        basis = constant @ Vt[: kinds - 1].T if s[0] > 0 else None
    if basis is not None:
        label = f"relation block ({basis.shape[1]})"
        found.append(AnswerBlock(label, np.sort(np.linalg.norm(W @ basis, axis=0))[::-1], basis))
    _, s, Vt = np.linalg.svd(W - W @ constant @ constant.T, full_matrices=False)
    kept = int((s > NEGLIGIBLE * s[0]).sum()) if s[0] > 0 else 0
    for name, start, stop in (("large", 0, min(n - 1, kept)), ("small", n - 1, kept)):
        if stop > start:
            label = f"{name} pair patterns ({stop - start})"
            found.append(AnswerBlock(label, s[start:stop], Vt[start:stop].T))
    return tuple(found)


def has_blocks(task: FactRecallTask | None) -> bool:
    """Whether `answer_blocks` is defined for a task."""
    return task is not None and task.balanced_sizes is not None
