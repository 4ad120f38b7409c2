"""Encodes examples as tokens: prompts, answers, and the first token of every candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.fact_set import Example


@dataclass(frozen=True)
class Encoded:
    """One example as token ids.

    Attributes:
        prompt: tokens of the prompt, with the prefix that the tokenizer adds itself (BOS or nothing).
        answer: tokens of the correct answer.
        candidates: first token of every candidate, all different.
        target: index of the correct candidate.
        example: what was encoded.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    candidates: tuple[int, ...]
    target: int
    example: Example


@dataclass(frozen=True)
class TokenBatch:
    """Token ids of several sequences, and the positions of their answers.

    Padding is on the right, which causal attention does not read: no mask is needed, and the logits do not
    depend on the padding token.

    Attributes:
        tokens: token ids.
        row, position: for every answer token, the place whose logits predict it.
        target: the answer tokens.
        examples: the example of every row.
    """

    tokens: Int[Tensor, "batch pos"]
    row: Int[Tensor, " answer_token"]
    position: Int[Tensor, " answer_token"]
    target: Int[Tensor, " answer_token"]
    examples: tuple[Example, ...]


def encode(tokenizer: Any, examples: Sequence[Example]) -> tuple[Encoded, ...]:
    """Encodes examples; each answer follows a space and is tokenized together with its prompt.

    Raises:
        ConfigError: candidates with the same first token, or a prompt whose end merges with the answer.
    """
    prefix = special_prefix(tokenizer)
    prompts = _tokens(tokenizer, [example.prompt for example in examples])
    texts = [f"{example.prompt} {answer}" for example in examples for answer in example.candidates]
    whole = iter(_tokens(tokenizer, texts))
    encoded = []
    for example, prompt in zip(examples, prompts, strict=True):
        answers = [_after(next(whole), prompt, example, answer) for answer in example.candidates]
        first = tuple(tokens[0] for tokens in answers)
        _refuse_collisions(tokenizer, example.candidates, first)
        encoded.append(Encoded((*prefix, *prompt), answers[example.target], first, example.target, example))
    return tuple(encoded)


def special_prefix(tokenizer: Any) -> tuple[int, ...]:
    """The tokens that the tokenizer adds in front of a text.

    Whether it has a BOS token does not say so: some tokenizers have one and do not use it.
    """
    plain, special = (list(tokenizer("a", add_special_tokens=flag).input_ids) for flag in (False, True))
    for start in range(len(special) - len(plain) + 1):
        if special[start : start + len(plain)] == plain:
            return tuple(special[:start])
    raise ConfigError(
        f"the tokenizer changes a text when it adds special tokens ({plain} becomes {special}): prompts and "
        "answers cannot be told apart; use another tokenizer"
    )


def training_batch(examples: Sequence[Encoded], pad: int, device: torch.device | str) -> TokenBatch:
    """Prompts with answers; the last answer token is only predicted, never an input."""
    rows = [(*example.prompt, *example.answer[:-1]) for example in examples]
    places = [
        (row, len(example.prompt) - 1 + k, token)
        for row, example in enumerate(examples)
        for k, token in enumerate(example.answer)
    ]
    row, position, target = torch.tensor(places, dtype=torch.long).T.contiguous().to(device).unbind()
    told = tuple(example.example for example in examples)
    return TokenBatch(_padded(rows, pad, device), row, position, target, told)


def asking_batch(examples: Sequence[Encoded], pad: int, device: torch.device | str) -> TokenBatch:
    """Prompts without answers; the first token of the answer is predicted at the last token."""
    return training_batch([replace(e, answer=e.answer[:1]) for e in examples], pad, device)


def _padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device | str) -> Int[Tensor, "batch pos"]:
    length = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows], dtype=torch.long).to(device)


def _tokens(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return tokenizer(list(texts), add_special_tokens=False).input_ids if texts else []


def _after(whole: list[int], prompt: list[int], example: Example, answer: str) -> tuple[int, ...]:
    """The answer's tokens: those after the prompt's in the whole text."""
    if whole[: len(prompt)] != prompt or len(whole) == len(prompt):
        raise ConfigError(
            f"the tokenizer reads {example.prompt!r} otherwise when {answer!r} follows: end the template "
            "with a word"
        )
    return tuple(whole[len(prompt) :])


def _refuse_collisions(tokenizer: Any, candidates: Sequence[str], first: Sequence[int]) -> None:
    seen: dict[int, str] = {}
    for answer, token in zip(candidates, first, strict=True):
        if token in seen:
            raise ConfigError(
                f"candidates {seen[token]!r} and {answer!r} begin with the same token "
                f"{tokenizer.decode([token])!r}: answers are scored by their first token, so it must tell "
                "them apart; replace one of them (another seed draws other pairs)"
            )
        seen[token] = answer
