"""An intervention bound to a model: its hooks, and whether they fired."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from ocr_interp.storage.digests import digest_of_tensors

_of_reference: ContextVar[bool] = ContextVar("of_reference", default=False)


@contextmanager
def reference_run() -> Iterator[None]:
    """While the block runs a reference, interventions that change its forward pass do not count as fired."""
    token = _of_reference.set(True)
    try:
        yield
    finally:
        _of_reference.reset(token)


@dataclass
class Bound:
    """An intervention bound to a model: which function is attached to which hook, and whether it fired.

    Attributes:
        what: the intervention in words.
        hooks: hook names with functions (activation, hook) -> new activation or None.
        modules: modules with functions (module, arguments) -> new arguments or None, called before they run.
    """

    what: str
    hooks: tuple[tuple[str, Callable[..., Any]], ...] = ()
    modules: tuple[tuple[Any, Callable[..., Any]], ...] = ()
    _chosen: Tensor | None = field(default=None, repr=False)

    def note(self, chosen: Bool[Tensor, "..."]) -> None:
        """Records whether any entry was chosen; kept on the device, so that no forward pass waits for it.

        Forward passes of another intervention's reference do not count.
        """
        if _of_reference.get():
            return
        found = chosen.any()
        self._chosen = found if self._chosen is None else self._chosen | found

    @property
    def fired(self) -> bool:
        """Whether a forward pass was changed."""
        return self._chosen is not None and bool(self._chosen)


class Moved:
    """Tensors that are moved to the device of the activations once, not in every forward pass."""

    def __init__(self, *tensors: Tensor) -> None:
        self._given = tensors
        self._moved: dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]] = {}

    def like(self, value: Tensor) -> tuple[Tensor, ...]:
        """The tensors on the device and in the dtype of another."""
        key = (value.device, value.dtype)
        if key not in self._moved:
            self._moved[key] = tuple(tensor.to(value) for tensor in self._given)
        return self._moved[key]


def digest(*tensors: Tensor | None) -> str:
    """Eight hexadecimal digits of some tensors, for descriptions."""
    given = {f"{place:06d}": tensor for place, tensor in enumerate(tensors) if tensor is not None}

    def header(name: str, tensor: Tensor) -> str:  # kept as it is: descriptions in stored tables contain it
        return f"{tuple(tensor.shape)} {tensor.dtype}"

    return digest_of_tensors(given, 8, header=header)
