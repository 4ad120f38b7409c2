"""A model under study: its examples, the pools of its random controls, and what identifies them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ocr_interp.ablation.examples import Examples, task_examples
from ocr_interp.errors import ConfigError
from ocr_interp.hooked.padding import check_unpadded
from ocr_interp.hooked.protocol import check_model
from ocr_interp.hooked.provenance import check_finite, fingerprint_of
from ocr_interp.storage.digests import digest_of
from ocr_interp.training.run import Snapshot


@dataclass(frozen=True)
class StudiedModel:
    """A model with the examples that it is measured on and the pools of its random controls."""

    model: Any
    examples: Callable[[int], Examples]
    fingerprint: str
    step: int | None
    inputs: Sequence[int]
    outputs: Sequence[int]
    length: int


def examples_by_seed(model: Any, examples: Examples | None, eval_draws: int) -> Callable[[int], Examples]:
    """Seed -> the examples that a model is measured on."""
    if examples is not None:
        is_labelled = examples.labels is not None or not isinstance(model, Snapshot)
        given = examples if is_labelled else replace(examples, labels=model.task.labels)
        return lambda seed: given
    if not isinstance(model, Snapshot):
        check_model(model)
        raise ConfigError(
            f"a study of a {type(model).__name__} needs examples, got none: pass examples=Examples(tokens, "
            "answer, candidates=...)"
        )
    return lambda seed: task_examples(model.task, has_noise(model), seed, eval_draws)


def studied_model(model: Any, given: Examples | None, eval_draws: int, options: str) -> StudiedModel:
    """The model with its examples and fingerprint; checks weights and ids."""
    examples = examples_by_seed(model, given, eval_draws)
    is_run = isinstance(model, Snapshot)
    hooked = check_model(model.model if is_run else model)
    weights = model.weights.tensors() if is_run else _tensors(hooked)
    said = f"{eval_draws} {options}"
    if is_run:
        check_finite(weights, f"the run at step {model.step}")
        said += f" {model.config.task.to_dict()} {model.config.model} step {model.step} {has_noise(model)}"
    else:
        cfg = hooked.cfg
        said += f" {type(hooked).__name__} {cfg.n_layers} {cfg.n_heads} {cfg.d_head}"
    said += "" if given is None else given.fingerprint
    fingerprint = digest_of(f"{said} {fingerprint_of(weights)}", 16)
    if given is None:
        task = model.task
        length = task.seq_len if has_noise(model) else 3
        pools = range(task.n_inputs), task.answer_tokens, length
    else:
        given.check_vocabulary(int(hooked.W_E.shape[0]), int(hooked.W_U.shape[1]))
        if given.attention_mask is None:
            check_unpadded(hooked, given.tokens, "tokens", given.query)
        outputs = given.answer if given.candidates is None else given.candidates
        pools = ids_up_to_query(given).unique().tolist(), outputs.unique().tolist(), _shortest(given)
    return StudiedModel(hooked, examples, fingerprint, model.step if is_run else None, *pools)


def ids_up_to_query(examples: Examples) -> Int[Tensor, " token"]:
    """All ids of the prompts up to their queries."""
    found = []
    for batch in examples.batches():
        length = batch.tokens.shape[1]
        last = (batch.query % length).to(batch.tokens.device)
        found.append(batch.tokens[torch.arange(length, device=last.device) <= last[:, None]])
    return torch.cat(found)


def _shortest(examples: Examples) -> int:
    """Tokens of the shortest prompt: positions below it are in all of them."""
    return min(batch.tokens.shape[1] for batch in examples.batches())


def _tensors(model: Any) -> dict[str, Tensor]:
    """All parameters and buffers of a model; parameters must be finite."""
    check_finite({n: p for n, p in model.named_parameters() if p.is_floating_point()}, type(model).__name__)
    return {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}


def has_noise(run: Snapshot) -> bool:
    """Whether a run is measured on noisy sequences, as it was trained."""
    return run.config.has_noise
