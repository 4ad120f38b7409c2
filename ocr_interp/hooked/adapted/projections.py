"""W_V, W_O and b_V of a layer as its projections apply them, unmerged adapters included."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.adapted.switches import switched_off
from ocr_interp.hooked.alone import by_itself, state_of
from ocr_interp.hooked.norms import working_dtype
from ocr_interp.hooked.protocol import HookedModel, attention_of

_KEPT = 4
_ASKED: list[tuple[weakref.ref[Any], Any, tuple[Tensor, Tensor]]] = []
"""The maps asked last, newest first: the heads of a layer share theirs."""


def projections(model: HookedModel, layer: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """W_V [kv_head, d_model, d_head], W_O [head, d_head, d_model] and b_V of a layer.

    A projection that is more than a weight and a bias (adapters such as LoRA, parametrisations, weights that
    a hook recomputes) is asked for its map on unit vectors, in double precision where it can be:
    W_0 + ΔW without merging. Whether the model runs it so is the probe's to say.

    Raises:
        ModelError: a layer without attention, or without W_V and W_O.
    """
    attention = attention_of(model, layer)
    W_V, W_O, b_V = attention.W_V.detach(), attention.W_O.detach(), getattr(attention, "b_V", None)
    b_V = b_V.detach() if isinstance(b_V, Tensor) else None
    if not _is_plain(_inside(attention, "v")) and W_V.ndim == 3:
        kv_heads, d_model, d_head = W_V.shape
        asked, offset = _asked(model, _inside(attention, "v"), d_model, W_V)
        if asked.shape[1] == kv_heads * d_head:
            W_V = asked.reshape(d_model, kv_heads, d_head).permute(1, 0, 2)
            b_V = b_V if not bool(offset.any()) else offset.reshape(kv_heads, d_head)
    if not _is_plain(_inside(attention, "o")) and W_O.ndim == 3:
        asked, _ = _asked(model, _inside(attention, "o"), W_O.shape[0] * W_O.shape[1], W_O)
        W_O = asked.reshape(W_O.shape)
    return W_V, W_O, b_V


def query_key_projections(
    model: HookedModel, layer: int
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """W_Q [head, d_model, d_head], W_K [kv_head, d_model, d_head], b_Q and b_K of a layer.

    Read as `projections` reads W_V.

    Raises:
        ModelError: a layer without attention, or without W_Q and W_K.
    """
    attention = attention_of(model, layer)
    found: list[Tensor] = []
    biases: list[Tensor | None] = []
    for part, letter in (("q", "Q"), ("k", "K")):
        W, b = getattr(attention, f"W_{letter}", None), getattr(attention, f"b_{letter}", None)
        if not isinstance(W, Tensor) or W.ndim != 3:
            raise ModelError(f"layer {layer} must have W_{letter} [head, d_model, d_head], got none")
        W, b = W.detach(), b.detach().reshape(len(W), -1) if isinstance(b, Tensor) else None
        inner = _inside(attention, part)
        if not _is_plain(inner):
            heads, d_model, d_head = W.shape
            asked, offset = _asked(model, inner, d_model, W)
            if asked.shape[1] == heads * d_head:
                W = asked.reshape(d_model, heads, d_head).permute(1, 0, 2)
                b = b if not bool(offset.any()) else offset.reshape(heads, d_head)
        found.append(W)
        biases.append(b)
    return found[0], found[1], biases[0], biases[1]


def adapters_of(attention: Any, parts: Sequence[str] = ("qkv", "v", "o")) -> dict[str, Tensor]:
    """All parameters of those projections that are more than a weight and a bias, by part and name.

    Not of those whose adapters are switched off: nothing depends on them then.
    """
    found = {}
    for part in parts:
        module = _inside(attention, part)
        if not _is_plain(module) and not switched_off(module):
            found |= {f"{part}.{name}": tensor.detach() for name, tensor in module.named_parameters()}
    return found


def _inside(attention: Any, part: str) -> Any:
    """The projection itself, out of what a bridge puts around it."""
    module = getattr(attention, part, None)
    return getattr(module, "original_component", module)


def _is_plain(module: Any) -> bool:
    """Whether a projection is nothing but a weight and a bias (or is not there, as in HookedTransformers)."""
    if not isinstance(module, torch.nn.Module):
        return True
    named = {name for name, _ in module.named_parameters()} | {name for name, _ in module.named_buffers()}
    return named <= {"weight", "bias"} and not module._forward_pre_hooks


def _asked(model: HookedModel, inner: torch.nn.Module, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix [width, out] and the offset [out] of an affine module."""
    state = (width, state_of(inner))
    for reference, known, found in _ASKED:
        if reference() is inner and known == state:
            return found
    with torch.no_grad(), by_itself(model):
        run, dtype = _in_double(inner, like)
        units = torch.eye(width, dtype=dtype, device=like.device)
        offset = run(torch.zeros_like(units[None, :1]))[0, 0]
        found = run(units[None])[0] - offset, offset
    _ASKED.insert(0, (weakref.ref(inner), (width, state_of(inner)), found))
    del _ASKED[_KEPT:]
    return found


def _in_double(inner: torch.nn.Module, like: Tensor) -> tuple[torch.nn.Module, torch.dtype]:
    """A copy in double precision, in which a small update is not lost in the rounding of W_0.

    Quantized weights, and those that cannot be copied (recomputed by a hook), are asked as they are.
    """
    tensors = [*inner.parameters(), *inner.buffers()]
    if any(not each.is_floating_point() and each.ndim > 1 for each in tensors):
        return inner, like.dtype
    wide = working_dtype(like.device)
    try:
        return copy.deepcopy(inner).to(wide).eval(), wide
    except RuntimeError:
        return inner, like.dtype
