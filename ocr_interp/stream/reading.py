"""What all writers write in a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.hooked.alone import length_told
from ocr_interp.hooked.norms import wide
from ocr_interp.hooked.passes import own_run
from ocr_interp.stream.editing import remove_hook
from ocr_interp.stream.stream import Stream, logits_of


@contextmanager
def hooked(model: Any, hooks: Sequence[tuple[str, Callable[..., Any]]]) -> Iterator[None]:
    """Hooks on a model while the block runs, after those that are there."""
    known = model.hook_dict  # which a bridge makes anew at every call
    points = [(known[name], function) for name, function in hooks]
    try:
        for point, function in points:
            point.add_hook(function)
        yield
    finally:
        for point, function in points:
            remove_hook(point, function)


class Written:
    """What the writers write in the forward passes inside of `reading`, [batch, pos, writer, d_model]."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._parts: list[Tensor] = []

    @property
    def values(self) -> Float[Tensor, "batch pos writer d_model"]:
        """Of the last forward pass."""
        return torch.cat(self._parts, dim=2)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Reads forward passes while the block runs."""
        nodes, hook = self.stream.nodes, self.stream.hook

        def start(value: Tensor, hook: Any) -> None:
            self._parts = [wide(value.detach()).unsqueeze(2)]

        def heads(layer: int) -> Callable[[Tensor, Any], None]:
            return lambda z, hook: self._parts.append(self.stream.written(wide(z.detach()), layer))

        def mlp(value: Tensor, hook: Any) -> None:
            self._parts.append(wide(value.detach()).unsqueeze(2))

        hooks: list[tuple[str, Any]] = [(self.stream.first, start)]
        for layer in range(nodes.n_layers):
            hooks.append((hook("z", layer), heads(layer)))
            if nodes.mlps[layer]:
                hooks.append((hook("mlp_out", layer), mlp))
        with hooked(self.stream.model, hooks):
            yield


def read_writers(
    stream: Stream, tokens: Int[Tensor, "batch pos"]
) -> tuple[Float[Tensor, "batch pos writer d_model"], Float[Tensor, "batch pos token"]]:
    """What every writer writes for some prompts, and the logits; in eval mode and without gradients."""
    written = Written(stream)
    told = length_told(stream.model, lambda: tokens.shape[1])
    with torch.no_grad(), own_run(stream.model), written.reading(), told:
        model: Any = stream.model
        logits = logits_of(model(tokens.to(stream.device)))
    return written.values, logits
