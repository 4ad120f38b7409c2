"""A task as tensors: the noise-free population, every noise sequence, and seeded noisy batches.

A sequence has seq_len tokens: noise, the subject, the relation at some later place, and EOS last. EOS is the
query and there are no positions, so only the token counts of a sequence matter to a model. Every form below
gives the exact counts, and the sequences where a HookedTransformer needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.checks import check_count
from ocr_interp.devices import seeded_generator
from ocr_interp.errors import ConfigError
from ocr_interp.task import SPLITS, TRAINED_SPLITS, FactRecallTask, Triples

STEPS_PER_CHUNK = 32
"""Number of batches drawn at once. It is part of the data order: another value gives other batches."""

MOST_NUMBERS_PER_CHUNK = 2**27
"""Most numbers of the batches that are drawn at once, of which 8 bytes each are kept: 1 GiB."""

MOST_EVALUATED_NUMBERS = 2**30
"""Most numbers of the examples that a model is measured on, their logits included: 4 GiB in float32."""

_DRAWS, _PLACES = 0, 1  # random streams: the tokens of a sequence, and their places

MAX_EXHAUSTIVE_EXAMPLES = 2**22
"""Most examples that `exhaustive` builds; a training step on them takes about 10 GB in float32."""


@dataclass(frozen=True)
class Batch:
    """Examples as token counts, each with its right answer and its weight in the loss.

    Every sequence holds exactly one subject, so the subject's index replaces n_subjects columns of counts.

    Attributes:
        n_subjects: number of subjects of the task.
        subject: index of the sequence's one subject.
        context: count of each other input token in the sequence: relations, noise, EOS.
        target: token id of the right answer.
        weight: weight of the example in the loss; they sum to 1.
        split: index into SPLITS.
    """

    n_subjects: int
    subject: Int[Tensor, " batch"]
    context: Float[Tensor, "batch other_input"]
    target: Int[Tensor, " batch"]
    weight: Float[Tensor, " batch"]
    split: Int[Tensor, " batch"]

    def __len__(self) -> int:
        return len(self.target)

    @property
    def counts(self) -> Float[Tensor, "batch input"]:
        """Count of each input token in the sequence, subjects first."""
        subjects = torch.nn.functional.one_hot(self.subject, self.n_subjects).to(self.context)
        return torch.cat([subjects, self.context], dim=1)


@dataclass(frozen=True)
class Chunk:
    """Consecutive noisy batches of one run; attributes as in `Batch`, with a leading step axis.

    Attributes:
        subject, context, target: of the examples of every step.
        weight: of the examples, the same at every step.
    """

    subject: Int[Tensor, "step batch"]
    context: Float[Tensor, "step batch other_input"]
    target: Int[Tensor, "step batch"]
    weight: Float[Tensor, " batch"]


def population(task: FactRecallTask, splits: Sequence[str] = SPLITS, **tensor_options) -> Batch:
    """Every triple of the splits once and without noise: the sequence [subject, relation, EOS].

    Args:
        task: the task.
        splits: names from SPLITS; TRAINED_SPLITS is the training set of the theorems.
        tensor_options: dtype and device of the tensors.

    Returns: the batch, all weights equal.
    """
    triples = task.triples.of_split(*splits)
    return _as_batch(task, triples, np.zeros((len(triples), task.n_noise)), None, tensor_options)


def exhaustive(task: FactRecallTask, splits: Sequence[str] = SPLITS, **tensor_options) -> Batch:
    """Every triple with every multiset of noise tokens, weighted by its probability.

    The loss over this batch is the exact expectation of the loss over noisy sequences in which each
    triple is equally likely.

    Raises:
        ConfigError: the batch would have more than MAX_EXHAUSTIVE_EXAMPLES examples.
    """
    triples, n_draws = task.triples.of_split(*splits), task.seq_len - 3
    n_multisets = count_noise_multisets(task, len(triples))
    noise = np.array(
        [
            np.bincount(np.array(drawn, dtype=np.int64), minlength=task.n_noise)
            for drawn in combinations_with_replacement(range(task.n_noise), n_draws)
        ]
    ).reshape(n_multisets, task.n_noise)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n_draws + 1)))])
    probability = np.exp(log_factorial[n_draws] - log_factorial[noise].sum(1))
    probability /= max(task.n_noise, 1) ** n_draws
    repeated = triples.select(np.repeat(np.arange(len(triples)), n_multisets))
    weight = np.tile(probability, len(triples)) / len(triples)
    return _as_batch(task, repeated, np.tile(noise, (len(triples), 1)), weight, tensor_options)


def count_noise_multisets(task: FactRecallTask, n_triples: int) -> int:
    """Number of multisets of noise tokens that a sequence can hold.

    Raises:
        ConfigError: an exhaustive batch of n_triples triples would have more than MAX_EXHAUSTIVE_EXAMPLES
            examples.
    """
    n_draws = task.seq_len - 3
    if min(n_draws, task.n_noise - 1) > 64:  # at least 2**64 of them: the number itself would be a book
        raise ConfigError(
            f"exhaustive data allows at most {MAX_EXHAUSTIVE_EXAMPLES:,} examples, got more than 10**19: "
            "shorten seq_len, lower n_noise, or use data='noisy'"
        )
    n_multisets = comb(n_draws + task.n_noise - 1, n_draws) if n_draws else 1
    n_examples = n_multisets * n_triples
    if n_examples > MAX_EXHAUSTIVE_EXAMPLES:
        raise ConfigError(
            f"exhaustive data allows at most {MAX_EXHAUSTIVE_EXAMPLES:,} examples, got {n_examples:,} "
            f"({n_multisets:,} noise multisets x {n_triples} triples): shorten seq_len, lower n_noise, "
            "or use data='noisy'"
        )
    return n_multisets


def check_draws(task: FactRecallTask, triples: Triples, draws: int) -> None:
    """Requires a number of noisy examples per triple that a model can be measured on at once.

    Raises:
        ConfigError: the examples and their logits would have more than MOST_EVALUATED_NUMBERS numbers.
    """
    check_count("draws", draws, 1)
    of_one = task.d_vocab + task.seq_len * max(task.n_noise, 1)
    if len(triples) * draws * of_one > MOST_EVALUATED_NUMBERS:
        most = MOST_EVALUATED_NUMBERS // (of_one * max(len(triples), 1))
        raise ConfigError(
            f"{len(triples):,} triples of this task allow at most {most:,} draws each, got {draws:,}"
            + (": take a smaller task, or noise-free data" if most < 1 else "")
        )


def noisy_examples(
    task: FactRecallTask, triples: Triples, seed: int, **tensor_options
) -> tuple[Int[Tensor, "batch seq"], Batch]:
    """One noisy sequence for each given triple, as token ids and as counts."""
    generator = seeded_generator("cpu", seed, _DRAWS)
    noise = torch.randint(task.n_noise or 1, (len(triples), task.seq_len - 3), generator=generator)
    counts = (noise.unsqueeze(2) == torch.arange(task.n_noise)).sum(1).numpy()
    batch = _as_batch(task, triples, counts, None, tensor_options)
    tokens = _arrange(
        task,
        torch.as_tensor(triples.subject),
        torch.as_tensor(triples.relation) + task.n_subjects,
        noise + task.noise_tokens.start,
        seeded_generator("cpu", seed, _PLACES),
    )
    return tokens.to(batch.target.device), batch


class NoisyBatches:
    """The paper's training distribution: batch number `step` depends on (seed, step) alone.

    Every batch has equally many examples of each trained split that the task has, drawn with replacement.
    Noise tokens are drawn independently and uniformly. The subject's place is uniform among those that leave
    room for the relation, and the relation's place is uniform among those after the subject.

    Args:
        task: the task.
        batch_size: examples per batch; a multiple of the number of trained splits.
        seed: seed of the data order.
        device, dtype: of the tensors. The random generator is on the device, so another device draws other
            batches.

    Source: docs/theory.md §9: 16 tokens, 13 of them noise out of 5, batch 252.
    """

    def __init__(
        self,
        task: FactRecallTask,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.task, self.batch_size, self.seed = task, batch_size, seed
        self.device, self.dtype = torch.device(device), dtype
        trained = task.training_triples
        self._split_sizes = [int((trained.split == k).sum()) for k in range(len(TRAINED_SPLITS))]
        present = sum(size > 0 for size in self._split_sizes)
        check_count("batch_size", batch_size, 1)
        # Of a chunk: counts of all but the subjects, and the noise of every sequence.
        numbers = STEPS_PER_CHUNK * batch_size * (task.n_inputs - task.n_subjects + task.seq_len)
        if numbers > MOST_NUMBERS_PER_CHUNK:
            raise ConfigError(
                f"{STEPS_PER_CHUNK} batches, which are drawn at once, may have at most "
                f"{MOST_NUMBERS_PER_CHUNK:,} numbers, got {numbers:,}: lower batch_size, n_noise or seq_len"
            )
        if batch_size % present:
            raise ConfigError(
                f"batch_size must be a multiple of {present}, the number of trained splits of the task, "
                f"got {batch_size}: try {max(1, batch_size // present) * present}"
            )
        order = np.argsort(trained.split, kind="stable")
        self._subject, self._relation_token, self._target, self._split = (
            torch.as_tensor(column[order], device=self.device)
            for column in (
                trained.subject,
                trained.relation + task.n_subjects,
                trained.answer + task.n_inputs,
                trained.split,
            )
        )
        self._per_split = batch_size // present
        self._weight = torch.full((batch_size,), 1.0 / batch_size, dtype=dtype, device=self.device)
        self._chunk_index = -1

    def batch(self, step: int) -> Batch:
        """Batch number `step` as token counts."""
        self._load_chunk(step)
        row = step % STEPS_PER_CHUNK
        return Batch(
            n_subjects=self.task.n_subjects,
            subject=self._subjects[row],
            context=self._contexts[row],
            target=self._targets[row],
            weight=self._weight,
            split=self._splits[row],
        )

    def tokens(self, step: int) -> Int[Tensor, "batch seq"]:
        """The sequences of batch number `step`; their counts are exactly those of `batch(step)`."""
        self._load_chunk(step)
        chosen, row = self._chosen[step % STEPS_PER_CHUNK], step % STEPS_PER_CHUNK
        places = seeded_generator(self.device, self.seed, _PLACES, step)
        return _arrange(
            self.task, self._subject[chosen], self._relation_token[chosen], self._noise[row], places
        )

    def chunk(self, step: int) -> Chunk:
        """All batches of the chunk that begins at `step`, a multiple of STEPS_PER_CHUNK."""
        assert step % STEPS_PER_CHUNK == 0
        self._load_chunk(step)
        return Chunk(self._subjects, self._contexts, self._targets, self._weight)

    def _load_chunk(self, step: int) -> None:
        """Draws the chunk that holds the step, unless it is the current one."""
        if step // STEPS_PER_CHUNK == self._chunk_index:
            return
        task, device = self.task, self.device
        self._chunk_index = step // STEPS_PER_CHUNK
        generator = seeded_generator(device, self.seed, _DRAWS, self._chunk_index)
        columns, first = [], 0
        for size in self._split_sizes:
            if size:
                shape = (STEPS_PER_CHUNK, self._per_split)
                columns.append(first + torch.randint(size, shape, generator=generator, device=device))
            first += size
        self._chosen = torch.cat(columns, dim=1)
        shape = (STEPS_PER_CHUNK, self.batch_size, task.seq_len - 3)
        first = task.noise_tokens.start
        noise_ids = first, first + max(task.n_noise, 1)
        self._noise = torch.randint(*noise_ids, shape, generator=generator, device=device)
        n_context = task.n_inputs - task.n_subjects
        contexts = torch.zeros(*shape[:2], n_context, dtype=self.dtype, device=device)
        one = torch.ones((), dtype=self.dtype, device=device)
        contexts.scatter_add_(2, self._noise - task.n_subjects, one.expand(shape))
        relation = self._relation_token[self._chosen] - task.n_subjects
        contexts.scatter_(2, relation.unsqueeze(2), 1.0)
        contexts[:, :, -1] = 1.0
        self._contexts, self._subjects = contexts, self._subject[self._chosen]
        self._targets, self._splits = self._target[self._chosen], self._split[self._chosen]


def token_counts(
    task: FactRecallTask, tokens: Int[Tensor, "batch seq"], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "batch input"]:
    """Count of each input token in each sequence.

    Raises:
        ConfigError: a sequence that holds an answer token, or that does not end with EOS.
    """
    if bool((tokens < 0).any()) or bool((tokens >= task.n_inputs).any()):
        raise ConfigError(f"tokens must be inputs, 0..{task.n_inputs - 1}: answers never stand in a sequence")
    if bool((tokens[:, -1] != task.eos_token).any()):
        raise ConfigError(f"every sequence must end with EOS (token {task.eos_token}), the query position")
    counts = torch.zeros(len(tokens), task.n_inputs, dtype=dtype, device=tokens.device)
    return counts.scatter_add_(1, tokens, torch.ones_like(tokens, dtype=dtype))


def _as_batch(task, triples: Triples, noise: np.ndarray, weight, tensor_options) -> Batch:
    """Triples and their noise counts as a batch; weights equal unless given."""
    n = len(triples)
    context = np.zeros((n, task.n_inputs - task.n_subjects))
    context[np.arange(n), triples.relation] = 1
    context[:, task.n_relations : -1] = noise
    context[:, -1] = 1
    device = tensor_options.get("device")
    dtype = tensor_options.get("dtype", torch.float32)
    weight = np.full(n, 1 / n) if weight is None and n else np.zeros(n) if weight is None else weight
    return Batch(
        n_subjects=task.n_subjects,
        subject=torch.as_tensor(triples.subject, device=device),
        context=torch.as_tensor(context, dtype=dtype, device=device),
        target=torch.as_tensor(triples.answer + task.n_inputs, device=device),
        weight=torch.as_tensor(weight, dtype=dtype, device=device),
        split=torch.as_tensor(triples.split, device=device),
    )


def _arrange(
    task: FactRecallTask,
    subject: Int[Tensor, " batch"],
    relation_token: Int[Tensor, " batch"],
    noise: Int[Tensor, "batch noise_place"],
    generator: torch.Generator,
) -> Int[Tensor, "batch seq"]:
    """Sequences with subject and relation at random places, noise in between, EOS last."""
    batch, device = len(subject), subject.device
    last = task.seq_len - 1
    subject_place = torch.randint(last - 1, (batch,), generator=generator, device=device)
    room = last - 1 - subject_place
    step = (torch.rand(batch, generator=generator, device=device) * room).long().clamp(max=room - 1)
    relation_place = subject_place + 1 + step
    place = torch.arange(task.seq_len, device=device).expand(batch, -1)
    is_subject, is_relation = place == subject_place[:, None], place == relation_place[:, None]
    is_noise = ~(is_subject | is_relation | (place == last))
    tokens = torch.full((batch, task.seq_len), task.eos_token, device=device)
    tokens[is_noise] = noise.flatten()
    tokens = torch.where(is_subject, subject[:, None], tokens)
    return torch.where(is_relation, relation_token[:, None], tokens)
