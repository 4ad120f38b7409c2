"""What is measured of a mitigated model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from ocr_interp.mitigation.aim import Aim
from ocr_interp.task import FACT
from ocr_interp.triples import Triples


@dataclass(frozen=True)
class Measured:
    """Untold and told answers of one model.

    Attributes:
        wanted_accuracy: share of untold answers of wanted relations that come first among their relation's.
        wanted_beta: their lead over the mean of the relation's other answers, relative to that of the told
            ones; 0: nothing is deduced, 1: as much as is told.
        wanted_probability: mean probability of untold answers among those of their relation.
        unwanted_accuracy, unwanted_beta, unwanted_probability: the same of the unwanted relations.
        fact_accuracy: share of told facts that come first among all outputs.
        told_accuracy: share of told implications that come first among all outputs.
        told_margin: smallest lead of a told answer, fact or implication, over every other output, logits.
    """

    wanted_accuracy: float
    wanted_beta: float
    wanted_probability: float
    unwanted_accuracy: float
    unwanted_beta: float
    unwanted_probability: float
    fact_accuracy: float
    told_accuracy: float
    told_margin: float


def measure(
    aim: Aim, W: Float[np.ndarray, "relation input output"], told: Triples, untold: Triples
) -> Measured:
    """Measures the matrices that the prompts of each relation have.

    Args:
        aim: the task and what is unwanted.
        W: one matrix per relation.
        told: the training set; implications that are told rightly are what deduction is compared with.
        untold: the implications that are measured; of every relation some.
    """
    logits_told, logits_untold = logits_of(aim, W, told), logits_of(aim, W, untold)
    margins = margins_of(logits_told, told.answer)
    is_fact = told.relation == FACT
    wanted = _deduced(aim, aim.wanted_relations, (logits_told, told), (logits_untold, untold))
    unwanted = _deduced(aim, aim.unwanted_relations, (logits_told, told), (logits_untold, untold))
    return Measured(
        *wanted,
        *unwanted,
        fact_accuracy=float((margins[is_fact] > 0).mean()),
        told_accuracy=float((margins[~is_fact] > 0).mean()),
        told_margin=float(margins.min()),
    )


def logits_of(
    aim: Aim, W: Float[np.ndarray, "relation input output"], prompts: Triples
) -> Float[np.ndarray, "prompt output"]:
    """Logits of prompts."""
    relation = prompts.relation
    return W[relation, prompts.subject] + W[relation, aim.task.n_subjects + relation]


def margins_of(
    logits: Float[np.ndarray, "prompt output"], correct: np.ndarray
) -> Float[np.ndarray, " prompt"]:
    """Lead of the correct output over the best other one, in logits."""
    prompt, others = np.arange(len(correct)), logits.copy()
    others[prompt, correct] = -np.inf
    return logits[prompt, correct] - others.max(1)


def _deduced(
    aim: Aim,
    relations: tuple[int, ...],
    told: tuple[np.ndarray, Triples],
    untold: tuple[np.ndarray, Triples],
) -> tuple[float, float, float]:
    """(accuracy, β, probability) of relations, the mean over them."""
    found = []
    for relation in relations:
        columns = aim.task.answer_relation == relation
        right = aim.task.right_answer[relation]
        truly = told[1].answer == right[told[1].subject]  # a counter-example is no measure of what is told
        lead_told, _, _ = _leads(*told, truly & (told[1].relation == relation), columns)
        lead, accuracy, probability = _leads(*untold, untold[1].relation == relation, columns)
        found.append((accuracy, lead / lead_told, probability))
    accuracy, beta, probability = np.mean(found, axis=0)
    return float(accuracy), float(beta), float(probability)


def _leads(
    logits: Float[np.ndarray, "prompt output"],
    prompts: Triples,
    chosen: Bool[np.ndarray, " prompt"],
    columns: Bool[np.ndarray, " output"],
) -> tuple[float, float, float]:
    """Mean lead of the correct answer over the mean of its relation's others, accuracy, mean probability."""
    kept = np.where(columns, logits[chosen], -np.inf)
    correct = prompts.answer[chosen]
    prompt = np.arange(len(correct))
    own = kept[prompt, correct]
    others = (kept[:, columns].sum(1) - own) / (columns.sum() - 1)
    probability = np.exp(own - np.logaddexp.reduce(kept[:, columns], axis=1))
    return (
        float((own - others).mean()),
        float((margins_of(kept, correct) > 0).mean()),
        float(probability.mean()),
    )
