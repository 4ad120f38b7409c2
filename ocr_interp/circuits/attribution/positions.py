"""What heads add by position, and by singular block of W_V W_O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.circuits.attribution.stream import LastPosition
from ocr_interp.circuits.weights.spectra import head_spectrum
from ocr_interp.errors import ModelError
from ocr_interp.hooked.protocol import LAYER_HOOKS, HookedModel
from ocr_interp.linalg.spectrum import Spectrum


@dataclass(frozen=True)
class OfBlocks:
    """What a head adds by singular block.

    Attributes:
        spectrum: the head's blocks.
        contributions: of every block.
        outside: what no block spans.
    """

    spectrum: Spectrum
    contributions: Float[Tensor, "prompt block"]
    outside: Float[Tensor, " prompt"]


def position_hooks(model: HookedModel, layers: Sequence[int]) -> dict[str, Callable[[Tensor], Tensor]]:
    """Hooks for contributions by position: the last query's pattern, and the values of all positions."""
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    for layer in layers:
        found[LAYER_HOOKS["pattern"].format(layer=layer)] = lambda value: value[:, :, -1].clone()
        found[LAYER_HOOKS["v"].format(layer=layer)] = lambda value: value.clone()
    known = model.hook_dict  # which a bridge makes anew at every call
    return {name: keep for name, keep in found.items() if name in known}


def by_position(
    run: LastPosition, factors: Mapping[int, float], direction: Float[Tensor, "prompt d_model"]
) -> dict[int, Float[Tensor, "prompt head position"]]:
    """Contributions of every position through every head of the layers that are split.

    Raises:
        ModelError: the pattern times the values is not z on these prompts.
    """
    found = {}
    for layer, factor in factors.items():
        by_heads = run.by_heads(layer)
        assert by_heads is not None
        z, W_O, _ = by_heads
        pattern, values = attended(run, layer, z)
        through = torch.einsum("hdm,bm->bhd", W_O, direction)
        found[layer] = factor * pattern * torch.einsum("bkhd,bhd->bhk", values, through)
    return found


def attended(
    run: LastPosition, layer: int, z: Float[Tensor, "prompt head d_head"]
) -> tuple[Float[Tensor, "prompt head key"], Float[Tensor, "prompt key head d_head"]]:
    """The last query's pattern and the values of every head, if they make z.

    Raises:
        ModelError: they do not, or the model does not come by them.
    """
    pattern = run.wide(LAYER_HOOKS["pattern"].format(layer=layer))
    values = run.wide(LAYER_HOOKS["v"].format(layer=layer))
    heads = z.shape[1]
    if pattern is None or values is None or values.ndim != 4 or heads % values.shape[2]:
        raise ModelError(
            f"contributions by position need the pattern and the values of layer {layer}, got none: fused "
            "attention has no pattern, load the model with attn_implementation='eager'; or leave by_position "
            "out"
        )
    values = values.repeat_interleave(heads // values.shape[2], dim=2)
    ours = torch.einsum("bhk,bkhd->bhd", pattern, values)
    error, size = float((ours - z).norm()), max(float(ours.norm()), float(z.norm()))
    if error > run.allowed * size:
        raise ModelError(
            f"contributions by position need sum over keys of pattern × v = z, got a difference of "
            f"{error / size:.2g} of its size in layer {layer}: something stands between the values and W_O "
            "(a clamp such as clip_qkv, a gate, a norm); leave by_position out"
        )
    return pattern, values


def by_block(
    run: LastPosition,
    layer: int,
    head: int,
    factor: float,
    direction: Float[Tensor, "prompt d_model"],
    tolerance: float,
) -> OfBlocks:
    """What a head adds, projected onto the output side of every degenerate block of its W_V W_O."""
    by_heads = run.by_heads(layer)
    assert by_heads is not None
    z, W_O, _ = by_heads
    written = factor * z[:, head] @ W_O[head]
    spectrum = head_spectrum(run.model, layer, head, tolerance)
    parts = []
    for block in spectrum.blocks:
        basis = written.new_tensor(block.output_basis)
        parts.append(((written @ basis) * (direction @ basis)).sum(-1))
    table = torch.stack(parts, dim=1) if parts else written.new_zeros(len(written), 0)
    return OfBlocks(spectrum, table, (written * direction).sum(-1) - table.sum(1))
