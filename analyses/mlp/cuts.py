"""What is left of a stacked model when a part writes its mean, or noise of its own size, on questions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from analyses.mlp.models import Answers, Architecture, Data, Weights, answers, forward, mlp_of

NOISE_DRAWS = 10


@dataclass(frozen=True)
class Parts:
    """What the parts add to the last position on every implication question: [run, subject, d_model]."""

    weights: Weights
    written: dict[str, Tensor]

    def answers(self, of: Data, replaced: dict[str, Tensor] | None = None) -> Answers:
        """With some parts replaced in the sum that the unembedding reads; other parts as they were."""
        parts = {**self.written, **(replaced or {})}
        return answers(torch.stack(list(parts.values())).sum(dim=0) @ self.weights["U"], of)

    def mean(self, name: str) -> Tensor:
        """A part's mean over questions."""
        return self.written[name].mean(dim=1, keepdim=True).expand_as(self.written[name])

    def noisy(self, name: str, rng: torch.Generator) -> Tensor:
        """A part plus random vectors as long as its own deviations from the mean."""
        deviation = self.written[name] - self.mean(name)
        noise = torch.randn(deviation.shape, generator=rng)
        noise = noise / noise.norm(dim=-1, keepdim=True) * deviation.norm(dim=-1, keepdim=True)
        return self.written[name] + noise

    def share(self, name: str, of: Data, *, held: bool = True) -> Tensor:
        """Part of the coefficient of held-out (or told) implications that this part writes, one per run."""
        others = {other: torch.zeros_like(value) for other, value in self.written.items() if other != name}
        alone, whole = self.answers(of, others), self.answers(of)
        return alone.held / whole.held if held else alone.told / whole.told


def parts_of(architecture: Architecture, weights: Weights, of: Data) -> Parts:
    """The parts "own", "attention 1", "attention 2", "MLP"."""
    found = forward(architecture, weights, of.asked)
    written = {"own": found.own}
    written |= {f"attention {k}": part for k, part in enumerate(found.attention, start=1)}
    if found.mlp is not None:
        written["MLP"] = found.mlp
    return Parts(weights, written)


def cut_everywhere(architecture: Architecture, parts: Parts, of: Data, name: str) -> Answers:
    """One part writes its mean, and the parts that read it see that too."""
    mean = {name: parts.mean(name)}
    if architecture.mlp and name != "MLP":
        seen = parts.written["own"] + mean[name]
        mean["MLP"] = mlp_of(parts.weights, seen)
    return parts.answers(of, mean)
