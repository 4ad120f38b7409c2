"""Edits of what single edges carry, in one forward pass, with everything downstream computed anew.

The input of a reader r gains Σ over marked edges (w, r) of what the writer w is to have written there, minus
what it writes in this forward pass. Norms are computed of the changed input, for every reader by itself; no
other reader sees the change but through what r then writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.norms import wide
from ocr_interp.stream.nodes import PARTS
from ocr_interp.stream.stream import Stream

Instead = Callable[[slice, Tensor], Tensor]
"""(which writers, what they write [batch, pos, writer, d_model]) -> what is to be there instead."""


class EdgeEdit:
    """Edits of edges of a model, as hooks; a forward pass of the whole model is needed.

    Attributes:
        hooks: (hook name, function) for hook points.
        modules: (module, function of its arguments) for what is called before a module runs.
    """

    def __init__(
        self,
        stream: Stream,
        mask: Bool[np.ndarray, "*row writer reader"],
        instead: Instead,
    ) -> None:
        """Prepares the hooks.

        Args:
            stream: of the model.
            mask: which edges are edited; with a first axis, for each row of the batch.
            instead: what marked edges are to carry.
        """
        self.stream, self.nodes, self.instead = stream, stream.nodes, instead
        mask = np.asarray(mask, dtype=bool) & stream.nodes.allowed
        self._any: np.ndarray = mask if mask.ndim == 2 else np.any(mask, axis=0)
        self._mask, self._weights = torch.as_tensor(mask), {}
        self._changes: Tensor | None = None  # of all writers so far, [batch, writer, pos, d_model]
        self._noted = 0
        self._x: Tensor | None = None
        self.hooks, self.modules = list(self._hooks()), list(self._modules())

    # --- hooks --------------------------------------------------------------------------------------

    def _hooks(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        nodes, stream = self.nodes, self.stream
        writes, reads = (np.asarray(self._any.any(axis)) for axis in (-1, 0))
        for layer in range(nodes.n_layers):
            parts = [part for part in PARTS if reads[nodes.readers_of(layer, part)].any()]
            if parts or not layer:
                yield stream.hook("resid_pre", layer), self._keeping(layer, bool(writes[0]))
            for part in parts:
                yield stream.hook(part, layer), self._reading(layer, part)
            if writes[nodes.heads_of(layer)].any():
                yield stream.hook("z", layer), self._written_by_heads(layer)
            if nodes.mlps[layer] and writes[nodes.mlp_of(layer)]:
                yield stream.hook("mlp_out", layer), self._written_by(nodes.mlp_of(layer))
        if reads[-1]:
            yield stream.last, self._read_by_logits()

    def _modules(self) -> Iterator[tuple[torch.nn.Module, Callable[..., Any]]]:
        for layer in range(self.nodes.n_layers):
            if self.nodes.mlps[layer] and self._any[:, self.nodes.readers_of(layer, "mlp")].any():
                yield self.stream.ln2(layer), self._read_by_mlp(layer)

    def _keeping(self, layer: int, is_written: bool) -> Callable[[Tensor, Any], None]:
        def keep(value: Tensor, hook: Any) -> None:
            self._x = value
            if not layer:
                self._changes, self._noted = None, 0
                if is_written:
                    self._note(slice(0, 1), wide(value).unsqueeze(2))

        return keep

    def _written_by_heads(self, layer: int) -> Callable[[Tensor, Any], None]:
        return lambda z, hook: self._note(self.nodes.heads_of(layer), self.stream.written(wide(z), layer))

    def _written_by(self, writer: int) -> Callable[[Tensor, Any], None]:
        return lambda value, hook: self._note(slice(writer, writer + 1), wide(value).unsqueeze(2))

    def _note(self, which: slice, written: Tensor) -> None:
        change = (self.instead(which, written) - written).transpose(1, 2)
        if self._changes is None:
            batch, _, *rest = change.shape
            self._changes = change.new_zeros(batch, len(self.nodes.writers), *rest)
        if self._changes.requires_grad or change.requires_grad:
            self._changes = self._changes.slice_scatter(change, 1, which.start, which.stop)
        else:
            self._changes[:, which] = change
        self._noted = which.stop

    def _reading(self, layer: int, part: str) -> Callable[[Tensor, Any], Tensor]:
        place = self.nodes.readers_of(layer, part)
        chosen = np.flatnonzero(self._any[:, place].any(0))

        def read(value: Tensor, hook: Any) -> Tensor:
            x = wide(self._seen())
            weights = self.stream.layer(layer, x.dtype)
            difference = self.change(place.start + chosen, x)
            if weights.ln1.exists:
                normed = self.stream.normed
                before = normed(weights.ln1, x).unsqueeze(2)
                difference = normed(weights.ln1, x.unsqueeze(2) + difference) - before
            at = torch.as_tensor(chosen, device=value.device)
            added = torch.einsum("bpnd,nde->bpne", difference, weights.reads[part][at])
            edited = value.clone()
            edited[:, :, at] = (wide(value[:, :, at]) + added).to(value.dtype)
            return edited

        return read

    def _read_by_mlp(self, layer: int) -> Callable[..., Any]:
        place = self.nodes.readers_of(layer, "mlp")

        def read(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            x = args[0]
            self._seen()
            change = self.change(np.array([place.start]), wide(x))[:, :, 0]
            return ((wide(x) + change).to(x.dtype), *args[1:])

        return read

    def _read_by_logits(self) -> Callable[[Tensor, Any], Tensor]:
        def read(value: Tensor, hook: Any) -> Tensor:
            self._seen()
            change = self.change(np.array([len(self.nodes.readers) - 1]), wide(value))[:, :, 0]
            return (wide(value) + change).to(value.dtype)

        return read

    def _seen(self) -> Tensor:
        if self._x is None:
            raise ModelError(
                "edits of edges need a forward pass of the whole model, got one from an inner layer: run the "
                "model on token ids, without start_at_layer"
            )
        return self._x

    # --- sums over edges ----------------------------------------------------------------------------

    def change(self, readers: np.ndarray, like: Tensor) -> Float[Tensor, "batch pos reader d_model"]:
        """What some readers' inputs gain."""
        count = self._noted
        if self._changes is None or not self._any[:count, readers].any():
            return like.new_zeros(*like.shape[:2], len(readers), like.shape[-1])
        weights = self._weight(count, readers, self._changes)
        # One product for all writers; those that no edge is edited of have zeros.
        found = weights @ self._changes[:, :count].flatten(2)
        return found.unflatten(2, self._changes.shape[2:]).transpose(1, 2)

    def _weight(self, count: int, readers: np.ndarray, like: Tensor) -> Float[Tensor, "*row reader writer"]:
        key = count, int(readers[0]), len(readers)
        if key not in self._weights:
            self._weights[key] = self._mask[..., :count, :][..., torch.as_tensor(readers)].mT.to(like)
        return self._weights[key]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The edits, while the block runs; the model's own state is not changed."""
        known = self.stream.model.hook_dict  # which a bridge makes anew at every call
        points = [(known[name], function) for name, function in self.hooks]
        handles = [module.register_forward_pre_hook(function) for module, function in self.modules]
        try:
            for point, function in points:
                point.add_hook(function)
            yield
        finally:
            for handle in handles:
                handle.remove()
            for point, function in points:
                remove_hook(point, function)
            self._changes, self._noted, self._x = None, 0, None


def remove_hook(point: Any, function: Any) -> bool:
    """Removes one hook of a hook point and keeps the others in order; returns whether it was attached."""
    found = [each for each in point.fwd_hooks if each.user_hook is function]
    for handle in found:
        handle.hook.remove()
    point.fwd_hooks = [each for each in point.fwd_hooks if each.user_hook is not function]
    return bool(found)
