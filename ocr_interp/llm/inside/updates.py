"""The change of every head's OV circuit in fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ocr_interp.errors import ModelError, WeightsError
from ocr_interp.hooked.adapted.projections import projections
from ocr_interp.hooked.asked.decoder import check_decoder
from ocr_interp.hooked.protocol import attention_of, check_model
from ocr_interp.linalg.spectrum import factored_svd, norms_of
from ocr_interp.llm.models.bridge import as_bridge, viewed
from ocr_interp.llm.models.loading import LanguageModel
from ocr_interp.storage.plain import plain


@dataclass(frozen=True)
class OVWeights:
    """W_V and W_O of every head, as in TransformerLens, without folded norms. A copy, on the CPU.

    Layers without attention (in hybrids) have NaN.

    Attributes:
        W_V: one per key-value head, which several heads may share.
        W_O: one per head.
    """

    W_V: Float[np.ndarray, "layer kv_head d_model d_head"] = field(repr=False)
    W_O: Float[np.ndarray, "layer head d_head d_model"] = field(repr=False)

    def factors(self, layer: int, head: int) -> tuple[np.ndarray, np.ndarray]:
        """W_V [d_model, d_head] and W_O [d_head, d_model] of a head, float64."""
        shared = self.W_O.shape[1] // self.W_V.shape[1]
        return self.W_V[layer, head // shared].astype(float), self.W_O[layer, head].astype(float)


@dataclass(frozen=True)
class OVUpdate:
    """The change of every head's W_V W_O; NaN in layers without attention.

    Attributes:
        relative: ‖ΔW_OV‖_F / ‖W_OV‖_F, W_OV before fine-tuning.
        nuclear_to_frobenius: ‖ΔW_OV‖_* / ‖ΔW_OV‖_F; 1 for rank one, √r for r equal singular values.
        effective_rank: exp of the entropy of the singular values' shares.
        spectral_share: largest singular value over the sum of all.
    """

    relative: Float[np.ndarray, "layer head"] = field(repr=False)
    nuclear_to_frobenius: Float[np.ndarray, "layer head"] = field(repr=False)
    effective_rank: Float[np.ndarray, "layer head"] = field(repr=False)
    spectral_share: Float[np.ndarray, "layer head"] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, four significant digits, NaN as None."""
        return {
            name: plain(getattr(self, name), 4)
            for name in ("relative", "nuclear_to_frobenius", "effective_rank", "spectral_share")
        }

    def heads(self, first_layer: int = 0) -> tuple[tuple[int, int], ...]:
        """(layer, head) of all heads from `first_layer` on, in order of layers."""
        layers, heads = np.nonzero(~np.isnan(self.relative))
        places = zip(layers.tolist(), heads.tolist(), strict=True)
        return tuple(place for place in places if place[0] >= first_layer)

    def most_changed(self, count: int, first_layer: int = 0) -> tuple[tuple[int, int], ...]:
        """(layer, head) of the heads with the largest relative change from `first_layer` on, in order."""
        order = np.argsort(-self.relative[first_layer:], axis=None, kind="stable")[:count]
        layers, heads = np.unravel_index(order, self.relative[first_layer:].shape)
        return tuple((int(k) + first_layer, int(h)) for k, h in zip(layers, heads, strict=True))


def ov_weights(lm: LanguageModel) -> OVWeights:
    """Reads W_V and W_O of every head through a bridge of the model, which is left as it is.

    Raises:
        ModelError: a model that has no bridge, no layer with W_V and W_O, or layers with heads of several
            sizes; or LoRA that is not merged.
    """
    if hasattr(lm.model, "merge_and_unload"):
        raise ModelError("merge LoRA's update first (merge_and_unload): W_V would lack it")
    cpu = torch.device("cpu")
    try:
        bridge = as_bridge(viewed(lm, cpu), cpu)
        layers = attention_layers(bridge)
        read = {layer: projections(bridge, layer)[:2] for layer in layers}
    except ModelError as error:
        raise ModelError(
            f"inspect compares W_V W_O of heads, which {lm.name} does not show: {error}. What can still be "
            "asked: its answers (`ocr-interp llm evaluate`)"
        ) from None
    shapes = {(W_V.shape, W_O.shape) for W_V, W_O in read.values()}
    if len(shapes) > 1 or any(len(shape) != 3 for shape in next(iter(shapes))):
        raise ModelError(
            f"inspect compares heads of one size in all layers of {lm.name}, got W_V and W_O of the shapes "
            f"{sorted((tuple(v), tuple(o)) for v, o in shapes)}: ask its answers (`ocr-interp llm evaluate`)"
        )
    like = read[layers[0]]
    nothing = tuple(np.full(tuple(weight.shape), np.nan, np.float32) for weight in like)
    both = [
        tuple(map(_numpy, read[layer])) if layer in read else nothing
        for layer in range(int(bridge.cfg.n_layers))
    ]
    return OVWeights(*(np.stack(weights) for weights in zip(*both, strict=True)))


def attention_layers(bridge: Any) -> tuple[int, ...]:
    """The layers of a bridge that have attention with W_V and W_O.

    Raises:
        ModelError: none has (says why the last one has not), or a model that is not decoder-only.
    """
    found, why = [], None
    check_decoder(check_model(bridge))
    for layer in range(int(bridge.cfg.n_layers)):
        try:
            attention_of(bridge, layer)
        except ModelError as error:
            why = error
        else:
            found.append(layer)
    if not found:
        raise why or ModelError("the model has no layers")
    return tuple(found)


def _numpy(weight: torch.Tensor) -> np.ndarray:
    return weight.float().cpu().numpy().copy()


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
        if np.isnan(before.W_O[layer]).all():
            found[:, layer] = np.nan
            continue
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
