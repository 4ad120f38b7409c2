"""The change of every head's OV circuit in fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ocr_interp.errors import ModelError, WeightsError
from ocr_interp.linalg.spectrum import factored_svd, norms_of


@dataclass(frozen=True)
class OVWeights:
    """W_V and W_O of every head, as in TransformerLens, without folded norms. A copy, on the CPU.

    Attributes:
        W_V: one per key-value head, which several heads may share.
        W_O: one per head.
    """

    W_V: Float[np.ndarray, "layer kv_head d_model d_head"]
    W_O: Float[np.ndarray, "layer head d_head d_model"]

    def factors(self, layer: int, head: int) -> tuple[np.ndarray, np.ndarray]:
        """W_V [d_model, d_head] and W_O [d_head, d_model] of a head, float64."""
        shared = self.W_O.shape[1] // self.W_V.shape[1]
        return self.W_V[layer, head // shared].astype(float), self.W_O[layer, head].astype(float)


@dataclass(frozen=True)
class OVUpdate:
    """The change of every head's W_V W_O.

    Attributes:
        relative: ‖ΔW_OV‖_F / ‖W_OV‖_F, W_OV before fine-tuning.
        nuclear_to_frobenius: ‖ΔW_OV‖_* / ‖ΔW_OV‖_F; 1 for rank one, √r for r equal singular values.
        effective_rank: exp of the entropy of the singular values' shares.
        spectral_share: largest singular value over the sum of all.
    """

    relative: Float[np.ndarray, "layer head"]
    nuclear_to_frobenius: Float[np.ndarray, "layer head"]
    effective_rank: Float[np.ndarray, "layer head"]
    spectral_share: Float[np.ndarray, "layer head"]

    def to_dict(self) -> dict[str, list[list[float]]]:
        """Plain lists, four significant digits."""
        return {
            name: [[float(f"{value:.4g}") for value in row] for row in getattr(self, name)]
            for name in ("relative", "nuclear_to_frobenius", "effective_rank", "spectral_share")
        }

    def most_changed(self, count: int, first_layer: int = 0) -> tuple[tuple[int, int], ...]:
        """(layer, head) of the heads with the largest relative change from `first_layer` on, in order."""
        order = np.argsort(-self.relative[first_layer:], axis=None, kind="stable")[:count]
        layers, heads = np.unravel_index(order, self.relative[first_layer:].shape)
        return tuple((int(k) + first_layer, int(h)) for k, h in zip(layers, heads, strict=True))


def ov_weights(model: Any) -> OVWeights:
    """Reads W_V and W_O from a transformers model with Llama's layers, as all five families have.

    Raises:
        ModelError: a model whose layers have no self_attn.v_proj and o_proj, or LoRA that is not merged.
    """
    if hasattr(model, "merge_and_unload"):
        raise ModelError("merge LoRA's update first (merge_and_unload): W_V would lack it")
    layers = getattr(getattr(model, "model", None), "layers", None)
    if layers is None or not all(hasattr(getattr(x, "self_attn", None), "v_proj") for x in layers):
        raise ModelError(
            f"{type(model).__name__} has no model.layers[i].self_attn.v_proj, from which OV circuits are "
            "read: `inspect` takes models with Llama's layers (Llama, Mistral, Qwen2, Gemma, OLMo); "
            "`ocr-interp llm evaluate` measures any; from Python, TransformerBridge reads more families"
        )
    heads = model.config.get_text_config().num_attention_heads
    values = [_numpy(layer.self_attn.v_proj.weight) for layer in layers]  # [kv_head * d_head, d_model]
    outs = [_numpy(layer.self_attn.o_proj.weight) for layer in layers]  # [d_model, head * d_head]
    d_model, d_head = outs[0].shape[0], outs[0].shape[1] // heads
    return OVWeights(
        W_V=np.stack([v.reshape(-1, d_head, d_model).transpose(0, 2, 1) for v in values]),
        W_O=np.stack([o.T.reshape(heads, d_head, d_model) for o in outs]),
    )


def _numpy(weight: Any) -> np.ndarray:
    return weight.detach().float().cpu().numpy().copy()


def ov_update(before: OVWeights, after: OVWeights) -> OVUpdate:
    """Compares two states of a model. The change of W_V W_O has rank at most 2 d_head and is never formed.

    Raises:
        WeightsError: the shapes of the two states differ.
    """
    if before.W_V.shape != after.W_V.shape or before.W_O.shape != after.W_O.shape:
        raise WeightsError(
            f"both states must be of one model, got W_V {before.W_V.shape} and {after.W_V.shape}"
        )
    n_layers, n_heads = before.W_O.shape[:2]
    found = np.zeros((4, n_layers, n_heads))
    for layer in range(n_layers):
        for head in range(n_heads):
            V0, O0 = before.factors(layer, head)
            V1, O1 = after.factors(layer, head)
            # V1 O1 - V0 O0 = (V1 - V0) O1 + V0 (O1 - O0): no difference of large products.
            change = norms_of(factored_svd(np.hstack([V1 - V0, V0]), np.vstack([O1, O1 - O0]))[1])
            size = norms_of(factored_svd(V0, O0)[1]).frobenius
            if change.frobenius:
                found[:, layer, head] = (
                    change.frobenius / size,
                    change.nuclear / change.frobenius,
                    change.effective_rank,
                    change.spectral / change.nuclear,
                )
    return OVUpdate(*found)
