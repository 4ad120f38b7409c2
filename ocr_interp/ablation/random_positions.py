"""Random positions for matched controls, instead of the positions of chosen tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

_STEP, _FACTORS = -0x61C8864680B583EB, (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)  # of SplitMix64


@dataclass(frozen=True)
class RandomPositions:
    """Draws as many random positions of each sequence as were chosen there.

    The draw depends only on the seed and the ids of the sequence: it is the same in every forward pass, in a
    reference batch, on every device, and for every batch size.

    Attributes:
        seed: seed of the draw.
        among: token ids; only positions with one of these tokens are drawn.
    """

    seed: int
    among: tuple[int, ...]

    def like(
        self, chosen: Bool[Tensor, "batch pos"], ids: Int[Tensor, "batch pos"]
    ) -> Bool[Tensor, "batch pos"]:
        """As many positions per sequence as are chosen, or all in the pool if those are fewer."""
        ids = ids.long()
        allowed = torch.isin(ids, torch.tensor(self.among, device=ids.device))
        state = torch.full_like(ids[:, 0], self.seed)
        for column in ids.unbind(1):
            state = _mixed(state + column)
        keys = _mixed(state[:, None] + torch.arange(ids.shape[1], device=ids.device) * _STEP)
        order = keys.masked_fill(~allowed, torch.iinfo(torch.int64).max).argsort(1).argsort(1)
        return allowed & (order < chosen.sum(1, keepdim=True))

    def describe(self) -> str:
        """One phrase that identifies the draw."""
        return f"at as many random positions, seed {self.seed}"


def _mixed(x: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """The mixing function of SplitMix64: every output bit depends on all input bits."""
    x = x + _STEP
    for shift, factor in zip((30, 27), _FACTORS, strict=True):
        x = (x ^ _shifted(x, shift)) * factor
    return x ^ _shifted(x, 31)


def _shifted(x: Int[Tensor, "..."], by: int) -> Int[Tensor, "..."]:
    """Logical shift to the right, filling with zeros."""
    return (x >> by) & ((1 << (64 - by)) - 1)
