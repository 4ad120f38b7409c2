"""What circuits, attributions and ablations must be, derived from forward passes of a plain model alone."""

from dataclasses import dataclass
from typing import Any

import torch
from plain_models import Ask
from torch import Tensor

FAR = 1e4
"""A norm is asked far away from zero, where its epsilon has no say."""


def zero(plain: Any, tokens: Tensor, layer: int, head: int) -> Tensor:
    """Logits with a head's z set to zero."""
    return _with_written(plain, tokens, layer, head, torch.tensor(0.0))


def mean(plain: Any, tokens: Tensor, reference: Tensor, layer: int, head: int) -> Tensor:
    """Logits with a head's z set to its mean over prompts and positions of a reference."""
    z = plain.run(reference, Ask(layer)).written[:, :, head].mean((0, 1))
    return _with_written(plain, tokens, layer, head, z)


def without_keys(plain: Any, tokens: Tensor, layer: int, among: Tensor) -> Tensor:
    """Logits when no head of a layer reads some tokens' values."""
    z = plain.run(tokens, Ask(layer, keep=~torch.isin(tokens, among))).z
    return plain.run(tokens, Ask(layer, edit=lambda _: z)).logits


def path(plain: Any, tokens: Tensor, layer: int, head: int, among: Tensor) -> Tensor:
    """Logits when one head does not read some tokens' values."""
    z = plain.run(tokens, Ask(layer, keep=~torch.isin(tokens, among))).z[:, :, head]
    return _with_head(plain, tokens, layer, head, lambda _: z)


def path_mean(
    plain: Any, tokens: Tensor, reference: Tensor, layer: int, head: int, among: Tensor
) -> Tensor | None:
    """Logits with the path's contribution set to its mean by query over the reference's prompts that have it.

    None where a prompt has the path at a query at which no prompt of the reference has it.
    """
    part = plain.run(reference, Ask(layer, keep=torch.isin(reference, among))).z[:, :, head]
    has = (part != 0).any(-1)
    count = has.sum(0)[:, None]
    average = (part * has[:, :, None]).sum(0) / count
    part = plain.run(tokens, Ask(layer, keep=torch.isin(tokens, among))).z[:, :, head]
    here = (part != 0).any(-1)
    if bool((here.any(0) & (count[:, 0] == 0)).any()):
        return None
    rest = plain.run(tokens, Ask(layer, keep=~torch.isin(tokens, among))).z[:, :, head]
    edited = torch.where(here[:, :, None], rest + average.nan_to_num(), rest)
    return _with_head(plain, tokens, layer, head, lambda _: edited)


def _with_head(plain: Any, tokens: Tensor, layer: int, head: int, value: Any) -> Tensor:
    def edit(z: Tensor) -> Tensor:
        z[:, :, head] = value(z[:, :, head])
        return z

    return plain.run(tokens, Ask(layer, edit=edit)).logits


def _with_written(plain: Any, tokens: Tensor, layer: int, head: int, value: Tensor) -> Tensor:
    def edit(z: Tensor) -> Tensor:
        z[:, :, head] = value
        return z

    return plain.run(tokens, Ask(layer, edit_written=edit)).logits


@dataclass
class Circuit:
    """The circuit at scale 1 of both norms, with everything that the model multiplies on the way."""

    W: Tensor
    bias: Tensor


def circuit(plain: Any, layer: int, head: int, inputs: list[int], outputs: list[int]) -> Circuit:
    """W [input, output] and bias [output]."""
    tokens = torch.tensor(inputs)[:, None]
    x = plain.run(tokens, Ask(0, positions=False)).first_in

    def values(stream: Tensor) -> Tensor:
        return plain.run(tokens, Ask(layer, start=stream)).value[:, 0, head]

    plus, minus = values(FAR * x), values(-FAR * x)
    shifted = values(FAR * (x + x.abs().mean()))
    constant = (plus + minus)[0] / 2
    left = _at_scale_one((plus - minus) / 2, values(2 * FAR * x) - constant, x[:, 0], _same(shifted, plus))
    unit = torch.eye(left.shape[-1], dtype=left.dtype)
    written = _written(plain, tokens[:1].repeat(len(unit), 1), layer, head, unit)
    right = _read(plain, written, tokens)[0][:, outputs]
    return Circuit(left @ right, constant @ right)


@dataclass
class Shares:
    """A head's contributions to a logit difference, that difference, and how far logits are capped."""

    contributions: Tensor
    logit: float
    cap: float


def attribution(plain: Any, prompt: list[int], columns: list[int], layer: int, head: int) -> Shares:
    """What each position of a prompt adds through a head, at the final norm's scale in this prompt."""
    tokens = torch.tensor([prompt])
    seen = plain.run(tokens, Ask(layer))
    rows = tokens.repeat(len(prompt), 1)
    parts = plain.run(rows, Ask(layer, keep=torch.eye(len(prompt), dtype=torch.bool))).z[:, -1, head]
    written = _written(plain, rows, layer, head, parts)
    read, cap = _read(plain, written, tokens)
    end = seen.final_in[0, -1]
    linear, constant = _linear(plain, end[None])
    normed = plain.norm(end[None, None])[0, 0]
    scale = float(linear[0].norm() / (normed - constant).norm())
    sign = torch.tensor([1.0, -1.0], dtype=read.dtype)[: len(columns)]
    logit = float(seen.logits[0, -1, columns] @ sign)
    return Shares(read[:, columns] @ sign / scale, logit, cap)


def _written(plain: Any, tokens: Tensor, layer: int, head: int, parts: Tensor) -> Tensor:
    """How the stream after a layer changes when a head's z gains something, with MLPs held."""
    base = plain.run(tokens, Ask(layer))
    size = base.out[:, -1].norm(dim=-1, keepdim=True) / parts.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    size = torch.where(parts.norm(dim=-1, keepdim=True) > 0, size, torch.ones_like(size))

    def edit(z: Tensor) -> Tensor:
        z[:, -1, head] += parts * size
        return z

    after = plain.run(tokens, Ask(layer, edit=edit, hold=base.held))
    return (after.out - base.out)[:, -1] / size


def _read(plain: Any, written: Tensor, tokens: Tensor) -> tuple[Tensor, float]:
    """What vectors of the stream add to all logits at scale 1, and how far logits are from a multiple."""
    linear, _ = _linear(plain, written)
    zeros = torch.zeros_like(linear[:1])
    read = plain.head(linear) - plain.head(zeros)
    seen = plain.run(tokens[:1], Ask(0))
    bare = plain.head(plain.norm(seen.final_in))
    factor = float((bare * seen.logits).sum() / (bare * bare).sum())
    return read * factor, float((bare * factor - seen.logits).norm() / seen.logits.norm())


def _linear(plain: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The final norm's linear part at scale 1 of some vectors, and its bias."""
    norm = plain.norm
    far = FAR * x / x.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    plus, minus = norm(far[None])[0], norm(-far[None])[0]
    shifted = norm((far + far.abs().mean())[None])[0]
    constant = (plus + minus)[0] / 2
    twice = norm(2 * far[None])[0] - constant
    size = x.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    return size * _at_scale_one((plus - minus) / 2, twice, x / size, _same(shifted, plus)), constant


def _at_scale_one(read: Tensor, twice: Tensor, x: Tensor, centred: bool) -> Tensor:
    """What is read far away as it would be at scale 1: times the scale of x, or without norm over FAR."""
    return read * _scale(x, centred) if _same(read, twice) else read / FAR


def _scale(x: Tensor, centred: bool) -> Tensor:
    x = x - x.mean(-1, keepdim=True) if centred else x
    return x.pow(2).mean(-1, keepdim=True).sqrt()


def _same(ours: Tensor, theirs: Tensor) -> bool:
    return float((ours - theirs).norm()) <= 1e-4 * float(theirs.norm())
