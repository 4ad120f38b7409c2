"""What an intervention is: a frozen spec that binds to a model, and the base of those at one site."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from ocr_interp.ablation.sites import Site
from ocr_interp.hooked.passes import TokenReader
from ocr_interp.hooked.protocol import HookedModel

_of_reference: ContextVar[bool] = ContextVar("of_reference", default=False)


@contextmanager
def reference_run() -> Iterator[None]:
    """Around the run of a spec's own reference: what edits the model then has not fired by that."""
    token = _of_reference.set(True)
    try:
        yield
    finally:
        _of_reference.reset(token)


@dataclass
class Bound:
    """A spec on a model: what is attached where, and whether it acted.

    Attributes:
        what: the spec in words.
        hooks: hook names with functions (activation, hook) -> new activation or None.
    """

    what: str
    hooks: tuple[tuple[str, Callable[..., Any]], ...] = ()
    _chosen: Tensor | None = field(default=None, repr=False)

    def note(self, chosen: Bool[Tensor, "..."]) -> None:
        """Remembers whether anything was chosen; stays on the device, so that no pass waits for it.

        The run of another spec's reference does not count.
        """
        if _of_reference.get():
            return
        found = chosen.any()
        self._chosen = found if self._chosen is None else self._chosen | found

    @property
    def fired(self) -> bool:
        """Whether a forward pass was changed."""
        return self._chosen is not None and bool(self._chosen)


@runtime_checkable
class Intervention(Protocol):
    """What `ablated` takes."""

    def describe(self) -> str:
        """One phrase, the same for the same spec; studies are resumed by it."""
        ...

    def bind(self, model: HookedModel, reader: TokenReader, labels: Sequence[str] | None) -> Bound:
        """Checks the spec against the model and gives its hooks; attaches nothing."""
        ...


@dataclass(frozen=True)
class AtSite(ABC):
    """A spec that replaces the chosen entries of one activation.

    Attributes:
        site: where.
    """

    site: Site

    def describe(self) -> str:
        """One phrase, the same for the same spec."""
        return f"{type(self).__name__} {self.site.describe()}"

    def bind(self, model: HookedModel, reader: TokenReader, labels: Sequence[str] | None) -> Bound:
        """Checks site and tokens and gives the hook."""
        wanted = self.site.check(model, labels)
        replacement = self._prepare(model, wanted)
        bound = Bound(self.describe())

        def edit(value: Tensor, hook: Any) -> Tensor:
            ids = None if wanted is None else reader.ids(self.site.length(value))
            mask = self.site.mask(value, ids, wanted)
            bound.note(mask)
            return torch.where(mask, replacement(value, mask).to(value.dtype), value)

        bound.hooks = ((self.site.hook, edit),)
        return bound

    @abstractmethod
    def _prepare(self, model: HookedModel, wanted: frozenset[int] | None) -> Callable[..., Tensor]:
        """What takes the place of an activation: a function of (value, mask)."""


def wide(value: Tensor) -> Tensor:
    """The same in float32 if it is half precision: sums and projections are not made in eight bits."""
    return value if value.dtype in (torch.float32, torch.float64) else value.float()


class Moved:
    """Tensors, moved to where an activation is once and not in every forward pass."""

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
    sha = hashlib.sha256()
    for tensor in tensors:
        if tensor is not None:
            flat = tensor.detach().cpu().contiguous().flatten()
            sha.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            sha.update(flat.view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:8]
