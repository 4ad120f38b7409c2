"""The norms of any hooked model as what is linear of them: gain, bias and centring."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.protocol import HookedModel


@dataclass(frozen=True)
class Norm:
    """The linear part of a norm, on the device of the model, in the dtype it was asked in.

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


def normed(
    norm: Norm,
    x: Float[Tensor, "*batch d_model"],
    scale: Float[Tensor, "position ..."] | None,
    eps: float,
) -> Float[Tensor, "*batch d_model"]:
    """x through a norm, bias included, at the scale that the model had, or at that of x."""
    if not norm.exists:
        return x
    if scale is not None:
        scale = scale.flatten(1)[:, :1]
    else:
        centred = x - x.mean(-1, keepdim=True) if norm.centred else x
        scale = (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    read = norm.reads(x) / scale
    return read if norm.bias is None else read + norm.bias


def working_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on devices that have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def wide(value: Tensor) -> Tensor:
    """The value in float32 if it has half precision, whose few bits are too few for sums and projections."""
    return value if value.dtype in (torch.float32, torch.float64) else value.float()


def read_norm(module: Any, cfg: Any, dtype: torch.dtype) -> Norm:
    """The gain, bias and centring of a norm of a HookedTransformer or a TransformerBridge."""
    name = type(module).__name__
    if module is None or name == "Identity":
        return Norm(None, None, centred=False, exists=False)
    bridged = "Bridge" in name
    # A bridge knows of each of its norms which kind it is; its configuration speaks of most of them.
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
        return norm  # weights that are not finite are told by name later
    return _as_computed(norm, inner, name)


def _runs_inner_norm(module: Any, cfg: Any) -> bool:
    """Whether a bridge's norm runs the norm inside it; else it computes gain and scale itself."""
    native = getattr(module, "use_native_layernorm_autograd", False)
    return bool(native or getattr(cfg, "layer_norm_folding", False))


def _as_computed(norm: Norm, inner: torch.nn.Module, name: str) -> Norm:
    """The norm, or the one with gain + 1 (stored so in Nemotron), whichever the module inside computes.

    Raises:
        ModelError: neither; then its weight is no gain.
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


def final_norm(model: HookedModel) -> Any:
    """The norm before the unembedding, or None."""
    return getattr(model, "ln_final", None)
