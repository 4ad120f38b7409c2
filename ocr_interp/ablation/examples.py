"""The examples of a study: prompts, their right answers, and the wrong answers to compare them with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ocr_interp.data import check_draws, noisy_examples
from ocr_interp.errors import ConfigError, ModelError
from ocr_interp.hooked.padding import Padding
from ocr_interp.hooked.provenance import fingerprint_of
from ocr_interp.hooked.tokens.ids import Ids, id_tensor
from ocr_interp.hooked.tokens.prompts import with_mask
from ocr_interp.task import SPLITS, FactRecallTask


@dataclass(frozen=True, eq=False)
class Batch:
    """Prompts of one length that are run together.

    Attributes:
        rows: which examples they are.
        tokens: their ids, without padding.
        query: position of the logits of each.
    """

    rows: Int[Tensor, " prompt"] = field(repr=False)
    tokens: Int[Tensor, "prompt pos"] = field(repr=False)
    query: Int[Tensor, " prompt"] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Examples:
    """Questions to any model, each with one right answer.

    Candidates and rivals are token ids, one set for all examples or one row per example. Entries equal to
    the right answer are ignored, so rows of unequal length can be padded with it.

    Attributes:
        tokens: ids of the prompts [batch, pos], all of one length.
        answer: id of the right answer of each example [batch].
        split: a name for each example, by which metrics are grouped; one string names all.
        candidates: tokens that the right answer must beat to count as right; None is the whole vocabulary.
        rivals: tokens that margin and logit difference compare it with; None is the candidates.
        other_answer: id of another answer of each example, e.g. the fact if the implication is asked.
        query: index of the logits of each example among `tokens`; None is the last token of the prompt.
        labels: a label for every token of the vocabulary, for interventions that name tokens by label.
        output_labels: a label for every logit, where the outputs are another vocabulary.
        attention_mask: of prompts padded on the left or right, 1 at tokens and 0 at padding. Each prompt is
            then run without its padding, together with those of its length, so that nothing depends on how a
            model treats padding; positions of interventions are counted within the prompt.

    All ids may be given as lists, numpy arrays or tensors; tokens also as a tokenizer returns them, with
    their mask.

    Raises:
        ConfigError: lengths that do not fit, ids below 0, an example without a wrong candidate.
    """

    tokens: Ids = field(repr=False)
    answer: Ids = field(repr=False)
    split: str | tuple[str, ...] = "all"
    candidates: Ids = field(default=None, repr=False)
    rivals: Ids = field(default=None, repr=False)
    other_answer: Ids = field(default=None, repr=False)
    query: Ids = field(default=None, repr=False)
    labels: tuple[str, ...] | None = field(default=None, repr=False)
    attention_mask: Any = field(default=None, repr=False)
    output_labels: tuple[str, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        tokens, mask = with_mask(self.tokens, self.attention_mask, "tokens")
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "attention_mask", mask)
        for name in ("tokens", "answer", "candidates", "rivals", "other_answer", "query"):
            self._take_ids(name)
        if self.tokens.ndim != 2 or not len(self.tokens) or not self.tokens.shape[1]:
            raise ConfigError(f"tokens must be [batch, pos], not empty, got {tuple(self.tokens.shape)}")
        if isinstance(self.split, str):
            object.__setattr__(self, "split", (self.split,) * len(self))
        object.__setattr__(self, "split", tuple(self.split))
        for name in ("answer", "split", "other_answer", "query"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self):
                raise ConfigError(f"{name} must have one entry a prompt ({len(self)}), got {len(value)}")
        for name in ("tokens", "answer", "candidates", "rivals", "other_answer"):
            value = getattr(self, name)
            if value is not None and (value.is_floating_point() or not value.numel() or int(value.min()) < 0):
                shown = value.flatten()[:8].tolist()
                raise ConfigError(f"{name} must be token ids >= 0, at least one, got {value.dtype} {shown}")
        length = self.tokens.shape[1]
        if self.query is not None and not bool(((self.query >= -length) & (self.query < length)).all()):
            raise ConfigError(
                f"query must be positions in {-length}..{length - 1}, got {self.query.tolist()}"
            )
        for name in ("candidates", "rivals"):
            self._check_set(name, getattr(self, name))
        if self.attention_mask is not None:
            self._check_mask()

    def _take_ids(self, name: str) -> None:
        value = getattr(self, name)
        if value is None or (
            isinstance(value, Tensor) and name == "tokens" and not value.is_floating_point()
        ):
            return  # tokens in fewer bits stay so: their dtype is part of the fingerprint
        try:
            object.__setattr__(self, name, id_tensor(value, name))
        except ModelError as error:
            raise ConfigError(str(error)) from None

    def _check_mask(self) -> None:
        try:
            padding = Padding.of(self.attention_mask, self.tokens)
        except ModelError as error:
            raise ConfigError(str(error)) from None
        object.__setattr__(self, "attention_mask", padding.mask)
        if self.query is not None:
            query = (self.query.cpu() % self.tokens.shape[1])[:, None]
            if not bool(padding.mask.gather(1, query).all()):
                raise ConfigError(
                    f"query must be tokens of the prompts, got padding, {self.query.tolist()}: leave it out "
                    "for the last token of each"
                )

    def batches(self, size: int | None = None) -> Iterator[Batch]:
        """The prompts in batches of at most `size`; padded ones by length, without their padding."""
        count = size or len(self)
        length = self.tokens.shape[1]
        query = None if self.query is None else self.query.cpu()
        if self.attention_mask is None:
            rows = torch.arange(len(self))
            at = torch.full((len(self),), -1) if query is None else query
            for start in range(0, len(self), count):
                one = slice(start, start + count)
                yield Batch(rows[one], self.tokens[one], at[one])
            return
        padding = Padding.of(self.attention_mask, self.tokens)
        at = padding.stop - 1 if query is None else query % length
        for part in padding.parts:
            tokens = self.tokens[part.of(self.tokens)]
            places = (at - padding.start)[part.rows]
            for start in range(0, len(tokens), count):
                one = slice(start, start + count)
                yield Batch(part.rows[one], tokens[one], places[one])

    def _check_set(self, name: str, given: Tensor | None) -> None:
        if given is None:
            return
        if given.ndim == 2 and len(given) != len(self):
            raise ConfigError(
                f"{name} must have a row for each of {len(self)} prompts, got {tuple(given.shape)}: pass "
                "one row without the batch axis where all share a set"
            )
        alone = (given.expand(len(self), -1) == self.answer.to(given.device)[:, None]).all(1)
        if bool(alone.any()):
            raise ConfigError(
                f"{name} must hold a token other than the right answer, got none for "
                f"{int(alone.sum())} of {len(self)} examples (first: {int(alone.nonzero()[0])})"
            )

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits: those of a task in the order of SPLITS, others in order of appearance."""
        names = tuple(dict.fromkeys(self.split))
        return tuple(sorted(names, key=SPLITS.index)) if set(names) <= set(SPLITS) else names

    def check_vocabulary(self, d_vocab: int, d_vocab_out: int | None = None) -> None:
        """Requires that every id is a token of the model; answers are ids of its outputs.

        Raises:
            ConfigError: an id is not.
        """
        for name in ("tokens", "answer", "candidates", "rivals", "other_answer"):
            value = getattr(self, name)
            count = d_vocab if name == "tokens" or d_vocab_out is None else d_vocab_out
            if value is not None and int(value.max()) >= count:
                raise ConfigError(
                    f"{name} must be token ids in 0..{count - 1}, got {int(value.max())}: the model has "
                    f"{count} tokens"
                )

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that identify everything but the labels."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        named = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        text = "\n".join(self.split).encode()
        return fingerprint_of({**named, "split": torch.tensor(np.frombuffer(text, np.uint8).copy())})


def task_examples(task: FactRecallTask, noisy: bool = False, seed: int = 0, draws: int = 1) -> Examples:
    """Every triple of a task: once without noise, or `draws` times with noise drawn from a seed.

    Candidates are all answers, rivals are the answers of the right answer's own set (facts, or the
    implications of the asked relation), and the other answer is the same subject's answer to the other
    relation; there is none if a fact has several implications.
    """
    index = np.arange(len(task.triples))
    if noisy:
        check_draws(task, task.triples, draws)
        index = np.repeat(index, draws)
        return triple_examples(task, index, noisy_examples(task, task.triples.select(index), seed)[0])
    return triple_examples(task, index)


def triple_examples(
    task: FactRecallTask, triple: Int[np.ndarray, " batch"], tokens: Int[Tensor, "batch pos"] | None = None
) -> Examples:
    """Chosen triples of a task, by index; tokens None is [subject, relation, EOS]."""
    chosen = task.triples.select(triple)
    if tokens is None:
        eos = np.full(len(chosen), task.eos_token)
        columns = [chosen.subject, task.n_subjects + chosen.relation, eos]
        tokens = torch.as_tensor(np.stack(columns, axis=1))
    sets = [np.flatnonzero(task.answer_relation == k) for k in range(task.n_relations)]
    rivals = np.tile(chosen.answer[:, None], (1, max(map(len, sets))))  # padding: the answer itself
    for relation, members in enumerate(sets):
        rivals[chosen.relation == relation, : len(members)] = members
    other = None
    if task.implied_relations == 1:
        other = task.right_answer[1 - chosen.relation, chosen.subject]

    def ids(answers: Any) -> Tensor:
        return torch.as_tensor(answers + task.n_inputs)

    return Examples(
        tokens,
        ids(chosen.answer),
        tuple(SPLITS[k] for k in chosen.split),
        ids(np.arange(task.n_answers)),
        ids(rivals),
        None if other is None else ids(other),
        labels=task.labels,
    )
