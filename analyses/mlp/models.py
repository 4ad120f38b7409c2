"""Small transformers with trained embeddings, stacked over runs: one or two layers, an MLP or none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.mlp.criteria import D_HEAD, D_MLP, D_MODEL, SIZES
from ocr_interp import FactRecallTask

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """Attention layers of one head, softmax with trained scores or all scores 1, and an MLP of one layer."""

    layers: int = 1
    softmax: bool = True
    mlp: bool = True
    d_model: int = D_MODEL

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Weights by name."""
        (n, a, b), width = SIZES, self.d_model
        found: dict[str, tuple[int, ...]] = {"E": (n * (a + b) + 2, width), "U": (width, 2 * n)}
        for layer in range(self.layers):
            found |= {f"V{layer}": (width, D_HEAD), f"O{layer}": (D_HEAD, width)}
            if self.softmax:
                found[f"QK{layer}"] = (width, width)
        if self.mlp:
            found |= {"in": (width, D_MLP), "bias": (1, D_MLP), "out": (D_MLP, width)}
        return found


ARCHITECTURES = {
    "OV alone": Architecture(mlp=False),
    "OV, MLP": Architecture(),
    "OV with scores 1, MLP": Architecture(softmax=False),
    "two attention layers": Architecture(layers=2, mlp=False),
}


@dataclass(frozen=True)
class Data:
    """Questions, one row each: subject and relation tokens and the answer; and all questions on implications.

    Attributes:
        tokens: subject, relation.
        held: subjects whose implication is not told.
        pair: of every subject.
    """

    tokens: Int[Tensor, "example 2"]
    answer: Int[Tensor, " example"]
    asked: Int[Tensor, "subject 2"]
    pair: Int[Tensor, " subject"]
    held: Tensor


def data(told: bool = True) -> Data:
    """All facts, and the told implications unless `told` is False."""
    task = FactRecallTask(*SIZES, n_noise=0, seq_len=3)
    pair = torch.from_numpy(task.subject_fact.copy())
    trained = torch.from_numpy(task.subject_trained.copy())
    subject = torch.arange(len(pair))
    facts = torch.stack([subject, torch.full_like(subject, len(pair))], dim=1)
    asked = torch.stack([subject, torch.full_like(subject, len(pair) + 1)], dim=1)
    tokens, answer = facts, pair
    if told:
        tokens = torch.cat([facts, asked[trained]])
        answer = torch.cat([pair, SIZES[0] + pair[trained]])
    return Data(tokens, answer, asked, pair, ~trained)


def start(architecture: Architecture, sizes: list[float], seeds: list[int]) -> Weights:
    """Normal weights, one run per size and seed; biases are 0."""
    found: Weights = {}
    for k, (name, shape) in enumerate(architecture.shapes().items()):
        runs = []
        for size, seed in zip(sizes, seeds, strict=True):
            rng = torch.Generator().manual_seed(100 * seed + k)
            runs.append(size * torch.randn(shape, generator=rng) * (name != "bias"))
        found[name] = torch.stack(runs)
    return found


@dataclass(frozen=True)
class Written:
    """What each part writes at the last position: [run, example, d_model]."""

    own: Tensor
    attention: list[Tensor]
    mlp: Tensor | None

    def logits(self, weights: Weights) -> Float[Tensor, "run example answer"]:
        """All parts read by the unembedding."""
        parts = [self.own, *self.attention] + ([self.mlp] if self.mlp is not None else [])
        return torch.stack(parts).sum(dim=0) @ weights["U"]


def mlp_of(weights: Weights, x: Tensor) -> Tensor:
    """The MLP's output."""
    return torch.relu(x @ weights["in"] + weights["bias"]) @ weights["out"]


def forward(architecture: Architecture, weights: Weights, tokens: Int[Tensor, "example 2"]) -> Written:
    """What every part writes, one example a row."""
    both = weights["E"][:, tokens]  # [run, example, position, d_model]
    x, own, written = both, both[:, :, 1], []
    causal = torch.tensor([[True, False], [True, True]])
    for layer in range(architecture.layers):
        values = x @ weights[f"V{layer}"].unsqueeze(1) @ weights[f"O{layer}"].unsqueeze(1)
        if architecture.softmax:
            scores = x @ weights[f"QK{layer}"].unsqueeze(1) @ x.transpose(-1, -2) / architecture.d_model**0.5
            pattern = scores.masked_fill(~causal, -torch.inf).softmax(dim=-1)
        else:
            pattern = causal.to(x.dtype).expand(*x.shape[:2], 2, 2)
        moved = pattern @ values
        written.append(moved[:, :, 1])
        x = x + moved
    return Written(own, written, mlp_of(weights, x[:, :, 1]) if architecture.mlp else None)


def losses(logits: Float[Tensor, "run example answer"], answer: Int[Tensor, " example"]) -> Tensor:
    """Mean cross-entropy of every run, nats."""
    chosen = logits.log_softmax(dim=-1).gather(-1, answer.expand(logits.shape[0], -1).unsqueeze(-1))
    return -chosen.squeeze(-1).mean(dim=1)


@dataclass(frozen=True)
class Answers:
    """Implications that runs give: accuracy among them, and coefficients (own minus mean of others).

    Attributes:
        accuracy: of held-out subjects, one per run.
        told_accuracy: of subjects whose implication was told.
        held, told: mean coefficients in logits.
        rank: of the told subjects' centred implication logits, (Σ σ²)² / Σ σ⁴; at most the pairs less one.
    """

    accuracy: Tensor
    told_accuracy: Tensor
    held: Tensor
    told: Tensor
    rank: Tensor

    @property
    def ratio(self) -> Tensor:
        """Held-out coefficient over the told one: β of the whole model."""
        return self.held / self.told


def answers(logits: Float[Tensor, "run subject answer"], of: Data) -> Answers:
    """From the logits of all questions on implications."""
    n = SIZES[0]
    block = logits[..., n:]
    own = block.gather(-1, of.pair.expand(block.shape[0], -1).unsqueeze(-1)).squeeze(-1)
    coefficient = own - (block.sum(dim=-1) - own) / (n - 1)
    right = (block.argmax(dim=-1) == of.pair).double()
    held, told = of.held, ~of.held
    centred = (block - block.mean(dim=-1, keepdim=True))[:, told]
    squares = torch.linalg.svdvals(centred - centred.mean(dim=1, keepdim=True)).double().square()
    return Answers(
        right[:, held].mean(dim=1),
        right[:, told].mean(dim=1),
        coefficient[:, held].mean(dim=1),
        coefficient[:, told].mean(dim=1),
        squares.sum(dim=1) ** 2 / squares.square().sum(dim=1),
    )
