"""Logits at the answers of a batch, and only there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.llm.encoding import TokenBatch
from ocr_interp.llm.models.loading import LanguageModel

LogitsOf = Callable[[TokenBatch], Tensor]
"""A function from a batch to logits [answer_token, d_vocab]."""


def answer_logits(
    model: Any, batch: TokenBatch, inner: Any | None = None
) -> Float[Tensor, "answer_token d_vocab"]:
    """Logits of the whole vocabulary at the answer positions of a batch.

    Only these positions are unembedded; unembedding the others would be the largest waste of a step. All
    that the model does to its logits afterwards (Gemma's soft cap, a scale) is kept.

    Args:
        model: the model to call, perhaps wrapped for several processes.
        batch: the tokens, and the positions of the answers.
        inner: the transformers model inside a wrapper; None is `model` itself.
    """
    head = (model if inner is None else inner).get_output_embeddings()
    if head is None:
        raise ModelError(f"{type(model).__name__} has no unembedding: a causal language model is required")

    def pick(module: Any, hidden: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (hidden[0][batch.row, batch.position].unsqueeze(0),)

    handle = head.register_forward_pre_hook(pick)
    try:
        logits = model(input_ids=batch.tokens, use_cache=False).logits
    finally:
        handle.remove()
    if logits.shape[:2] != (1, len(batch.row)):
        raise ModelError(
            f"{type(model).__name__} does not read its logits from get_output_embeddings(): got shape "
            f"{tuple(logits.shape)} for {len(batch.row)} answers"
        )
    return logits[0]


def logits_of(lm: LanguageModel) -> LogitsOf:
    """The function that gives a model's answer logits; calls `before_forward` of an update not merged."""
    model, attached = lm.model, lm.attached
    if attached is None:
        return partial(answer_logits, model)

    def logits(batch: TokenBatch) -> Tensor:
        attached.adapter.before_forward(model, attached.recipe, batch, None)
        return answer_logits(model, batch)

    return logits
