"""Prompts, donors and answers of a command as ids of one model; a word has one meaning or is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ocr_interp.cli.arguments.models import GivenModel
from ocr_interp.errors import ConfigError

Words = tuple[str, ...]
Ids = tuple[int, ...]

SHOWN = 3
"""Prompts that are printed with what the model answers."""


@dataclass(frozen=True)
class Asked:
    """A question in the ids of one model.

    Attributes:
        given: the model.
        prompts: of any lengths.
        donors: one for each prompt and as long as it; None for none.
        answer: of each prompt.
        against: of each prompt, one or several whose mean logit is subtracted.
    """

    given: GivenModel
    prompts: tuple[Ids, ...]
    donors: tuple[Ids, ...] | None
    answer: Ids
    against: tuple[Ids, ...]

    def require_one_length(self) -> None:
        """Requires prompts of one length, as circuits of edges do.

        Raises:
            ConfigError: others, with the tokens of the first two that differ.
        """
        first = self.prompts[0]
        for other in self.prompts[1:]:
            if len(other) != len(first):
                raise ConfigError(
                    f"edges need prompts of one length, got {len(first)} tokens in {self.tokens(first)} and "
                    f"{len(other)} in {self.tokens(other)}: reword them, ask for each length by itself, or "
                    "leave edges out with --edges 0"
                )

    def tokens(self, ids: Ids) -> str:
        """A prompt with its tokens told apart: Anna| lives| in."""
        return "|".join(self.words.of(token) for token in ids)

    @cached_property
    def words(self) -> WordsOf:
        """How tokens are written."""
        return WordsOf(self.given)

    def against_name(self, row: int) -> str:
        """What the answer of a prompt is against."""
        return ", ".join(self.words.quoted(token) for token in self.against[row])

    @property
    def title(self) -> str:
        """The first answer and what it is against."""
        several = len(set(zip(self.answer, self.against, strict=True))) > 1
        more = f" and {len(self.prompts) - 1} more" if several else ""
        return f"{self.words.quoted(self.answer[0])} against {self.against_name(0)}{more}"

    def describe(self) -> str:
        """Tokens of the first prompts, and what the model answers to them."""
        lines = []
        for row in range(min(SHOWN, len(self.prompts))):
            ids = self.prompts[row]
            lines.append(f"prompt: {self.tokens(ids)} ({len(ids)} tokens)")
            if self.donors is not None:
                lines.append(f"donor:  {self.tokens(self.donors[row])}")
            lines.append(f"  the model says {self._answers(row)}")
        if len(self.prompts) > SHOWN:
            lines.append(f"and {len(self.prompts) - SHOWN} more prompts")
        return "\n".join(lines)

    def _answers(self, row: int) -> str:
        chances = _last_logits(self.given, self.prompts[row]).double().softmax(-1)
        order = chances.argsort(descending=True).tolist()
        told = [f"{self.words.quoted(order[0])} (probability {chances[order[0]]:.3g})"]
        for token in (self.answer[row], *self.against[row]):
            told.append(
                f"{self.words.quoted(token)} has {chances[token]:.3g}, place {order.index(token) + 1:,}"
            )
        return "; ".join(told)


class WordsOf:
    """Tokens of a model as a reader writes them: of a tokenizer the text, else the label."""

    def __init__(self, given: GivenModel) -> None:
        from ocr_interp.hooked.adapted.copies import as_hooked
        from ocr_interp.hooked.tokens.labels import labels_of, output_labels_of, tokenizer_of

        model = as_hooked(given.model)
        self.inputs, self.outputs = labels_of(model, None), output_labels_of(model, None)
        self.tokenizer: Any = tokenizer_of(model)
        limit = getattr(model.cfg, "n_ctx", None)
        self.longest = int(limit) if limit else None
        self.model = model

    def of(self, token: int, output: bool = False) -> str:
        """A token's text."""
        labels = self.outputs if output else self.inputs
        if self.tokenizer is None or token >= len(self.tokenizer):
            return labels[token]
        return str(self.tokenizer.decode([token])) or labels[token]

    def quoted(self, token: int) -> str:
        """An output in quotes, so that its space is seen."""
        return f"“{self.of(token, output=True)}”"

    def id_of(self, word: str, what: str, labels: Sequence[str]) -> int:
        """The id of a label, of a text of one token, of a number, or of id:NUMBER.

        Raises:
            ConfigError: a word that means two tokens, or several tokens in a row, with what may be meant.
            UnknownNameError: an unknown one, with the close matches.
        """
        from ocr_interp.hooked.tokens.ids import token_ids

        number = word.removeprefix("id:")
        as_id = int(number) if number.isdecimal() and number.isascii() else None
        named = [k for k, label in enumerate(labels) if label == word]
        as_text = self._encoded(word)
        if as_id is not None and number == word:
            others = {*named, *(as_text if len(as_text) == 1 else [])} - {as_id}
            if others:
                texts = ", ".join(f"id:{k} ({labels[k]!r})" for k in sorted(others))
                own = f"id:{as_id} ({labels[as_id]!r})" if as_id < len(labels) else f"no id {as_id}"
                raise ConfigError(f"--{what} {word} may mean {texts} or {own}: write the one you mean")
        if as_id is not None:
            return token_ids(self.model, [as_id], labels, what)[0]
        if not named and len(as_text) > 1:
            raise ConfigError(self._several(word, what, as_text))
        return token_ids(self.model, [word], labels, what)[0]

    def _encoded(self, word: str) -> list[int]:
        if self.tokenizer is None or not word:
            return []
        found = list(self.tokenizer.encode(word, add_special_tokens=False))
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        return [] if unknown in found else found

    def _several(self, word: str, what: str, ids: list[int]) -> str:
        parts = "|".join(self.of(token) for token in ids)
        other = word.strip() if word[:1].isspace() else f" {word}"
        if len(self._encoded(other)) == 1:
            hint = f'did you mean "{other}"?'
        else:
            first = next((k for k in ids if self.of(k).strip()), ids[0])
            hint = f"ask for one of them, such as the first, --{what} id:{first}"
        return f"--{what} must be one token, got {word!r}, which is {len(ids)}: {parts}; {hint}"

    def prompt(self, text: str, what: str) -> Ids:
        """The ids of a text, or of labels and ids apart where there is no tokenizer.

        Raises:
            ConfigError: an empty prompt, or one longer than the model's context.
        """
        from ocr_interp.hooked.tokens.prompts import encode_prompt

        if not text.strip():
            raise ConfigError(f"--{what} must hold at least one token, got {text!r}")
        if self.tokenizer is not None:
            ids = tuple(encode_prompt(self.model, text, self.inputs))
        elif text in self.inputs:
            ids = (self.id_of(text, what, self.inputs),)
        else:
            ids = tuple(self.id_of(word, what, self.inputs) for word in text.split())
        if self.longest is not None and len(ids) > self.longest:
            raise ConfigError(
                f"--{what} must have at most {self.longest:,} tokens, the model's context, got {len(ids):,}: "
                f"{text[:60]!r}…"
            )
        return ids


def asked_of(given: GivenModel, prompt: Words, answer: Words, against: Words, donor: Words) -> Asked:
    """A question in the ids of a model.

    Without a tokenizer a prompt is its labels or ids, each a word, or, to give several prompts, all in one
    word: --prompt "3 4 5" "6 7 8".

    Raises:
        ConfigError: other numbers of answers or donors than of prompts, a donor of another length, an answer
            against itself, or what `WordsOf` refuses.
    """
    words = WordsOf(given)
    prompts = _prompts(words, prompt, "prompt")
    count = len(prompts)
    donors = _donors(words, prompts, donor) if donor else None
    answers = tuple(words.id_of(word, "answer", words.outputs) for word in _each(answer, count, "answer"))
    rivals = against if count == 1 else _each(against, count, "against")
    others = [words.id_of(word, "against", words.outputs) for word in rivals]
    groups = (tuple(others),) if count == 1 else tuple((other,) for other in others)
    if len(set(others)) < len(others) and count == 1:
        raise ConfigError(f"--against must name every token once, got {', '.join(map(repr, against))}")
    for own, group in zip(answers, groups, strict=True):
        if own in group:
            raise ConfigError(
                f"--against must be another token than --answer, got {words.quoted(own)} as both: name what "
                "the answer is to be told from"
            )
    return Asked(given, prompts, donors, answers, groups)


def _prompts(words: WordsOf, given: Words, what: str) -> tuple[Ids, ...]:
    apart = words.tokenizer is None and not any(
        len(word.split()) > 1 and word not in words.inputs for word in given
    )
    if apart and len(given) > 1:
        if not all(word.strip() for word in given):
            raise ConfigError(f"--{what} must hold labels or ids, got an empty word")
        return (tuple(words.id_of(word, what, words.inputs) for word in given),)
    return tuple(words.prompt(text, what) for text in given)


def _donors(words: WordsOf, prompts: tuple[Ids, ...], given: Words) -> tuple[Ids, ...]:
    found = _prompts(words, given, "donor")
    if len(found) not in (1, len(prompts)):
        raise ConfigError(f"--donor must be one, or one for each of {len(prompts)} prompts, got {len(found)}")
    found = found * len(prompts) if len(found) == 1 else found
    for row, (prompt, donor) in enumerate(zip(prompts, found, strict=True)):
        if len(prompt) != len(donor):
            shown = ["|".join(words.of(token) for token in ids) for ids in (prompt, donor)]
            raise ConfigError(
                f"--donor must have as many tokens as its prompt, got {len(donor)} in {shown[1]} for "
                f"{len(prompt)} in {shown[0]} (prompt {row + 1}): choose words of as many tokens"
            )
    for row, (prompt, donor) in enumerate(zip(prompts, found, strict=True)):
        if prompt == donor:
            shown = "|".join(words.of(token) for token in donor)
            raise ConfigError(
                "--donor must differ from the prompt in what the circuit is to be found for, got the same, "
                f"{shown} (prompt {row + 1}): name another city, subject or so"
            )
    return found


def _each(words: Words, count: int, what: str) -> Words:
    if len(words) not in (1, count):
        several = "; of one prompt pass several --against" if what == "against" else ""
        raise ConfigError(
            f"--{what} must be one, or one for each of {count} prompts, got {len(words)}{several}"
        )
    return words * count if len(words) == 1 else words


def _last_logits(given: GivenModel, ids: Ids) -> torch.Tensor:
    from ocr_interp.hooked.adapted.copies import as_hooked
    from ocr_interp.hooked.passes import own_run

    model: Any = as_hooked(given.model)
    with torch.no_grad(), own_run(model):
        logits = model(torch.tensor([ids], device=model.W_E.device))
    return getattr(logits, "logits", logits)[0, -1]
