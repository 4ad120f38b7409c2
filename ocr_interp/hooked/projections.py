"""W_V, W_O and b_V of a layer as its projections apply them, unmerged adapters included."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ocr_interp.hooked.alone import by_itself
from ocr_interp.hooked.protocol import HookedModel, attention_of


def projections(model: HookedModel, layer: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """W_V [kv_head, d_model, d_head], W_O [head, d_head, d_model] and b_V of a layer.

    Where a projection has parameters beside its weight and bias (an adapter such as LoRA), its map is asked
    of it on unit vectors: W_0 + B A without merging. Whether the model runs it so is the probe's to say.

    Raises:
        ModelError: a layer without attention, or without W_V and W_O.
    """
    attention = attention_of(model, layer)
    W_V, W_O, b_V = attention.W_V.detach(), attention.W_O.detach(), getattr(attention, "b_V", None)
    b_V = b_V.detach() if isinstance(b_V, Tensor) else None
    parts = {part for part, _ in (name.split(".", 1) for name in adapters_of(attention))}
    if "v" in parts and W_V.ndim == 3:
        kv_heads, d_model, d_head = W_V.shape
        asked, offset = _asked(model, attention.v, d_model, W_V)
        if asked.shape[1] == kv_heads * d_head:
            W_V = asked.reshape(d_model, kv_heads, d_head).permute(1, 0, 2)
            b_V = b_V if not bool(offset.any()) else offset.reshape(kv_heads, d_head)
    if "o" in parts and W_O.ndim == 3:
        asked, _ = _asked(model, attention.o, W_O.shape[0] * W_O.shape[1], W_O)
        W_O = asked.reshape(W_O.shape)
    return W_V, W_O, b_V


def adapters_of(attention: Any) -> dict[str, Tensor]:
    """All parameters of those projections that have more than a weight and a bias, by part and name."""
    found = {}
    for part in ("qkv", "v", "o"):
        module = getattr(attention, part, None)
        if not isinstance(module, torch.nn.Module):
            continue
        own = dict(module.named_parameters())
        if sum(name.rpartition(".")[2] != "bias" for name in own) > 1:
            found |= {f"{part}.{name}": tensor.detach() for name, tensor in own.items()}
    return found


def _asked(model: HookedModel, module: Any, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix [width, out] and the offset [out] of an affine module, in its own dtype."""
    inner = getattr(module, "original_component", module)
    units = torch.eye(width, dtype=like.dtype, device=like.device)
    with torch.no_grad(), by_itself(model):
        offset = inner(torch.zeros_like(units[None, :1]))[0, 0]
        return inner(units[None])[0] - offset, offset
