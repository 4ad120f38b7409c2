"""The metrics of an ablation study, by split, from the logits at the query."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.ablation.binding import digest
from ocr_interp.ablation.examples import Examples, triple_examples
from ocr_interp.errors import ConfigError, unknown_name
from ocr_interp.models.token_counts import cross_entropy
from ocr_interp.storage.digests import digest_of
from ocr_interp.task import FactRecallTask

METRICS = ("accuracy", "loss", "margin", "logit_difference", "other_answer_difference")
"""Measured for every split. In a fact-recall task the candidates are all answers, and the rivals are the
answers of the right answer's own set (facts or implications):

- accuracy: share of examples whose right answer beats all other candidates; a tie does not count;
- loss: mean cross-entropy over the whole vocabulary, nats;
- margin: smallest logit difference between the right answer and a rival;
- logit_difference: mean logit difference between the right answer and the mean of its rivals;
- other_answer_difference: smallest logit difference between the right answer and `Examples.other_answer`
  (the same subject's answer to the other relation).

NaN logits give NaN in each of them.
"""

Metric = Callable[[Tensor, Examples], Any]
"""A user's metric: (logits at the query [batch, vocabulary], examples) -> one value per example."""


def check_metrics(
    metrics: tuple[str, ...] | None,
    custom: Mapping[str, Metric],
    examples: Examples,
    reserved: tuple[str, ...],
) -> tuple[str, ...]:
    """The names of all metrics, built-in ones first; None is every built-in one that the examples allow.

    Raises:
        UnknownNameError: a name that is not in METRICS; the message lists close matches.
        ConfigError: other_answer_difference without other answers, or a custom name that is taken.
    """
    if metrics is None:
        metrics = METRICS if examples.other_answer is not None else METRICS[:-1]
    for name in metrics:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
    if METRICS[-1] in metrics and examples.other_answer is None:
        raise ConfigError(
            f"{METRICS[-1]} needs examples with other_answer, got none: leave it out, or pass it"
        )
    for name in custom:
        if name in (*METRICS, *reserved) or not name:
            raise ConfigError(f"a custom metric needs a name of its own, got {name!r}")
    return (*dict.fromkeys(metrics), *custom)


def measure(
    logits: Float[Tensor, "batch vocabulary"],
    examples: Examples,
    metrics: tuple[str, ...],
    custom: Mapping[str, Metric] | None = None,
) -> dict[str, dict[str, float]]:
    """The metrics of every split: {split: {metric: value}}. Custom metrics are averaged over a split.

    Args:
        logits: logits at the query of every example, over the whole vocabulary.
        examples: right answers, candidates and splits.
        metrics: names from METRICS or `custom`.
        custom: a user's metrics by name.
    """
    logits = logits.detach().double().cpu()
    values = _by_example(logits, examples)
    for name, function in (custom or {}).items():
        values[name] = _custom_values(name, function(logits, examples), len(examples))
    reduce = {"margin": np.min, "other_answer_difference": np.min}
    split = np.array(examples.split)
    return {
        name: {m: float(reduce.get(m, np.mean)(values[m][split == name])) for m in metrics}
        for name in examples.splits
    }


def split_metrics(
    task: FactRecallTask,
    logits: Float[Tensor, "batch vocabulary"],
    triple: Int[np.ndarray, " batch"],
    metrics: tuple[str, ...] = METRICS,
) -> dict[str, dict[str, float]]:
    """The metrics of some triples of a task, by index into task.triples, from logits at EOS."""
    examples = triple_examples(task, triple)
    return measure(logits, examples, check_metrics(metrics, {}, examples, ()))


def _by_example(logits: Float[Tensor, "batch vocabulary"], examples: Examples) -> dict[str, np.ndarray]:
    """Every built-in metric of every example, before it is reduced over a split."""
    answer = examples.answer.cpu()
    own = logits.gather(1, answer[:, None])
    candidates = _wrong(logits, answer, examples.candidates)
    rivals = candidates if examples.rivals is None else _wrong(logits, answer, examples.rivals)
    best = candidates.amax(1, keepdim=True)
    is_rival = ~rivals.isneginf()
    mean = torch.where(is_rival, rivals, 0).sum(1, keepdim=True) / is_rival.sum(1, keepdim=True)
    found = {
        "accuracy": torch.where((own - best).isnan(), torch.nan, (own > best).double()),
        "loss": cross_entropy(logits, answer).loss[:, None],
        "margin": own - rivals.amax(1, keepdim=True),
        "logit_difference": own - mean,
    }
    if examples.other_answer is not None:
        found["other_answer_difference"] = own - logits.gather(1, examples.other_answer.cpu()[:, None])
    return {name: value[:, 0].numpy() for name, value in found.items()}


def _wrong(logits: Tensor, answer: Int[Tensor, " batch"], given: Tensor | None) -> Float[Tensor, "batch k"]:
    """Logits of a set of tokens, with -inf at the right answer."""
    if given is None:
        return logits.scatter(1, answer[:, None], -torch.inf)
    ids = given.cpu().expand(len(logits), -1)
    return logits.gather(1, ids).masked_fill(ids == answer[:, None], -torch.inf)


def _custom_values(name: str, values: Any, count: int) -> np.ndarray:
    found = torch.as_tensor(values).detach().double().cpu().numpy()
    if found.shape != (count,):
        raise ConfigError(
            f"metric {name!r} must give a value for each of {count} examples, got {found.shape}"
        )
    return found


def identity_of(value: Any) -> str:
    """Text that identifies a custom metric: its code and bound values, without globals.

    An object that cannot be inspected is identified by its address in memory, so a study with it is not
    resumed in another process.
    """
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        parts = (value.__code__, value.__defaults__, value.__kwdefaults__, *cells)
    elif isinstance(value, CodeType):
        parts = (value.co_code.hex(), value.co_names, value.co_consts)
    elif isinstance(value, partial):
        parts = (value.func, value.args, value.keywords)
    elif isinstance(value, Mapping):
        parts = tuple(value.items())
    elif isinstance(value, set | frozenset):
        parts = tuple(sorted(value, key=repr))
    elif isinstance(value, tuple | list):
        parts = tuple(value)
    elif isinstance(value, Tensor | np.ndarray):
        return digest(torch.as_tensor(value))
    else:
        return repr(value)
    text = f"{type(value).__name__}({','.join(map(identity_of, parts))})"
    return digest_of(text, 16)
