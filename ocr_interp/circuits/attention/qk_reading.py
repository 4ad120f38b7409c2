"""W_Q and W_K of one head read out of any hooked model, between tokens or positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.circuits.attention.positions import Positions
from ocr_interp.errors import ModelError
from ocr_interp.hooked.adapted.projections import adapters_of, query_key_projections
from ocr_interp.hooked.asked.decoder import check_decoder
from ocr_interp.hooked.asked.scores import LayerScores, ask_scores
from ocr_interp.hooked.asked.wrapped import require_wrapped
from ocr_interp.hooked.heads import check_architecture
from ocr_interp.hooked.norms import read_norm, working_dtype
from ocr_interp.hooked.probes import embedded_rows, probe_head
from ocr_interp.hooked.protocol import (
    HookedModel,
    attention_of,
    block_of,
    check_head,
    check_layer,
    model_name,
)
from ocr_interp.hooked.provenance import Provenance, check_finite, fingerprint_of
from ocr_interp.hooked.tokens.token_set import TokenSet


@dataclass(frozen=True)
class QKFactors:
    """The QK circuit of a head between two sets, as factors; see `QKCircuit`."""

    left: Float[np.ndarray, "query d_head"]
    right: Float[np.ndarray, "d_head key"]
    query_bias: Float[np.ndarray, " query"]
    key_bias: Float[np.ndarray, " key"]
    constant: float
    provenance: Provenance


def qk_weights(model: HookedModel, layer: int, head: int) -> dict[str, Tensor]:
    """W_Q, W_K, their biases and ln1 of a head, by name."""
    W_Q, W_K, b_Q, b_K = query_key_projections(model, check_layer(model, layer))
    head, heads = check_head(model, head), int(model.cfg.n_heads)
    if heads % len(W_K) or heads % len(W_Q):
        raise ModelError(
            f"W_Q and W_K must have {heads} heads or groups of them, got {tuple(W_Q.shape)} and "
            f"{tuple(W_K.shape)}"
        )
    found = {}
    for name, W, b in (("Q", W_Q, b_Q), ("K", W_K, b_K)):
        entry = head // (heads // len(W))
        found[f"W_{name}"] = W[entry]
        found |= {} if b is None else {f"b_{name}": b[entry]}
    norm = read_norm(getattr(block_of(model, layer), "ln1", None), model.cfg, found["W_Q"].dtype)
    found |= {"ln1.gain": norm.gain} if norm.gain is not None else {}
    found |= {"ln1.bias": norm.bias} if norm.bias is not None else {}
    return found | adapters_of(attention_of(model, layer), ("qkv", "q", "k"))


def read_qk(
    model: HookedModel,
    layer: int,
    head: int,
    queries: tuple[TokenSet, Positions | None],
    keys: tuple[TokenSet, Positions | None],
    *,
    distance: int | None,
) -> QKFactors:
    """The factors of a head between two sets, computed in float64 on the device of the model.

    Raises:
        ModelError: see `QKCircuit.from_model`.
        WeightsError: NaN or infinite weights.
    """
    check_architecture(model, check_layer(model, layer))
    check_decoder(model)
    raw = qk_weights(model, layer, head)
    name = model_name(model)
    check_finite(raw, f"{name}, layer {layer}, head {head}")
    asked = ask_scores(model, [layer])[layer]
    asked.require("the QK circuit")
    require_wrapped(model, "the QK circuit")
    _check_distance(asked, distance, queries[1], keys[1])
    dtype, device = working_dtype(raw["W_Q"].device), raw["W_Q"].device
    norm = read_norm(getattr(block_of(model, layer), "ln1", None), model.cfg, dtype)
    W_Q, W_K = raw["W_Q"].to(dtype), raw["W_K"].to(dtype)
    constant = [x.new_zeros(x.shape[1]) for x in (W_Q, W_K)]
    for k, (letter, W) in enumerate((("Q", W_Q), ("K", W_K))):
        if norm.bias is not None:
            constant[k] = constant[k] + norm.bias @ W
        if f"b_{letter}" in raw:
            constant[k] = constant[k] + raw[f"b_{letter}"].to(dtype)
    q, k = (
        norm.reads(_rows(model, layer, head, *side).to(device, dtype)) @ W
        for side, W in ((queries, W_Q), (keys, W_K))
    )
    bias_q, bias_k = constant
    if asked.rotary is not None and distance is not None:
        q, bias_q = (asked.rotary.turned(x, distance) for x in (q, bias_q))
        k, bias_k = (asked.rotary.turned(x, 0) for x in (k, bias_k))
    q, bias_q = asked.factor * q, asked.factor * bias_q
    heads = int(model.cfg.n_heads)
    kv_heads = int(getattr(model.cfg, "n_key_value_heads", None) or heads)
    provenance = Provenance(
        model=name,
        step=None,
        seed=None,
        fingerprint=fingerprint_of(raw),
        layer=layer,
        head=head,
        kv_head=head // (heads // kv_heads),
        dtype=str(raw["W_Q"].dtype).removeprefix("torch."),
        folded=_folded(asked, norm.exists, distance),
        flags=_flags(model, layer, asked, queries[1] is None and keys[1] is None),
        checks=(asked.step.describe(),),
    )
    return QKFactors(
        left=_array(q),
        right=_array(k.mT),
        query_bias=_array(q @ bias_k),
        key_bias=_array(k @ bias_q),
        constant=float(bias_q @ bias_k),
        provenance=provenance,
    )


def _rows(
    model: HookedModel, layer: int, head: int, tokens: TokenSet, positions: Positions | None
) -> Float[Tensor, "token d_model"]:
    """What enters the stream for tokens or positions."""
    if positions is not None:
        return positions.rows(model)
    embedded = embedded_rows(model, probe_head(model, layer, head), tokens.ids)
    rows = torch.as_tensor(tokens.ids, device=model.W_E.device)
    return model.W_E.detach()[rows] if embedded is None else embedded


def _check_distance(asked: LayerScores, distance: int | None, *positions: Positions | None) -> None:
    if asked.rotary is not None and distance is None:
        raise ModelError(
            "scores of a model with rotary embeddings depend on how far apart the tokens stand, got no "
            "distance: pass distance=, how many positions the key stands before the query (0: the same)"
        )
    if asked.rotary is None and distance is not None:
        raise ModelError(
            f"distance is for rotary embeddings, got {distance} for a model that turns no queries: leave it "
            "out" + ("" if asked.distance_bias else ", or pass Positions as queries and keys")
        )
    if asked.rotary is not None and any(positions):
        raise ModelError(
            "Positions need a model that adds an embedding of positions, got one with rotary embeddings: "
            "pass tokens and distance="
        )


def _folded(asked: LayerScores, normed: bool, distance: int | None) -> tuple[str, ...]:
    said = [f"scores are {asked.factor:.6g} times q · k, as measured: folded into left"]
    if normed:
        said.append("ln1: centring and gain folded into W_Q and W_K; its scale at both positions frozen at 1")
    if distance is not None:
        said.append(f"rotary embeddings: the key stands {distance} positions before the query")
    said.append("b_Q, b_K and the bias of ln1 are not in W but in query_bias, key_bias and constant")
    return tuple(said)


def _flags(model: HookedModel, layer: int, asked: LayerScores, tokens_only: bool) -> tuple[str, ...]:
    said = []
    if layer > 0:
        said.append("direct path only: embedding to this head, without what earlier layers write")
    if asked.distance_bias:
        said.append("a bias that depends on the distance alone (ALiBi or the like) is left out")
    positional = getattr(model.cfg, "positional_embedding_type", "standard")
    if tokens_only and positional == "standard":
        said.append("position embeddings, which the head reads too, are left out: pass Positions for them")
    return tuple(said)


def _array(tensor: Tensor) -> Float[np.ndarray, "..."]:
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float64)
