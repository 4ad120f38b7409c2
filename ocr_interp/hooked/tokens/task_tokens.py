"""Which tokens of a fact-recall task go in and come out, grouped by what they stand for."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from ocr_interp.errors import ModelError, unknown_name
from ocr_interp.hooked.tokens.token_set import TokenSet
from ocr_interp.task import FactRecallTask

INPUT_KINDS = ("training subjects", "held-out subjects", "r1", "r2", "noise", "EOS")
"""Kinds of input tokens of a fact-recall task, in the order of tables; see `input_kind_names`."""

OUTPUT_KINDS = ("facts", "implications", "rest")
"""Kinds of output tokens; "rest" are the input tokens of a whole vocabulary."""


def input_kind_names(task: FactRecallTask) -> tuple[str, ...]:
    """INPUT_KINDS, with r3 and on after r2 if a fact has several implications."""
    relations = [task.labels[token] for token in task.relation_tokens]
    return (*INPUT_KINDS[:2], *relations, *INPUT_KINDS[-2:])


def input_kinds(task: FactRecallTask) -> Int[np.ndarray, " input"]:
    """Index into `input_kind_names` of every input token of a task."""
    status = np.where(task.subject_trained, 0, 1)
    relations = 2 + np.arange(task.n_relations)
    noise = 2 + task.n_relations
    return np.concatenate([status, relations, np.full(task.n_noise, noise), [noise + 1]])


def check_prompt_length(task: FactRecallTask, length: int) -> None:
    """Requires a prompt that a model of the task can be run on; its context is seq_len.

    Raises:
        ModelError: more tokens.
    """
    if length > task.seq_len:
        raise ModelError(
            f"prompt must have at most {task.seq_len:,} tokens, the model's context (seq_len of its task), "
            f"got {length:,}: shorten it"
        )


def task_inputs(task: FactRecallTask) -> TokenSet:
    """All input tokens of a task: subjects, relations, noise, EOS."""
    kinds = input_kinds(task)
    return TokenSet(
        tuple(range(task.n_inputs)),
        task.labels[: task.n_inputs],
        input_kind_names(task),
        tuple(int(k) for k in kinds),
    )


def task_outputs(task: FactRecallTask, outputs: str) -> TokenSet:
    """The answers of a task, facts first, or its whole vocabulary in the order of token ids."""
    if outputs not in ("answers", "vocabulary"):
        raise unknown_name("outputs", outputs, ("answers", "vocabulary"))
    first = task.n_inputs if outputs == "answers" else 0
    ids = tuple(range(first, task.d_vocab))
    kind = [2 if i < task.n_inputs else int(i >= task.n_inputs + task.n_facts) for i in ids]
    return TokenSet(ids, task.labels[first:], OUTPUT_KINDS, tuple(kind))
