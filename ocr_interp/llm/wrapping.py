"""The methods of fine-tuning for a training loop of one's own: wrap a model, save and load its update."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ocr_interp.checks import Option
from ocr_interp.errors import ModelError
from ocr_interp.llm.adapters import methods
from ocr_interp.llm.adapters.base import Attached
from ocr_interp.llm.layers.part_names import checked_parts
from ocr_interp.llm.models.unchanged import unchanged_if_refused
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.trainable import make_trainable
from ocr_interp.llm.training.update import put_update, read_update, require_fitting, write_update

_UPDATE = "ocr_interp_update"
"""Where a wrapped model says what it was wrapped with."""


def wrap(
    model: Any,
    method: str,
    *,
    train_parts: Sequence[str] = (),
    lora_rank: int = 8,
    lora_alpha: float = 16.0,
    seed: int = 0,
    **options: Option,
) -> Any:
    """Adds the update of a method to any causal language model of transformers.

    Only what is to be trained requires gradients afterwards:
    `torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)`.

    Args:
        model: the model, which is changed in place; after an error it is as it was.
        method: one of `llm.methods.names`.
        train_parts: as in `FinetuneConfig`.
        lora_rank, lora_alpha: of the methods that are made of LoRAs.
        seed: of the start of the update.
        options: of the method (`llm.methods[method].options`).

    Returns: the model, or a wrapper of it (peft's methods).

    Raises:
        ConfigError, UnknownNameError: a method, part or option that does not exist or is not allowed.
        ModelError: the method does not fit this model, or there is an update on it already.
    """
    recipe = FinetuneConfig(
        model=type(model).__name__,
        method=method,
        method_options=options,
        train_parts=checked_parts(train_parts),
        lora_rank=lora_rank,
        lora_alpha=lora_alpha,
        train_seed=seed,
    )
    with unchanged_if_refused(model):
        return _wrapped(model, recipe)


def save_update(model: Any, folder: str | Path) -> Path:
    """Writes the update of a wrapped model, without the model: safetensors and a JSON configuration.

    Raises:
        ModelError: a model that was not wrapped.
        RunError: a file cannot be written.
    """
    recipe, path = _attached(model).recipe, Path(folder)
    write_update(path, model, recipe, _stamp(recipe))
    return path


def load_update(model: Any, folder: str | Path) -> Any:
    """Adds a saved update to the model that it was trained on, or to a copy.

    Args:
        model: the model before fine-tuning, which is changed in place; after an error it is as it was.
        folder: of `save_update`, or the folder `adapter` of a run.

    Returns: the model, or a wrapper of it, as `wrap` gives it.

    Raises:
        RunError: no update there, or a damaged one.
        ModelError: the update is of another model: other shapes, or another weight that it does not replace;
            another precision is no other model.
    """
    recipe, tensors, base = read_update(Path(folder))
    with unchanged_if_refused(model):
        own = (
            {id(p): name for name, p in model.named_parameters()}
            if isinstance(model, torch.nn.Module)
            else {}
        )
        wrapped = _wrapped(model, recipe, tensors)
        require_fitting(wrapped, recipe, tensors)
        base.require(wrapped, own)
        put_update(wrapped, recipe, tensors)
        return wrapped


def merge_update(model: Any) -> Any:
    """The plain model with the update of a wrapped one in its weights.

    Raises:
        ModelError: a model that was not wrapped, or an update that is no change of weights; the message says
            what can be read instead.
    """
    attached = _attached(model)
    if attached.adapter.why_not_merged:
        raise ModelError(attached.refusal("merging"))
    plain = attached.adapter.merged(model)
    if hasattr(plain, _UPDATE):
        delattr(plain, _UPDATE)
    return plain


def _wrapped(model: Any, recipe: FinetuneConfig, saved: Mapping[str, Tensor] | None = None) -> Any:
    if hasattr(model, _UPDATE):
        raise ModelError(
            f"this {type(model).__name__} has an update already ({getattr(model, _UPDATE).recipe.method!r}): "
            "wrap a model without one, or merge it first (merge_update)"
        )
    if not isinstance(model, torch.nn.Module) or not hasattr(model, "get_output_embeddings"):
        raise ModelError(
            f"model must be a causal language model of transformers, got a {type(model).__name__}"
        )
    wrapped = make_trainable(model, recipe, saved)
    setattr(wrapped, _UPDATE, Attached(methods[recipe.method], recipe))
    return wrapped


def _attached(model: Any) -> Attached:
    found = getattr(model, _UPDATE, None)
    if not isinstance(found, Attached):
        raise ModelError(f"this {type(model).__name__} has no update: pass what llm.wrap(model, method) gave")
    return found


def _stamp(recipe: FinetuneConfig) -> str:
    return hashlib.sha256(LLMRunConfig(train=recipe).fingerprint.encode()).hexdigest()[:16]
