"""One attention head read out of any hooked model: factors with norm gains folded in, and the biases.

The attention of a layer reads norm(x) = (x − mean) / scale · gain + bias (RMSNorm: no mean, no bias), and
the logits read the final norm likewise. Means and gains are linear and are folded into the factors; the
scales depend on the whole prompt and are frozen at 1, so that a contribution inside a prompt is
W[token, answer] · pattern / (ln1 scale at the token · final scale at the query). A model whose gains are
folded in already gives the same W; one whose W_U is centred too (a bridge in compatibility mode) gives
rows that differ by a constant, which cancels in logit differences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.protocol import HookedModel, attention_of, block_of, check_head, check_layer
from ocr_interp.hooked.provenance import Provenance, check_finite, fingerprint_of


@dataclass(frozen=True)
class Norm:
    """The linear part of a norm, on the device of the model, in the requested dtype.

    Attributes:
        gain: multiplies each dimension; None if there is none (or it is folded in the model already).
        bias: added after it; None if there is none.
        centred: whether the mean over dimensions is taken out first (LayerNorm).
        exists: False for a model without norms.
    """

    gain: Float[Tensor, " d_model"] | None
    bias: Float[Tensor, " d_model"] | None
    centred: bool
    exists: bool

    def reads(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """x through the norm at scale 1, without its bias."""
        x = x - x.mean(-1, keepdim=True) if self.centred else x
        return x if self.gain is None else x * self.gain


@dataclass(frozen=True)
class HeadFactors:
    """The OV circuit of a head between two token sets, as factors; W = left @ right.

    Attributes:
        left: W_E through ln1 and W_V.
        right: W_O through the final norm and W_U.
        bias: what the head writes to the logits per unit of attention, for any token: b_V and the bias of
            ln1, through W_O, the final norm and W_U.
        provenance: what was read and folded.
    """

    left: Float[Tensor, "input d_head"]
    right: Float[Tensor, "d_head output"]
    bias: Float[Tensor, " output"]
    provenance: Provenance


def working_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on devices that have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def read_norm(module: Any, cfg: Any, dtype: torch.dtype) -> Norm:
    """The gain, bias and centring of a norm of a HookedTransformer or a TransformerBridge."""
    name = type(module).__name__
    if module is None or name == "Identity":
        return Norm(None, None, centred=False, exists=False)
    bridged = "Bridge" in name
    # A bridge's norms each say of which kind they are; its configuration is true of most of them.
    rms = "RMS" in name or (bridged and bool(getattr(module, "uses_rms_norm", cfg.uses_rms_norm)))
    gain = _parameter(module, ("w", "weight"))
    bias = _parameter(module, ("b", "bias"))
    if gain is not None:
        # Gemma stores gain − 1 in Hugging Face's weights; HookedTransformers have it added already.
        offset = 1.0 if bridged and getattr(cfg, "rmsnorm_uses_offset", False) else 0.0
        gain = gain.detach().to(dtype) + offset
    norm = Norm(gain, None if bias is None else bias.detach().to(dtype), centred=not rms, exists=True)
    inner = getattr(module, "original_component", None)
    if gain is None or inner is None or not _runs_inner_norm(module, cfg) or not gain.isfinite().all():
        return norm  # non-finite weights are reported by name later
    return _as_computed(norm, inner, name)


def _runs_inner_norm(module: Any, cfg: Any) -> bool:
    """Whether a bridge's norm runs the norm inside it; else it computes gain and scale itself."""
    native = getattr(module, "use_native_layernorm_autograd", False)
    return bool(native or getattr(cfg, "layer_norm_folding", False))


def _as_computed(norm: Norm, inner: torch.nn.Module, name: str) -> Norm:
    """The norm, or the one with gain + 1 (stored so in Nemotron), whichever the module inside computes.

    Raises:
        ModelError: neither, so its weight is not a gain.
    """
    assert norm.gain is not None
    weight = next(inner.parameters())
    probe = 10 * torch.cos(torch.arange(1.0, len(norm.gain) + 1)).to(weight)
    with torch.no_grad():
        wanted = inner(probe[None, None])[0, 0].to(norm.gain)
    for offset in (0.0, 1.0):
        tried = dataclasses.replace(norm, gain=norm.gain + offset)
        x = probe.to(norm.gain)
        centred = x - x.mean() if norm.centred else x
        found = tried.reads(x) / centred.pow(2).mean().sqrt() + (0 if norm.bias is None else norm.bias)
        if torch.allclose(found, wanted, rtol=0.02, atol=0.02 * float(wanted.abs().max())):
            return tried
    raise ModelError(
        f"a norm must be (x - mean) / scale * gain + bias, got a {type(inner).__name__} in {name} that "
        "computes something else with its weight"
    )


def _parameter(module: Any, names: Sequence[str]) -> Tensor | None:
    for name in names:
        value = getattr(module, name, None)
        if isinstance(value, Tensor):
            return value
    return None


def check_architecture(model: HookedModel, layer: int) -> None:
    """Refuses what W_E W_V W_O W_U does not describe: layers without W_V and W_O, norms after attention.

    Raises:
        ModelError: the layer has no attention with W_V and W_O, normalises what attention writes, or norms
            come after every block.
    """
    attention_of(model, layer)
    cfg, block = model.cfg, block_of(model, layer)
    if getattr(cfg, "use_normalization_before_and_after", False) or _normed_after(block):
        raise ModelError(
            f"layer {layer} must write attention straight to the residual stream, got a norm after attention "
            "(as in Gemma-2 and OLMo-2): its scale depends on all heads, so one head has no OV circuit; "
            f"attribute activations at blocks.{layer}.hook_attn_out instead"
        )
    if getattr(cfg, "do_layer_norm_before", True) is False:
        raise ModelError(f"layer {layer} must have its norm before attention, got one after it: post-norm")
    normed = getattr(cfg, "normalization_type", None) is not None
    if normed and not hasattr(block, "ln1"):
        raise ModelError(
            f"layer {layer} must have its norm before attention (ln1), got none: post-norm models fail"
        )


def _normed_after(block: Any) -> bool:
    """Whether a norm stands between attention and the residual stream, by the names of a bridge's parts.

    OLMo-2 calls it ln1, since there is no other; `name` is what the model inside calls it.
    """
    if hasattr(block, "ln1_post"):
        return True
    parts = dict(block.named_children()) if hasattr(block, "named_children") else {}
    inside = {key: str(getattr(part, "name", "")) for key, part in parts.items()}
    first = inside.get("ln1", "")
    return "post" in first or "output" in first or any("post_self_attn" in name for name in inside.values())


def head_parameters(model: HookedModel, layer: int, head: int) -> tuple[dict[str, Tensor], int]:
    """The raw weights of a head by name (W_V, W_O, b_V if any), and the key-value head it uses.

    With grouped key-value heads, head h uses number h // (heads per group), as in transformers. A bridge's
    W_V has one entry per group, that of a HookedTransformer repeats it for every head.
    """
    layer, head = check_layer(model, layer), check_head(model, head)
    attention = attention_of(model, layer)
    W_V, W_O = attention.W_V.detach(), attention.W_O.detach()
    heads = int(model.cfg.n_heads)
    if W_V.ndim != 3 or W_O.ndim != 3 or W_O.shape[0] != heads or heads % W_V.shape[0]:
        raise ModelError(
            f"W_V must be [kv_head, d_model, d_head] and W_O [{heads}, d_head, d_model], got "
            f"{tuple(W_V.shape)} and {tuple(W_O.shape)}"
        )
    entry = head // (heads // W_V.shape[0])
    kv_head = head // (heads // int(getattr(model.cfg, "n_key_value_heads", None) or W_V.shape[0]))
    found = {"W_V": W_V[entry], "W_O": W_O[head]}
    b_V = getattr(attention, "b_V", None)
    if isinstance(b_V, Tensor):
        found["b_V"] = b_V.detach().reshape(W_V.shape[0], -1)[entry]
    return found, kv_head


def used_weights(
    model: HookedModel, layer: int, head: int, inputs: Sequence[int], outputs: Sequence[int]
) -> tuple[dict[str, Tensor], int]:
    """Every weight that the circuit between two token sets depends on, and the key-value head."""
    found, kv_head = head_parameters(model, layer, head)
    rows = torch.as_tensor(list(inputs), device=model.W_E.device)
    columns = torch.as_tensor(list(outputs), device=model.W_U.device)
    found["W_E"] = model.W_E.detach()[rows]
    found["W_U"] = model.W_U.detach()[:, columns]
    for name, module in (
        ("ln1", getattr(block_of(model, layer), "ln1", None)),
        ("ln_final", final_norm(model)),
    ):
        norm = read_norm(module, model.cfg, found["W_V"].dtype)
        found |= {f"{name}.gain": norm.gain} if norm.gain is not None else {}
        found |= {f"{name}.bias": norm.bias} if norm.bias is not None else {}
    return found, kv_head


def final_norm(model: HookedModel) -> Any:
    """The norm before the unembedding, or None."""
    return getattr(model, "ln_final", None)


def read_head(
    model: HookedModel, layer: int, head: int, inputs: Sequence[int], outputs: Sequence[int]
) -> HeadFactors:
    """The factors of a head between two token sets, computed in float64 on the device of the model.

    Nothing of the model is changed and no tensor of it is kept: the factors are new tensors.

    Raises:
        ModelError: an unknown layer or head, or an architecture with norms after attention.
        WeightsError: NaN or infinite weights among those that are read.
    """
    check_architecture(model, check_layer(model, layer))
    raw, kv_head = used_weights(model, layer, head, inputs, outputs)
    name = str(getattr(model.cfg, "model_name", type(model).__name__))
    check_finite(raw, f"{name}, layer {layer}, head {head}")
    device = raw["W_V"].device
    dtype = working_dtype(device)
    ln1 = read_norm(getattr(block_of(model, layer), "ln1", None), model.cfg, dtype)
    last = read_norm(final_norm(model), model.cfg, dtype)
    W_V, W_O = raw["W_V"].to(dtype), raw["W_O"].to(dtype)
    left = ln1.reads(raw["W_E"].to(device=device, dtype=dtype)) @ W_V
    W_U = raw["W_U"].to(device=device, dtype=dtype)
    right = last.reads(W_O) @ W_U
    constant = torch.zeros(W_V.shape[1], dtype=dtype, device=device)
    if ln1.bias is not None:
        constant = constant + ln1.bias @ W_V
    if "b_V" in raw:
        constant = constant + raw["b_V"].to(dtype)
    provenance = Provenance(
        model=name,
        step=None,
        seed=None,
        fingerprint=fingerprint_of(raw),
        layer=layer,
        head=head,
        kv_head=kv_head,
        dtype=str(raw["W_V"].dtype).removeprefix("torch."),
        folded=_folded(ln1, last, "b_V" in raw),
        flags=_flags(model, layer),
    )
    return HeadFactors(left, right, constant @ right, provenance)


def _folded(ln1: Norm, last: Norm, has_b_V: bool) -> tuple[str, ...]:
    said = []
    for label, norm, where in (("ln1", ln1, "W_V"), ("ln_final", last, "W_U")):
        if norm.exists:
            parts = (["centring"] if norm.centred else []) + (["gain"] if norm.gain is not None else [])
            what = f"{' and '.join(parts)} folded into {where}" if parts else "no gain to fold"
            said.append(f"{label}: {what}; its scale, which depends on the prompt, frozen at 1")
    if has_b_V or ln1.bias is not None:
        said.append("b_V and the bias of ln1 are not in W but in `bias`, a unit of attention")
    said.append("b_O, the bias of ln_final and b_U belong to no head and are left out")
    return tuple(said)


_MULTIPLIERS = {
    "embedding_multiplier": "it rescales what the first norm reads",
    "scale_emb": "it rescales what the first norm reads",
    "residual_multiplier": "it multiplies what every head writes",
    "scale_depth": "it rescales what every head writes",
    "logit_scale": "it multiplies all logits",
    "logits_scaling": "it divides all logits",
}
"""Multipliers outside of the weights (Granite, Cohere, MiniCPM), by their names in configurations."""


def _setting(model: HookedModel, name: str) -> float | None:
    """A multiplier of the bridge's configuration or of the model inside it; None if it is absent or 1."""
    inner = getattr(getattr(model, "original_model", None), "config", None)
    for cfg in (model.cfg, inner):
        value = getattr(cfg, name, None)
        if isinstance(value, int | float) and value != 1:
            return float(value)
    return None


def _flags(model: HookedModel, layer: int) -> tuple[str, ...]:
    cfg, said = model.cfg, []
    if int(cfg.n_layers) > 1 or not getattr(cfg, "attn_only", False):
        said.append("direct path only: embedding to this head to logits, without MLPs and other layers")
    if (getattr(cfg, "output_logits_soft_cap", None) or -1.0) > 0:
        said.append("the model caps its logits softly: W speaks of logits before the cap")
    if getattr(cfg, "post_embedding_ln", False) or hasattr(model, "embed_ln"):
        said.append("the norm after the embedding is left out")
    said += [
        f"{name} = {value:g} is left out: {what}"
        for name, what in _MULTIPLIERS.items()
        if (value := _setting(model, name)) is not None
    ]
    if getattr(cfg, "rmsnorm_uses_offset", False) or getattr(cfg, "scale_embedding", None):
        said.append("the scale of the embedding (Gemma: sqrt(d_model)) is left out; it rescales all of W")
    if getattr(cfg, "positional_embedding_type", "standard") == "standard":
        said.append("position embeddings, which attention reads too, are left out")
    return tuple(said)
