"""What the query attends to: scores and weights of attention by kind of token."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from ocr_interp.hooked.tokens.task_tokens import input_kind_names, input_kinds
from ocr_interp.task import FactRecallTask


@dataclass(frozen=True)
class AttentionByKind:
    """Attention of the EOS query to tokens of each kind; NaN for kinds without tokens.

    Attributes:
        kinds: names, as `input_kind_names`; a relation is one token.
        attention: "linear" or "softmax".
        mean_score, std_score: of the scores of the kind's tokens (before a softmax, if there is one).
        mean_weight: mean of a, the factor of a token in the effective circuit: the score itself with
            linear attention, its exponential with softmax (up to each sequence's normalisation). With linear
            attention a token's sign is arbitrary (a and its row of W_OV may both flip), so that trained
            subjects average to about 0 in any case: use `mean_size`.
        mean_size: mean of |a|.
        tokens_in_prompt: how many tokens of the kind a prompt has on average over the task's subjects
            and relations: seq_len − 3 noise tokens (0 if the run's recipe has no noise), one subject, one
            relation, one EOS.
        share: mean |a| × tokens in the prompt, over the sum of that; sums to 1 over kinds. With softmax
            attention it is the share of attention of a prompt of average scores.
        fingerprint: of the weights, as in Provenance.
    """

    kinds: tuple[str, ...]
    attention: str
    mean_score: Float[np.ndarray, " kind"] = field(repr=False)
    std_score: Float[np.ndarray, " kind"] = field(repr=False)
    mean_weight: Float[np.ndarray, " kind"] = field(repr=False)
    mean_size: Float[np.ndarray, " kind"] = field(repr=False)
    tokens_in_prompt: Float[np.ndarray, " kind"] = field(repr=False)
    share: Float[np.ndarray, " kind"] = field(repr=False)
    fingerprint: str


def attention_by_kind(
    task: FactRecallTask,
    attention: str,
    scores: Float[np.ndarray, " input"],
    fingerprint: str,
    noise_in_prompt: int,
) -> AttentionByKind:
    """Groups the scores that EOS gives to every input token; a prompt has this many noise tokens."""
    kind, names = input_kinds(task), input_kind_names(task)
    scores = np.asarray(scores, dtype=np.float64)
    weight = scores if attention == "linear" else np.exp(scores)
    members = [kind == k for k in range(len(names))]
    held_out = float((~task.subject_trained).mean())
    relations = [1 / task.n_relations] * task.n_relations  # a prompt has one of them
    tokens = np.array([1 - held_out, held_out, *relations, noise_in_prompt, 1.0])

    def of_kinds(values: np.ndarray, statistic) -> np.ndarray:
        return np.array([statistic(values[m]) if m.any() else np.nan for m in members])

    mean_size = of_kinds(np.abs(weight), np.mean)
    mass = np.nan_to_num(mean_size) * tokens
    return AttentionByKind(
        kinds=names,
        attention=attention,
        mean_score=of_kinds(scores, np.mean),
        std_score=of_kinds(scores, np.std),
        mean_weight=of_kinds(weight, np.mean),
        mean_size=mean_size,
        tokens_in_prompt=tokens,
        share=mass / mass.sum() if mass.sum() else np.full(len(mass), np.nan),
        fingerprint=fingerprint,
    )
