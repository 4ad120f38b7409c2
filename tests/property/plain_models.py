"""Oracles: transformers and plain torch models whose heads, streams and logits are read and edited by hooks.

Nothing here knows a bridge or this package. A model answers one question, `run`: a forward pass in which one
layer's z may be edited, some keys' values may be taken away, the layer may start from a given stream, and the
outputs of MLPs may be held. All that the property test compares is derived from that in `truths`, so that no
weight is read and no multiplier, norm or adapter has to be known.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Edit = Callable[[Tensor], Tensor]
"""z [batch, query, head, d_head] -> z: sums of pattern x value, or (written) what W_O is applied to."""


@dataclass
class Seen:
    """What one forward pass came by: of the layer in question unless said otherwise."""

    logits: Tensor | None = None
    z: Tensor | None = None
    written: Tensor | None = None
    value: Tensor | None = None
    first_in: Tensor | None = None
    out: Tensor | None = None
    final_in: Tensor | None = None
    held: dict[int, Any] = field(default_factory=dict)


@dataclass
class Ask:
    """What is done in a forward pass."""

    layer: int = 0
    edit: Edit | None = None
    edit_written: Edit | None = None
    keep: Tensor | None = None
    start: Tensor | None = None
    hold: dict[int, Any] | None = None
    positions: bool = True


_asked: list[tuple["PlainTransformers", Ask, Seen]] = []


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> Any:
    """The family's own eager attention, watched: registered with transformers under the name "watched"."""
    import sys

    own = sys.modules[type(module).__module__].eager_attention_forward
    model, ask, seen = _asked[-1]
    if not any(module is each for each in model.layers[ask.layer].modules()):
        return own(module, query, key, value, attention_mask, **options)
    if ask.keep is not None:
        value = value * ask.keep[:, None, :, None].to(value)
    found, weights = own(module, query, key, value, attention_mask, **options)
    seen.value = value.repeat_interleave(query.shape[1] // value.shape[1], 1).transpose(1, 2)
    seen.z = found
    return (found if ask.edit is None else ask.edit(found.clone())), weights


def _register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    AttentionInterface.register("watched", _attention)
    AttentionMaskInterface.register("watched", eager_mask)


_OUT = ("o_proj", "out_proj", "dense", "c_proj", "wo")
_POSITIONS = ("wpe", "embed_positions")
_FINAL = (
    "ln_f",
    "final_layernorm",
    "final_layer_norm",
    "norm",
    "norm_f",
    "layer_norm",
    "embedding_norm",
    "final_norm",
)
_MLP = ("mlp", "feed_forward", "block_sparse_moe", "moe", "fc2", "ffn.down_proj", "shared_mlp")


class PlainTransformers:
    """A transformers model in float64 (float32 where it runs in no other), watched by torch's own hooks."""

    def __init__(self, model: Any, dtype: torch.dtype = torch.float64) -> None:
        self.model = model.to(dtype).eval()
        config = model.config
        count = getattr(config, "num_hidden_layers", None) or config.n_layer
        lists = [each for each in model.modules() if isinstance(each, torch.nn.ModuleList)]
        self.layers = next(each for each in lists if len(each) == count)
        owner = next(m for m in model.modules() if any(child is self.layers for child in m._modules.values()))
        norms = [owner._modules[name] for name in _FINAL if owner._modules.get(name) is not None]
        self.norm = norms[0] if norms else torch.nn.Identity()
        self.head = model.get_output_embeddings()
        self.heads = getattr(config, "num_attention_heads", None) or config.n_head
        self.modern = hasattr(__import__("sys").modules[type(model).__module__], "eager_attention_forward")
        if self.modern:
            _register()
            config._attn_implementation = "watched"

    def out_projection(self, layer: int) -> Any:
        """The module that all heads enter together, W_O; None in a layer without attention."""
        for name, module in self.layers[layer].named_modules():
            last = name.rpartition(".")[2]
            if last in _OUT and ("attention" in name or "attn" in name or name == "mixer.o_proj"):
                return module
        return None

    def run(self, tokens: Tensor, ask: Ask) -> Seen:
        """One forward pass."""
        seen = Seen()
        with contextlib.ExitStack() as stack, torch.no_grad():
            for module, before, hook in self._hooks(ask, seen):
                register = module.register_forward_pre_hook if before else module.register_forward_hook
                stack.callback(register(hook, with_kwargs=True).remove)
            if self.modern:
                _asked.append((self, ask, seen))
                stack.callback(_asked.pop)
            elif ask.keep is not None:
                stack.enter_context(self._values_kept(ask.layer, ask.keep))
            seen.logits = self.model(tokens, use_cache=False).logits
        return seen

    def _hooks(self, ask: Ask, seen: Seen) -> Any:
        def enter_first(module: Any, args: Any, kwargs: Any) -> None:
            seen.first_in = args[0] if args else kwargs["hidden_states"]

        def start(module: Any, args: Any, kwargs: Any) -> Any:
            if args:
                return (ask.start, *args[1:]), kwargs
            return args, kwargs | {"hidden_states": ask.start}

        def leave(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            seen.out = output[0] if isinstance(output, tuple) else output

        def last(module: Any, args: Any, kwargs: Any) -> None:
            seen.final_in = args[0]

        def zero(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
            return torch.zeros_like(output)

        def enter_out(module: Any, args: Any, kwargs: Any) -> Any:
            z = seen.written = args[0].unflatten(-1, (self.heads, -1))
            if not self.modern:
                seen.z = seen.value = z
            edit = ask.edit_written or (None if self.modern else ask.edit)
            return None if edit is None else ((edit(z.clone()).flatten(-2), *args[1:]), kwargs)

        yield self.layers[0], True, enter_first
        if ask.start is not None:
            yield self.layers[ask.layer], True, start
        yield self.layers[ask.layer], False, leave
        yield self.norm, True, last
        if not ask.positions:
            for name, module in self.model.named_modules():
                if name.rpartition(".")[2] in _POSITIONS:
                    yield module, False, zero
        if (out := self.out_projection(ask.layer)) is not None:
            yield out, True, enter_out
        for number, module in enumerate(self._mlp(ask.layer)):

            def held(module: Any, args: Any, kwargs: Any, output: Any, number: int = number) -> Any:
                # Copies: Falcon adds attention to what its MLP gave in place.
                seen.held[number] = _copied(output)
                return None if ask.hold is None else _copied(ask.hold[number])

            yield module, False, held

    def _mlp(self, layer: int) -> list[Any]:
        # Bloom's MLP adds the stream itself, so its last projection is held.
        bloom = type(self.model).__name__.startswith("Bloom")
        wanted = ("mlp.dense_4h_to_h",) if bloom else _MLP
        return [module for name, module in self.layers[layer].named_modules() if name in wanted]

    @contextlib.contextmanager
    def _values_kept(self, layer: int, keep: Tensor) -> Any:
        """Values of other keys taken away, in families whose attention cannot be replaced."""
        modules = list(self.layers[layer].modules())
        wide = keep[:, :, None]
        for module in modules:
            for name in ("_attn", "_split_heads", "_reshape"):
                inner = getattr(module, name, None)
                if inner is None or (name == "_split_heads" and hasattr(module, "_attn")):
                    continue
                module.__dict__[name] = _zeroing(inner, name, keep)
                try:
                    yield
                finally:
                    del module.__dict__[name]
                return
        joint = next((m for n, m in self.layers[layer].named_modules() if n.endswith("Wqkv")), None)
        single = next((m for n, m in self.layers[layer].named_modules() if n.endswith("v_proj")), None)

        def without(module: Any, args: Any, output: Tensor) -> Tensor:
            width = output.shape[-1] // (3 if module is joint else 1)
            output = output.clone()
            output[..., -width:] *= wide.to(output)
            return output

        handle = (joint or single).register_forward_hook(without)
        try:
            yield
        finally:
            handle.remove()


def _copied(output: Any) -> Any:
    return tuple(_copied(each) for each in output) if isinstance(output, tuple) else output.clone()


def _zeroing(inner: Any, name: str, keep: Tensor) -> Any:
    """A method of an attention that gets or gives query, key and value, with some keys' values zero."""

    def attend(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Any:
        return inner(query, key, value * keep[:, None, :, None].to(value), *rest, **options)

    def split(fused: Tensor) -> Any:
        query, key, value = inner(fused)
        of_keys = keep[:, None, :, None] if name == "_reshape" else keep[:, :, None, None]
        return query, key, value * of_keys.to(value)

    return attend if name == "_attn" else split
