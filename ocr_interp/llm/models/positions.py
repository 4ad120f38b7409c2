"""How many tokens a model has positions for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.fact_set import Example

_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length")
"""The names of the limit in the configurations of transformers."""


def position_limit(model: Any) -> int | None:
    """The largest number of tokens that a model was made for; None where its configuration has no limit.

    Learned positions end there. Rotary ones go on, but the model was never trained on them.
    """
    config = getattr(model, "config", None)
    of_text = getattr(config, "get_text_config", None)
    limits = [getattr(config if of_text is None else of_text(), name, None) for name in _FIELDS]
    return next((int(n) for n in limits if isinstance(n, int) and n > 0), None)


def refuse_too_long(model: Any, lengths: Sequence[tuple[int, Example]]) -> None:
    """Requires a position for every token.

    Args:
        model: a transformers model.
        lengths: tokens of every input, with its example.

    Raises:
        ConfigError: too few positions; the message names the longest prompt and the limit.
    """
    limit = position_limit(model)
    if limit is None or not lengths:
        return
    longest, example = max(lengths, key=lambda pair: pair[0])
    if longest > limit:
        count = sum(length > limit for length, _ in lengths)
        raise ConfigError(
            f"{count} of {len(lengths)} prompts have more tokens than {type(model).__name__} has positions "
            f"({limit}): the longest, {example.prompt!r}, needs {longest}; shorten the wordings or names, or "
            "take a model with more positions"
        )
