"""Singular values of all OV circuits of a model at once, and one head's blocks."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.heads import head_parameters
from ocr_interp.hooked.norms import read_norm, working_dtype
from ocr_interp.hooked.protocol import HookedModel, block_of, check_model
from ocr_interp.linalg.spectrum import Spectrum, spectrum_of


def ov_spectra(
    W_V: Float[Tensor, "*layer kv_head d_model d_head"], W_O: Float[Tensor, "*layer head d_head d_model"]
) -> Float[Tensor, "*layer head direction"]:
    """Singular values of W_V W_O of every head, largest first, through QR and d_head × d_head problems.

    Args:
        W_V: one entry per head, or one per key-value head where those are grouped.
        W_O: one entry per head.

    Returns: min(d_head, d_model) values per head, on the device and in the dtype of the weights; half
        precision is computed in float32.

    Raises:
        ModelError: shapes that do not fit.

    Source: σ(AB) = σ(R_A R_Bᵀ) for A = Q_A R_A and Bᵀ = Q_B R_B.
    """
    kv_heads, heads = W_V.shape[-3], W_O.shape[-3]
    fits = W_V.shape[-1] == W_O.shape[-2] and W_V.shape[-2] == W_O.shape[-1] and heads % kv_heads == 0
    if not fits or W_V.shape[:-3] != W_O.shape[:-3]:
        raise ModelError(
            "W_V must be [..., kv_head, d_model, d_head] and W_O [..., head, d_head, d_model] with heads a "
            f"multiple of kv_heads, got {tuple(W_V.shape)} and {tuple(W_O.shape)}"
        )
    dtype = W_V.dtype
    if dtype in (torch.float16, torch.bfloat16):
        W_V, W_O = W_V.float(), W_O.float()
    if W_V.shape[-1] > W_V.shape[-2]:
        product = W_V.detach().repeat_interleave(heads // kv_heads, -3) @ W_O.detach()
        return torch.linalg.svdvals(product).to(dtype)
    # mode="r" never builds the tall orthogonal factor; grouped values are decomposed once per group.
    R_V = torch.linalg.qr(W_V.detach(), mode="r").R.repeat_interleave(heads // kv_heads, -3)
    R_O = torch.linalg.qr(W_O.detach().mT, mode="r").R
    return torch.linalg.svdvals(R_V @ R_O.mT).to(dtype)


def head_spectrum(model: HookedModel, layer: int, head: int, tolerance: float) -> Spectrum:
    """Singular blocks of a head's W_V W_O, d_model by d_model, with the gain and centring of ln1 in W_V."""
    raw, _ = head_parameters(check_model(model), layer, head)
    dtype = working_dtype(raw["W_V"].device)
    ln1 = read_norm(getattr(block_of(model, layer), "ln1", None), model.cfg, dtype)
    W_V, W_O = raw["W_V"].to(dtype), raw["W_O"].to(dtype)
    if ln1.gain is not None:
        W_V = ln1.gain[:, None] * W_V
    if ln1.centred:
        W_V = W_V - W_V.mean(0, keepdim=True)
    left, right = (x.cpu().numpy().astype(np.float64) for x in (W_V, W_O))
    return spectrum_of(left, right, tolerance)
