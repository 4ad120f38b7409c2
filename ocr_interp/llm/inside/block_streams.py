"""The residual stream after every block of a language model: read at places of prompts, and patched there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.llm.encoding import TokenBatch
from ocr_interp.llm.facts.fact_set import Example
from ocr_interp.llm.layers.hooking import changed_output
from ocr_interp.llm.layers.tracing import first_tensor
from ocr_interp.llm.measuring.measure import Questions
from ocr_interp.llm.models.forward import answer_logits


def streams_of(
    model: Any,
    blocks: tuple[str, ...],
    questions: Questions,
    places: Int[np.ndarray, "example place"],
    device: torch.device,
) -> Float[Tensor, "example layer place d_model"]:
    """The residual stream after every block at the places of every prompt.

    Raises:
        ModelError: a block that does not run once a pass.
    """
    number = {id(one.example): k for k, one in enumerate(questions.encoded)}
    found: dict[tuple[int, int], Tensor] = {}
    seen: dict[str, TokenBatch] = {}
    passes, calls = 0, dict.fromkeys(blocks, 0)

    def hook(layer: int, block: str) -> Callable[..., None]:
        def note(module: Any, args: Any, output: Any) -> None:
            calls[block] += 1
            stream = first_tensor(output)
            batch = seen["batch"]
            _refuse_other_shapes(stream, batch, block)
            assert stream is not None
            for row, example in enumerate(batch.examples):
                k = number[id(example)]
                found[k, layer] = stream[row, torch.from_numpy(places[k]).to(stream.device)]

        return note

    def answers(batch: TokenBatch) -> Tensor:
        nonlocal passes
        passes += 1
        seen["batch"] = batch
        return answer_logits(model, batch)

    with _hooks(model, {block: hook(layer, block) for layer, block in enumerate(blocks)}):
        questions.ask(answers, device)
    odd = [block for block, count in calls.items() if count != passes]
    if odd:
        raise ModelError(
            f"patching needs blocks that run once a pass, but {odd[0]} ran {calls[odd[0]]} times in {passes}"
        )
    rows = [
        torch.stack([found[k, layer] for layer in range(len(blocks))]) for k in range(len(questions.encoded))
    ]
    return torch.stack(rows)


def _refuse_other_shapes(stream: Tensor | None, batch: TokenBatch, block: str) -> None:
    if stream is None or stream.ndim != 3 or stream.shape[:2] != batch.tokens.shape:
        shape = None if stream is None else tuple(stream.shape)
        raise ModelError(
            f"patching needs [batch, position, d_model] after every block, but {block} gives {shape}"
        )


def patched_stream(
    model: Any,
    block: str,
    source: Float[Tensor, "example d_model"],
    position: Int[np.ndarray, " example"],
    examples: Sequence[Example],
    seen: Mapping[str, TokenBatch],
) -> Any:
    """While the block runs, the stream after a block of the model is the source's at one place."""
    number = {id(example): k for k, example in enumerate(examples)}

    def patch(module: Any, args: Any, output: Any) -> Any:
        own = [number[id(example)] for example in seen["batch"].examples]

        def changed(stream: Tensor) -> Tensor:
            stream = stream.clone()
            rows = torch.arange(len(own), device=stream.device)
            stream[rows, torch.from_numpy(position[own]).to(stream.device)] = source[own]
            return stream

        return changed_output(output, changed)

    return _hooks(model, {block: patch})


@contextmanager
def _hooks(model: Any, hooks: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    handles = []
    try:
        for path, hook in hooks.items():
            handles.append(model.get_submodule(path).register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()
