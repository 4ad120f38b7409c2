"""The residual stream of one model: its nodes, what its readers compute of it, and how to hook into it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.adapted.projections import projections
from ocr_interp.hooked.norms import Norm, read_norm
from ocr_interp.hooked.protocol import LAYER_HOOKS, HookedModel, attention_of, block_of
from ocr_interp.stream.nodes import PARTS, StreamNodes

PART_HOOKS = {part: "blocks.{layer}.attn.hook_" + part for part in PARTS}
MLP_OUT = "blocks.{layer}.hook_mlp_out"


@dataclass(frozen=True)
class Layer:
    """What a layer's heads read and write with, in the dtype of the stream (at least single precision).

    Attributes:
        reads: "q", "k" or "v" -> [entry, d_model, d_head]; an entry is a head or a group of heads.
        W_O: [head, d_head, d_model].
        ln1: the norm before the heads.
    """

    reads: dict[str, Float[Tensor, "entry d_model d_head"]]
    W_O: Float[Tensor, "head d_head d_model"]
    ln1: Norm


class Stream:
    """The residual stream of a model whose nodes are known; made by `checks.stream_of`, which checks it.

    Attributes:
        model: the model, which is left as it is.
        nodes: its writers, readers and edges.
        last: name of the hook that logits are read from.
    """

    def __init__(self, model: HookedModel, nodes: StreamNodes) -> None:
        self.model, self.nodes = model, nodes
        self.eps = float(getattr(model.cfg, "eps", 1e-5))
        self.last = LAYER_HOOKS["resid_post"].format(layer=nodes.n_layers - 1)
        self.first = LAYER_HOOKS["resid_pre"].format(layer=0)
        self.device = model.W_E.device
        self.layer = lru_cache(maxsize=None)(self._layer)

    def _layer(self, layer: int, dtype: torch.dtype) -> Layer:
        attention = attention_of(self.model, layer)
        W_V, W_O, _ = projections(self.model, layer)
        reads = {}
        for part, weight in (("q", attention.W_Q), ("k", attention.W_K), ("v", W_V)):
            count = self.nodes.n_heads if part == "q" else self.nodes.n_kv_heads
            if len(weight) % count:
                raise ModelError(f"layer {layer} must have {count} entries of {part}, got {len(weight)}")
            reads[part] = weight.detach()[:: len(weight) // count].to(dtype)
        norm = read_norm(getattr(block_of(self.model, layer), "ln1", None), self.model.cfg, dtype)
        return Layer(reads, W_O.detach().to(dtype), norm)

    def mlp_norm(self, layer: int, dtype: torch.dtype) -> Norm:
        """The norm before an MLP."""
        return read_norm(block_of(self.model, layer).ln2, self.model.cfg, dtype)

    def ln2(self, layer: int) -> torch.nn.Module:
        """The module whose input is what an MLP reads."""
        return block_of(self.model, layer).ln2

    def normed(self, norm: Norm, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """What the norm makes of the stream, its scale computed here; without its bias."""
        if not norm.exists:
            return x
        return norm.reads(x) / self._scale(norm, x)

    def _scale(self, norm: Norm, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True) if norm.centred else x
        return (centred.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()

    def pulled_back(
        self, norm: Norm, x: Float[Tensor, "*batch d_model"], gradient: Float[Tensor, "*more d_model"]
    ) -> Float[Tensor, "*more d_model"]:
        """The gradient by the stream of a gradient by the norm's output, at the stream x; axes before x's may
        be more."""
        if not norm.exists:
            return gradient
        weighted = gradient if norm.gain is None else gradient * norm.gain
        scale = self._scale(norm, x)
        unit = (x - x.mean(-1, keepdim=True) if norm.centred else x) / scale
        found = (weighted - unit * (weighted * unit).mean(-1, keepdim=True)) / scale
        return found - found.mean(-1, keepdim=True) if norm.centred else found

    def hook(self, kind: str, layer: int) -> str:
        """The name of a layer's hook: "resid_pre", "q", "k", "v", "z", "mlp_out" and others."""
        if kind in PART_HOOKS:
            return PART_HOOKS[kind].format(layer=layer)
        return (MLP_OUT if kind == "mlp_out" else LAYER_HOOKS[kind]).format(layer=layer)

    def written(self, z: Float[Tensor, "batch pos head d_head"], layer: int) -> Tensor:
        """What every head of a layer adds to the stream, [batch, pos, head, d_model], without b_O."""
        return torch.einsum("bphe,hed->bphd", z, self.layer(layer, z.dtype).W_O)


def logits_of(found: Any) -> Tensor:
    """The logits of a forward pass, also where a bridge returns an object."""
    return getattr(found, "logits", found)
