"""How a user's model is run: in eval mode, on which token ids, and with no key-value cache before them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from operator import is_
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.padding import Padding, begins_with_padding, pad_token
from ocr_interp.hooked.protocol import HookedModel

PADDED = (
    "prompts must not begin with padding, got the padding of the model's tokenizer: pass attention_mask= to "
    "`ablated` and to the model, 1 at tokens of prompts and 0 at padding (all 1 if that token is meant)"
)
MASKED = (
    "the model was run with an attention_mask that leaves positions out: pass the same attention_mask= to "
    "`ablated`, so that positions and means leave them out too"
)
NOT_MASKED = (
    "prompts that are padded on the left were run without attention_mask: pass it to the model too, "
    "model(tokens, attention_mask=mask)"
)


def modules_of(*roots: object) -> list[torch.nn.Module]:
    """All modules of those roots that are modules, each once, as `modules()` lists them one at a time."""
    found: dict[int, torch.nn.Module] = {}
    waiting = [root for root in reversed(roots) if isinstance(root, torch.nn.Module)]
    while waiting:
        module = waiting.pop()
        if id(module) not in found:
            found[id(module)] = module
            waiting += [each for each in reversed(list(module._modules.values())) if each is not None]
    return list(found.values())


@contextmanager
def eval_mode(model: object) -> Iterator[None]:
    """Every module of a model in eval mode while the block runs; each gets its own mode back afterwards.

    In training mode dropout would give another answer in each pass. Modes are set one by one: `train()` of
    some models does more than that, and one call could not restore modules that differ.
    """
    inner = getattr(model, "original_model", None)  # a bridge does not list all that is inside it
    trained = [each for each in modules_of(model, inner) if each.training]
    try:
        for each in trained:
            each.training = False
        yield
    finally:
        for each in trained:
            each.training = True


_own: ContextVar[bool] = ContextVar("own", default=False)


@contextmanager
def own_run(model: object) -> Iterator[None]:
    """Around every run of a user's model by this package: in eval mode, on prompts whose padding is known.

    What modules remember of the longest prompt so far is put back: transformer-lens keeps ALiBi's biases, and
    models that attend both ways then answer otherwise to shorter prompts.
    """
    token = _own.set(True)
    were = [(vars(each), vars(each).copy()) for each in modules_of(model)]
    try:
        with eval_mode(model):
            yield
    finally:
        _own.reset(token)
        for kept, was in were:
            if kept.keys() != was.keys() or not all(map(is_, kept.values(), was.values())):
                _put_back(kept, was)


def _put_back(kept: dict[str, Any], was: dict[str, Any]) -> None:
    """Plain tensors among attributes, neither parameters nor buffers, and places kept for them."""
    for name, value in was.items():
        if (value is None or isinstance(value, Tensor)) and kept.get(name) is not value:
            kept[name] = value


class TokenReader:
    """The token ids of the batch that the model is being run on, and its padding.

    Attributes:
        given: the ids, if they were given.
        padding: the padding, if a mask was given.
        output_labels: labels of the logits, if they were given.
    """

    def __init__(self, given: Int[Tensor, "batch pos"] | None, padding: Padding | None = None) -> None:
        self.given, self.padding = given, padding
        self.output_labels: Sequence[str] | None = None
        self.entered: list[Tensor] = []
        self._unsaid: dict[str, Tensor] = {}

    def note(self, what: str, found: Tensor) -> None:
        """Remembers what will be refused at the end; stays on the device, so that no pass waits for it.

        Of runs by the user alone: in those of this package the padding has been looked at.
        """
        if _own.get():
            return
        self._unsaid[what] = self._unsaid[what] | found if what in self._unsaid else found

    def check_padding(self) -> None:
        """Requires that no forward pass was padded otherwise than was said.

        Raises:
            ModelError: one that was, with what to pass.
        """
        for what, found in self._unsaid.items():
            if bool(found):
                raise ModelError(what)

    @property
    def longest(self) -> int:
        """Tokens of the batch given, or of what entered the model last; 0 for neither."""
        if self.given is not None:
            return int(self.given.shape[1])
        return max((int(each.shape[1]) for each in self.entered), default=0)

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
def reading_tokens(
    model: HookedModel, given: Int[Tensor, "batch pos"] | None, padding: Padding | None = None
) -> Iterator[TokenReader]:
    """Reads the ids that enter the embedding of the model while the block runs, and refuses caches.

    Padding that was not said, or not said to the model, is noted for `TokenReader.check_padding`.

    Raises:
        ModelError: in the forward pass, one that continues a key-value cache. Its activations hold the
            newest positions alone and its keys all of them, so positions, tokens and paths of a spec would
            not mean the same as in a run over the whole sequence.
    """
    reader = TokenReader(given, padding)
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
                if pad is not None and reader.padding is None and value.shape[1] > 1:
                    reader.note(PADDED, begins_with_padding(value.detach(), *pad))
                return

    def compare(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        mask = kwargs.get("attention_mask")
        is_mask = isinstance(mask, Tensor) and mask.ndim == 2
        if reader.padding is None and is_mask:
            reader.note(MASKED, (mask == 0).any())
        if reader.padding is not None and not is_mask and bool(reader.padding.start.any()):
            reader.note(NOT_MASKED, torch.tensor(True))

    pad = pad_token(model)
    inner = getattr(model, "original_model", model)  # a bridge does not always run through itself
    if isinstance(inner, torch.nn.Module):
        yield inner, compare

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
    """Requires that an argument of a block is no cache that holds positions already."""
    of_lens = hasattr(value, "past_keys")  # transformer_lens; others are of transformers
    past = int(value.past_keys.shape[1]) if of_lens else _positions_held(value, layer)
    if past:
        raise ModelError(
            f"an intervention needs the whole sequence in one forward pass, got one that continues a cache "
            f"of {past} positions: pass use_past_kv_cache=False to generate (use_cache=False in "
            "transformers), or run the model on all tokens without a cache"
        )


def _positions_held(cache: Any, layer: int) -> int:
    """How many positions a cache of transformers holds; 1 where state-space layers hold a state of any.

    Each question is refused (ValueError) for layers of the other kind, so both are asked.
    """
    for name in ("get_seq_length", "has_previous_state"):
        asked = getattr(cache, name, None)
        try:
            found = asked(layer) if callable(asked) else asked
        except ValueError:
            continue
        if isinstance(found, int | Tensor) and int(found):
            return int(found)
    return 0
