"""The token ids of a forward pass, and a check that it does not continue a key-value cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.protocol import HookedModel


class TokenReader:
    """The token ids of the batch that the model is being run on."""

    def __init__(self, given: Int[Tensor, "batch pos"] | None) -> None:
        self.given = given
        self.entered: list[Tensor] = []

    def ids(self, length: int) -> Int[Tensor, "batch pos"]:
        """The ids given, or those that entered the embedding for sequences of this length.

        Generation without a cache embeds the prompt once and then token by token, and runs the whole sequence
        again; so the ids since the last fresh sequence are joined.

        Raises:
            ModelError: there are no ids, or ids of another length.
        """
        if self.given is not None:
            return self.given
        if not self.entered:
            raise ModelError(
                "an intervention on tokens needs the token ids of the batch, got a model run on embeddings "
                "or from an inner layer: pass tokens= to `ablated`"
            )
        last = self.entered[-1]
        if last.shape[1] == length or sum(each.shape[1] for each in self.entered) != length:
            self.entered = [last]
        elif len({len(each) for each in self.entered}) == 1:
            self.entered = [torch.cat(self.entered, dim=1)]
        return self.entered[-1]


@contextmanager
def reading_tokens(model: HookedModel, given: Int[Tensor, "batch pos"] | None) -> Iterator[TokenReader]:
    """Reads the ids that enter the embedding of the model while the block runs, and refuses caches.

    Raises:
        ModelError: in the forward pass, one that continues a key-value cache. Its activations hold the
            newest positions alone and its keys all of them, so positions, tokens and paths of a spec would
            not mean the same as in a run over the whole sequence.
    """
    reader = TokenReader(given)
    with ExitStack() as stack:
        for module, hook in _watchers(model, reader):
            handle = module.register_forward_pre_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        yield reader


def _watchers(model: HookedModel, reader: TokenReader) -> Iterator[tuple[torch.nn.Module, Any]]:
    """Modules of the model, each with the hook to call before its forward."""

    def forget(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        reader.entered = []

    def remember(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and not value.is_floating_point() and value.ndim == 2:
                reader.entered.append(value.detach())
                return

    embed: Any = getattr(model, "embed", None)
    if reader.given is None and isinstance(embed, torch.nn.Module):
        yield embed, remember
        if isinstance(model, torch.nn.Module):
            yield model, forget
    for layer, block in enumerate(getattr(model, "blocks", ())):

        def refuse(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], layer: int = layer) -> None:
            for value in (*args, *kwargs.values()):
                _check_no_past(value, layer)

        yield block, refuse


def _check_no_past(value: Any, layer: int) -> None:
    """Requires that an argument of a block is not a cache that holds positions."""
    past = 0
    if hasattr(value, "past_keys"):  # transformer_lens
        past = int(value.past_keys.shape[1])
    elif hasattr(value, "get_seq_length"):  # transformers
        past = int(value.get_seq_length(layer))
    elif getattr(value, "has_previous_state", False) is True:  # transformers, state-space layers
        past = 1
    if past:
        raise ModelError(
            f"an intervention needs the whole sequence in one forward pass, got one that continues a cache "
            f"of {past} positions: pass use_past_kv_cache=False to generate (use_cache=False in "
            "transformers), or run the model on all tokens without a cache"
        )
