"""Encodes examples as tokens: prompts, and what follows them for every candidate answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ocr_interp.devices import sent
from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.fact_set import Example
from ocr_interp.llm.facts.spelling import listed, separator

PAIRS_TOGETHER = 10_000
"""Up to so many pairs of a prompt and an answer all are tokenized together; beyond, see `_shared_answers`."""

_CHUNK = 20_000


@dataclass(frozen=True)
class AnswerTokens:
    """The tokens of every candidate after a prompt; examples with the same ones share one object.

    Attributes:
        tokens: the tokens of each candidate, all different and none empty.
        least: how many tokens of each make up whole characters that are no blank. Many tokenizers cut
            characters of other scripts into bytes, and blanks from digits.
    """

    tokens: tuple[tuple[int, ...], ...]
    least: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.least:
            object.__setattr__(self, "least", (1,) * len(self.tokens))

    @cached_property
    def first(self) -> tuple[int, ...]:
        """First token of every candidate."""
        return tuple(tokens[0] for tokens in self.tokens)

    @property
    def are_told_apart_at_once(self) -> bool:
        """Whether all first tokens differ and are more than bytes or a blank: the paper's case."""
        return len(set(self.first)) == len(self.tokens) and set(self.least) == {1}


@dataclass(frozen=True)
class Encoded:
    """One example as token ids.

    Attributes:
        prompt: tokens of the prompt, with the prefix that the tokenizer adds itself (BOS or nothing).
        answer: tokens of the correct answer.
        answers: tokens of every candidate.
        target: index of the correct candidate.
        example: what was encoded.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    answers: AnswerTokens
    target: int
    example: Example

    @property
    def candidates(self) -> tuple[int, ...]:
        """First token of every candidate."""
        return self.answers.first


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
    """Encodes examples; each answer is tokenized together with its prompt.

    A blank stands between the two unless their script has none (`spelling.separator`). Time and memory are
    linear in prompts plus answers, apart from PAIRS_TOGETHER pairs that are tried one by one.

    Raises:
        ConfigError: names or answers that are the same tokens, or a prompt whose end merges with the answer;
            the message names all of them.
    """
    prefix = special_prefix(tokenizer)
    asked = list(dict.fromkeys(example.prompt for example in examples))
    prompts = dict(zip(asked, _tokens(tokenizer, asked), strict=True))
    _refuse_same_prompts(prompts)
    groups: dict[tuple[int, int, int], list[int]] = {}
    for place, example in enumerate(examples):  # one object holds the candidates of all its examples
        groups.setdefault((example.relation, example.template, id(example.candidates)), []).append(place)
    encoded: list[Encoded | None] = [None] * len(examples)
    for places in groups.values():
        group = [examples[place] for place in places]
        few = len(group) * len(group[0].candidates) <= PAIRS_TOGETHER
        split = (_own_answers if few else _shared_answers)(tokenizer, group, prompts)
        for place, (prompt, answers) in zip(places, split, strict=True):
            example = examples[place]
            whole = prompt if prefix and prompt[: len(prefix)] == prefix else (*prefix, *prompt)
            if not whole:
                raise ConfigError(f"{example.prompt!r} has no token before its answer: word it longer")
            own = answers.tokens[example.target]
            encoded[place] = Encoded(whole, own, answers, example.target, example)
    return tuple(one for one in encoded if one is not None)


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
    row, position, target = sent(torch.tensor(places, dtype=torch.long).T.contiguous(), device).unbind()
    told = tuple(example.example for example in examples)
    return TokenBatch(_padded(rows, pad, device), row, position, target, told)


def asking_batch(examples: Sequence[Encoded], pad: int, device: torch.device | str) -> TokenBatch:
    """Prompts without answers; the first token of the answer is predicted at the last token."""
    return training_batch([replace(e, answer=e.answer[:1]) for e in examples], pad, device)


def path_batch(
    paths: Sequence[tuple[Encoded, tuple[int, ...], Sequence[int]]], pad: int, device: torch.device | str
) -> TokenBatch:
    """Prompts that go on along a path of tokens, to be read at some places of it.

    Args:
        paths: for every sequence the example, the tokens after its prompt, and how many of them have been
            said at each place that is read.
        pad: a token to pad with.
        device: where the model runs.

    Returns: a batch whose targets are padding: what is read there is the whole vocabulary.
    """
    rows = [(*example.prompt, *path) for example, path, _ in paths]
    places = [
        (row, len(example.prompt) - 1 + depth)
        for row, (example, _, depths) in enumerate(paths)
        for depth in depths
    ]
    row, position = sent(torch.tensor(places, dtype=torch.long).T.contiguous(), device).unbind()
    told = tuple(example.example for example, _, _ in paths)
    return TokenBatch(_padded(rows, pad, device), row, position, torch.full_like(row, pad), told)


def _padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device | str) -> Int[Tensor, "batch pos"]:
    length = max(map(len, rows))
    padded = [[*row, *[pad] * (length - len(row))] for row in rows]
    return sent(torch.tensor(padded, dtype=torch.long), device)


def _tokens(tokenizer: Any, texts: Sequence[str]) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    for start in range(0, len(texts), _CHUNK):  # the tokenizer keeps offsets and masks of all its texts
        ids = tokenizer(list(texts[start : start + _CHUNK]), add_special_tokens=False).input_ids
        found += map(tuple, ids)
    return found


def _whole(example: Example, answer: str) -> str:
    return f"{example.prompt}{separator(example.prompt, answer)}{answer}"


_Split = tuple[tuple[int, ...], AnswerTokens]
"""The tokens of a prompt, up to where its answers begin, and those of the answers."""


def _own_answers(
    tokenizer: Any, group: Sequence[Example], prompts: dict[str, tuple[int, ...]]
) -> list[_Split]:
    """Every prompt of a group with each of its candidates."""
    candidates = group[0].candidates
    whole = _tokens(tokenizer, [_whole(example, answer) for example in group for answer in candidates])
    made: dict[tuple[tuple[int, ...], ...], AnswerTokens] = {}
    found, melted = [], []
    for k, example in enumerate(group):
        texts = whole[k * len(candidates) : (k + 1) * len(candidates)]
        prompt = prompts[example.prompt]
        cut, bad = _where_answers_begin(prompt, example, texts)
        melted += bad
        tokens = tuple(text[cut:] for text in texts)
        if tokens not in made:
            _refuse_same_answers(candidates, tokens)
            least = tuple(_least(tokenizer, one) for one in tokens)
            made[tokens] = AnswerTokens(tokens, least)
        found.append((prompt[:cut], made[tokens]))
    _refuse_melted(melted)
    return found


def _shared_answers(
    tokenizer: Any, group: Sequence[Example], prompts: dict[str, tuple[int, ...]]
) -> list[_Split]:
    """The prompts of a large group, with the answers' tokens found once and tried on every prompt.

    All candidates are tokenized after the first prompt; every prompt is tried with its own answer and with
    one more, so that every answer is tried after many prompts. A prompt where that does not tally gets tokens
    of its own; there may be few of them.
    """
    ((prompt, answers),) = _own_answers(tokenizer, group[:1], prompts)
    back = len(prompts[group[0].prompt]) - len(prompt)
    candidates = group[0].candidates
    tried = [
        (k, answer)
        for k, example in enumerate(group)
        for answer in (example.target, (example.target + 1 + k % (len(candidates) - 1)) % len(candidates))
    ]
    texts = _tokens(tokenizer, [_whole(group[k], candidates[answer]) for k, answer in tried])
    begun = [own[: len(own) - back] for own in (prompts[example.prompt] for example in group)]
    other: dict[int, str] = {}
    for (k, answer), text in zip(tried, texts, strict=True):
        if text != (*begun[k], *answers.tokens[answer]):
            other[k] = candidates[answer]
    if len(other) * len(candidates) > 10 * PAIRS_TOGETHER:
        _refuse_melted([_pair(group[k], answer) for k, answer in other.items()])
    apart: dict[int, _Split] = {}
    if other:
        own_answers = _own_answers(tokenizer, [group[k] for k in other], prompts)
        apart = dict(zip(other, own_answers, strict=True))
    return [apart.get(k, (own, answers)) for k, own in enumerate(begun)]


def _where_answers_begin(
    prompt: tuple[int, ...], example: Example, texts: Sequence[tuple[int, ...]]
) -> tuple[int, list[str]]:
    """Where the prompt's tokens end in all texts, and the pairs of which no such place can be said.

    Where no blank parts them, the last characters of a prompt may share a token with an answer: then the
    answers' tokens begin that much earlier, for all candidates alike.
    """
    cut = len(prompt)
    bad = [k for k, text in enumerate(texts) if text[:cut] != prompt or len(text) == cut]
    if not bad or any(separator(example.prompt, example.candidates[k]) for k in bad):
        return cut, [_pair(example, example.candidates[k]) for k in bad]
    while any(text[:cut] != prompt[:cut] or len(text) == cut for text in texts):
        cut -= 1
    return cut, []


def _least(tokenizer: Any, tokens: tuple[int, ...]) -> int:
    """How many tokens it takes until they are whole characters and no blank."""
    for count in range(1, len(tokens)):
        text = tokenizer.decode(list(tokens[:count]))
        if text.strip() and "\ufffd" not in text:
            return count
    return len(tokens)


def _pair(example: Example, answer: str) -> str:
    return f"{example.prompt!r} otherwise when {answer!r} follows"


def _refuse_melted(melted: Sequence[str]) -> None:
    if melted:
        raise ConfigError(f"the tokenizer reads {listed(melted)}: end the template with a word")


def _same(tokens: Iterable[tuple[int, ...]], texts: Iterable[str]) -> list[list[str]]:
    """Groups of different texts that are the same tokens."""
    groups: dict[tuple[int, ...], dict[str, None]] = {}
    for ids, text in zip(tokens, texts, strict=True):
        groups.setdefault(ids, {})[text] = None
    return [list(group) for group in groups.values() if len(group) > 1]


def _refuse_same_answers(candidates: Sequence[str], tokens: Sequence[tuple[int, ...]]) -> None:
    same = [" and ".join(map(ascii, group)) for group in _same(tokens, candidates)]
    if same:
        raise ConfigError(
            f"the tokenizer reads different answers as the same tokens: {listed(same)}; the model cannot "
            "tell them apart: write them so that it can, or leave all but one out"
        )


def _refuse_same_prompts(prompts: dict[str, tuple[int, ...]]) -> None:
    if len(set(prompts.values())) == len(prompts):
        return
    same = [" and ".join(map(ascii, group)) for group in _same(prompts.values(), prompts)]
    raise ConfigError(
        f"the tokenizer reads the prompts of different names as the same tokens: {listed(same)}; the model "
        "cannot tell them apart: write the names so that it can, or leave all but one out"
    )
