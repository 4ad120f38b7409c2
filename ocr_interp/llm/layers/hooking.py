"""Modules that change what other modules of a model give, without taking their place.

They are kept together under one name of the model, so that all parameters of the model keep their names. The
hooks are bound methods: a deep copy of the model has hooks of its own copies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ocr_interp.errors import ModelError
from ocr_interp.llm.layers.tracing import first_tensor


def add_beside(model: nn.Module, name: str, modules: nn.Module) -> None:
    """Registers modules in a model under a name, on its device and in its precision.

    Raises:
        ModelError: the model has something under this name already.
    """
    if hasattr(model, name):
        raise ModelError(
            f"{type(model).__name__} has {name} already: wrap a fresh model, or go on with the one there is"
        )
    like = next(model.parameters())
    model.add_module(name, modules.to(device=like.device, dtype=like.dtype))


def changed_output(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A module's output with its first tensor changed.

    Raises:
        ModelError: an output that is neither a tensor nor a tuple or list that begins with one.
    """
    if isinstance(output, Tensor):
        return change(output)
    if type(output) in (tuple, list) and output and isinstance(output[0], Tensor):
        return type(output)([change(output[0]), *output[1:]])
    first = first_tensor(output)
    raise ModelError(
        f"an adapter needs a module that gives a tensor, or a tuple with one first, got a "
        f"{type(output).__name__}" + ("" if first is None else " with one inside")
    )
