"""What an ablation study measures: by split, from the logits at EOS."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.data import noisy_examples
from ocr_interp.errors import unknown_name
from ocr_interp.models.token_counts import cross_entropy
from ocr_interp.task import SPLITS, FactRecallTask

METRICS = ("accuracy", "loss", "margin", "logit_difference", "other_answer_difference")
"""Measured for every split:

- accuracy: share of examples whose right answer beats all other answers; a tie does not count;
- loss: mean cross-entropy over the whole vocabulary, nats;
- margin: smallest logit difference between the right answer and another of its set (facts or implications);
- logit_difference: mean logit difference between the right answer and the mean of the others of its set;
- other_answer_difference: smallest logit difference between the right answer and the same subject's answer
  to the other relation.
"""


def examples(
    task: FactRecallTask, noisy: bool, seed: int, draws: int
) -> tuple[Int[Tensor, "batch pos"], Int[np.ndarray, " batch"]]:
    """Sequences of every triple and which: once without noise, or `draws` times with noise of a seed."""
    index = np.arange(len(task.triples))
    if noisy:
        index = np.repeat(index, draws)
        return noisy_examples(task, task.triples.select(index), seed)[0], index
    triples = task.triples
    columns = [triples.subject, task.n_subjects + triples.relation, np.full(len(index), task.eos_token)]
    return torch.as_tensor(np.stack(columns, axis=1)), index


def split_metrics(
    task: FactRecallTask,
    logits: Float[Tensor, "batch vocabulary"],
    triple: Int[np.ndarray, " batch"],
    metrics: tuple[str, ...] = METRICS,
) -> dict[str, dict[str, float]]:
    """The metrics of every split that the task has: {split: {metric: value}}.

    Args:
        task: the task.
        logits: at EOS, over the whole vocabulary.
        triple: index into task.triples of every example.
        metrics: names from METRICS.

    Raises:
        UnknownNameError: another name, with the close matches.
    """
    for name in metrics:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
    chosen = task.triples.select(triple)
    values = _by_example(task, logits.detach().double().cpu(), chosen.subject, chosen.answer)
    reduce = {"margin": np.min, "other_answer_difference": np.min}
    return {
        name: {m: float(reduce.get(m, np.mean)(values[m][chosen.split == k])) for m in metrics}
        for k, name in enumerate(SPLITS)
        if (chosen.split == k).any()
    }


def _by_example(
    task: FactRecallTask,
    logits: Float[Tensor, "batch vocabulary"],
    subject: Int[np.ndarray, " batch"],
    answer: Int[np.ndarray, " batch"],
) -> dict[str, np.ndarray]:
    """Every metric of every example, before it is reduced over a split."""
    rows = np.arange(len(answer))
    answers = logits[:, task.n_inputs :].numpy()
    own = answers[rows, answer]
    wrong = answers.copy()
    wrong[rows, answer] = -np.inf
    is_fact = np.arange(task.n_answers) < task.n_facts
    in_set = is_fact[None] == (answer < task.n_facts)[:, None]
    others = in_set & np.isfinite(wrong)
    fact = task.subject_fact[subject]
    other = np.where(answer < task.n_facts, task.n_facts + task.fact_implication[fact], fact)
    return {
        "accuracy": (own > wrong.max(1)).astype(float),
        "loss": cross_entropy(logits, torch.as_tensor(answer + task.n_inputs)).loss.numpy(),
        "margin": own - np.where(in_set, wrong, -np.inf).max(1),
        "logit_difference": own - np.where(others, answers, 0).sum(1) / others.sum(1),
        "other_answer_difference": own - answers[rows, other],
    }
