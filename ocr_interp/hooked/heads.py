"""One attention head read out of any hooked model: factors with norm gains folded in, and the biases.

The attention of a layer reads norm(x) = (x − mean) / scale · gain + bias (RMSNorm: no mean, no bias), and
the logits read the final norm likewise. Means and gains are linear and are folded into the factors; the
scales depend on the whole prompt and are frozen at 1, so that a contribution inside a prompt is
W[token, answer] · pattern / (ln1 scale at the token · final scale at the query). A model whose gains are
folded in already gives the same W; one whose W_U is centred too (a bridge in compatibility mode) gives
rows that differ by a constant, which cancels in logit differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.adapted.projections import adapters_of, projections
from ocr_interp.hooked.asked.decoder import check_decoder
from ocr_interp.hooked.asked.wrapped import compare_with_wrapped, require_wrapped
from ocr_interp.hooked.norms import Norm, final_norm, read_norm, working_dtype
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
from ocr_interp.hooked.steps import HeadProbe, Step


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


def check_architecture(model: HookedModel, layer: int) -> None:
    """Refuses what W_E W_V W_O W_U does not describe: layers without W_V and W_O, norms after attention.

    Raises:
        ModelError: the layer has no attention with W_V and W_O, normalises what attention writes, norms come
            after every block, or W_E or W_U has another width than the residual stream.
    """
    width = int(attention_of(model, layer).W_V.shape[1])
    for name, size in (("W_E", int(model.W_E.shape[1])), ("W_U", int(model.W_U.shape[0]))):
        if size != width:
            raise ModelError(
                f"{name} must be as wide as the residual stream ({width}), got {size}: a projection "
                "stands between them (as in OPT with word_embed_proj_dim), so there is no W_E W_V W_O W_U"
            )
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
    """The weights of a head by name (W_V, W_O, b_V if any; with adapters), and the key-value head it uses.

    With grouped key-value heads, head h uses number h // (heads per group), as in transformers. A bridge's
    W_V has one entry per group, that of a HookedTransformer repeats it for every head.
    """
    layer, head = check_layer(model, layer), check_head(model, head)
    W_V, W_O, b_V = projections(model, layer)
    heads = int(model.cfg.n_heads)
    if W_V.ndim != 3 or W_O.ndim != 3 or W_O.shape[0] != heads or heads % W_V.shape[0]:
        raise ModelError(
            f"W_V must be [kv_head, d_model, d_head] and W_O [{heads}, d_head, d_model], got "
            f"{tuple(W_V.shape)} and {tuple(W_O.shape)}"
        )
    entry = head // (heads // W_V.shape[0])
    kv_head = head // (heads // int(getattr(model.cfg, "n_key_value_heads", None) or W_V.shape[0]))
    found = {"W_V": W_V[entry], "W_O": W_O[head]}
    if b_V is not None:
        found["b_V"] = b_V.reshape(W_V.shape[0], -1)[entry]
    return found, kv_head


def used_weights(
    model: HookedModel,
    layer: int,
    head: int,
    inputs: Sequence[int],
    outputs: Sequence[int],
    probe: HeadProbe | None = None,
) -> tuple[dict[str, Tensor], int]:
    """Every weight that the circuit between two token sets depends on, and the key-value head.

    Where the model makes something else of a token than its row of W_E (a norm or scale of the embedding),
    that is there too, as "embedded".
    """
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
    found |= adapters_of(attention_of(model, layer))
    embedded = embedded_rows(model, probe or probe_head(model, layer, head), inputs)
    if embedded is not None:
        found["embedded"] = embedded
    return found, kv_head


def read_head(
    model: HookedModel, layer: int, head: int, inputs: Sequence[int], outputs: Sequence[int]
) -> HeadFactors:
    """The factors of a head between two token sets, computed in float64 on the device of the model.

    Nothing of the model is changed and no tensor of it is kept: the factors are new tensors.

    Raises:
        ModelError: an unknown layer or head, an architecture with norms after attention, or a model that was
            seen to do something else than its weights say (`probe_head`).
        WeightsError: NaN or infinite weights among those that are read.
    """
    check_architecture(model, check_layer(model, layer))
    check_decoder(model)
    head_parameters(model, layer, head)  # refuses an unknown head and odd shapes before anything is run
    probe = probe_head(model, layer, head)
    raw, kv_head = used_weights(model, layer, head, inputs, outputs, probe)
    name = model_name(model)
    check_finite(raw, f"{name}, layer {layer}, head {head}")
    _require_readable(probe)
    require_wrapped(model, "the OV circuit", weights_alone=True)
    adapted = bool(adapters_of(attention_of(model, layer)))
    device = raw["W_V"].device
    dtype = working_dtype(device)
    ln1 = read_norm(getattr(block_of(model, layer), "ln1", None), model.cfg, dtype)
    last = read_norm(final_norm(model), model.cfg, dtype)
    W_V, W_O = raw["W_V"].to(dtype), raw["W_O"].to(dtype)
    left = ln1.reads(raw.get("embedded", raw["W_E"]).to(device=device, dtype=dtype)) @ W_V
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
        dtype=str(attention_of(model, layer).W_V.dtype).removeprefix("torch."),
        folded=(
            *_folded(ln1, last, "b_V" in raw, "embedded" in raw),
            *([ADAPTED] if adapted else []),
        ),
        flags=_flags(model, probe),
        checks=tuple(step.describe() for step in _steps(model, probe) if not step.differs),
    )
    return HeadFactors(left, right, constant @ right, provenance)


ADAPTED = "unmerged adapters or parametrisations: in W_V and W_O, as the projections apply them"


def _folded(ln1: Norm, last: Norm, has_b_V: bool, embedded: bool) -> tuple[str, ...]:
    said = ["norm or scale of the embedding: folded into W_E, as the model computes it"] if embedded else []
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
    "writing": {
        "residual_multiplier": "it multiplies what every head writes",
        "scale_depth": "it rescales what every head writes",
        "attention_out_multiplier": "it multiplies what every head writes",
    },
    "reading": {
        "logit_scale": "it multiplies all logits",
        "logits_scaling": "it divides all logits",
        "lm_head_multiplier": "it multiplies all logits",
    },
}
"""What configurations call numbers outside of the weights: explains a factor that was measured."""


def _require_readable(probe: HeadProbe) -> None:
    """Requires that W is what the model does, up to factors and a growing function of the logits.

    Raises:
        ModelError: it is not; see `HeadProbe.require`.
    """
    names = [name for name, step in probe.steps().items() if step.factor is None]
    if probe.reading.grows and "reading" in names:
        names.remove("reading")
    probe.require(names, "the OV circuit")


def _steps(model: HookedModel, probe: HeadProbe) -> list[Step]:
    """Every question that was asked around a head, that to the model inside a bridge last."""
    bridged = compare_with_wrapped(model)
    return [*probe.steps().values(), *([] if bridged is None else [bridged.logits])]


def _settings(model: HookedModel, names: Iterable[str]) -> dict[str, float]:
    """Those of the names that the bridge's configuration or that of the model inside it sets, not to 1."""
    inner = getattr(getattr(model, "original_model", None), "config", None)
    found = {}
    for name in names:
        for cfg in (inner, model.cfg):
            value = getattr(cfg, name, None)
            if isinstance(value, int | float) and value != 1:
                found[name] = float(value)
    return found


def _flags(model: HookedModel, probe: HeadProbe) -> tuple[str, ...]:
    cfg, said = model.cfg, []
    if int(cfg.n_layers) > 1 or not getattr(cfg, "attn_only", False):
        said.append("direct path only: embedding to this head to logits, without MLPs and other layers")
    bridged = compare_with_wrapped(model)
    if bridged is not None and bridged.logits.differs:
        said.append(
            f"{bridged.logits.describe()}: transformer-lens bridges this architecture as another "
            "computation; the weights are the model's, activations and patterns of the bridge are not"
        )
    capped = (getattr(cfg, "output_logits_soft_cap", None) or -1.0) > 0
    if capped or (probe.reading.differs and probe.reading.factor is None):
        said.append("the model caps its logits softly: W speaks of logits before the cap")
    if probe.embeds == "mixed":
        said.append(
            "what the first block reads depends on token and position together, the model's rows of W_E are "
            f"off by {probe.embedding.error:.2g} of its size: W speaks of the rows of W_E"
        )
    for name, step in probe.steps().items():
        if step.error is None:
            said.append(step.describe())
        elif step.differs and step.factor is not None:
            told = _MULTIPLIERS.get(name, {})
            named = _settings(model, told)
            said += [f"{key} = {value:g} is left out: {told[key]}" for key, value in named.items()]
            if not named:
                said.append(f"left out: {step.describe()}")
    if probe.limited:
        said.append(
            "something limits large values before z (a clamp such as clip_qkv, or a norm); it did not act on "
            "the probe and is left out"
        )
    if getattr(cfg, "positional_embedding_type", "standard") == "standard":
        said.append("position embeddings, which attention reads too, are left out")
    return tuple(said)
