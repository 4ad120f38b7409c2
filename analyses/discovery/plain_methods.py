"""Published methods of finding circuits, written plainly for small attention-only models without norms.

Nothing of the library's discovery is used: a reader's input is the sum over earlier writers of factor ·
(what it writes) + (1 − factor) · (what it writes for the donor), so all methods are this forward pass, its
gradients or its repetition. Factors are [writer, reader]; writers are the input and the heads by layer,
readers queries, keys and values of the heads of layer 0, of layer 1, ..., and the logits, in the library's
order.

Sources: EAP-IG, Hanna et al. 2024 (arXiv 2403.17806, and its code); factors, Miller et al. 2024 (2407.08734,
auto-circuit); ACDC, Conmy et al. 2023 (2304.14997).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

Measure = Callable[[Tensor], Tensor]
"""Logits [prompt, pos, token] -> a value per prompt."""


@dataclass(frozen=True)
class PlainModel:
    """A two-or-more-layer attention-only model without norms, with a stream of its own for every reader.

    Attributes:
        model: a HookedTransformer, whose weights are used.
    """

    model: Any

    def __post_init__(self) -> None:
        cfg = self.model.cfg
        assert cfg.attn_only
        assert cfg.normalization_type is None
        assert (cfg.n_key_value_heads or cfg.n_heads) == cfg.n_heads

    @property
    def edges(self) -> Bool[np.ndarray, "writer reader"]:
        """Which pairs are edges."""
        layers, heads = self.model.cfg.n_layers, self.model.cfg.n_heads
        table = np.zeros((1 + layers * heads, 3 * layers * heads + 1), dtype=bool)
        for layer in range(layers):
            table[: 1 + layer * heads, 3 * layer * heads : 3 * (layer + 1) * heads] = True
        table[:, -1] = True
        return table

    def embedded(self, tokens: Tensor) -> Float[Tensor, "prompt pos d_model"]:
        """What enters the first layer."""
        return self.model.W_E[tokens] + self.model.W_pos[: tokens.shape[1]]

    def forward(
        self, start: Tensor, factors: Tensor | None = None, other: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits, what is written [writer, prompt, pos, d_model], and the inputs of all readers.

        Args:
            start: what enters the first layer.
            factors: of all edges; None is all one.
            other: what is written for the donors.
        """
        cfg, heads = self.model.cfg, self.model.cfg.n_heads
        written, inputs = [start], []
        bias = torch.zeros_like(start[0, 0])
        positions = start.shape[1]
        causal = torch.ones(positions, positions, dtype=torch.bool, device=start.device).tril()
        for layer, block in enumerate(self.model.blocks):
            readers = slice(3 * layer * heads, 3 * (layer + 1) * heads)
            x = _mixed(written, factors, other, readers, 3 * heads)
            inputs.append(x)
            x = (x + bias).unflatten(0, (3, heads))
            own = block.attn
            q, k, v = (
                torch.einsum("hbpd,hde->hbpe", x[part], W) + b[:, None, None]
                for part, (W, b) in enumerate(((own.W_Q, own.b_Q), (own.W_K, own.b_K), (own.W_V, own.b_V)))
            )
            scores = q @ k.mT / cfg.attn_scale
            pattern = scores.masked_fill(~causal, -torch.inf).softmax(-1)
            written += list(torch.einsum("hbpe,hed->hbpd", pattern @ v, own.W_O))
            bias = bias + own.b_O
        x = _mixed(written, factors, other, slice(-1, None), 1)
        inputs.append(x)
        logits = (x[0] + bias) @ self.model.W_U + self.model.b_U
        return logits, torch.stack(written), inputs


def _mixed(
    written: list[Tensor], factors: Tensor | None, other: Tensor | None, readers: slice, count: int
) -> Float[Tensor, "reader prompt pos d_model"]:
    stack = torch.stack(written)
    if factors is None or other is None:
        return stack.sum(0)[None].repeat(count, 1, 1, 1)
    of = factors[: len(written), readers]
    change = torch.einsum("wr,wbpd->rbpd", of, stack - other[: len(written)])
    return other[: len(written)].sum(0) + change


class Task:
    """A model on prompts and donors.

    Attributes:
        full, empty: mean measure of the prompts, and of the donors.
    """

    def __init__(self, model: PlainModel, prompts: Tensor, donors: Tensor, measure: Measure) -> None:
        self.model, self.measure = model, measure
        self.start, self.other_start = model.embedded(prompts), model.embedded(donors)
        with torch.no_grad():
            logits, self.clean, _ = model.forward(self.start)
            other_logits, self.other, _ = model.forward(self.other_start)
        self.full, self.empty = (float(measure(each).double().mean()) for each in (logits, other_logits))

    def value(self, mask: Bool[np.ndarray, "writer reader"]) -> float:
        """The mean measure with the edges of a circuit; all others carry what they carry for the donors."""
        factors = torch.as_tensor(mask).to(self.start)
        with torch.no_grad():
            logits, _, _ = self.model.forward(self.start, factors, self.other)
        return float(self.measure(logits).double().mean())

    def faithfulness(self, mask: Bool[np.ndarray, "writer reader"]) -> float:
        """0 with no edge, 1 with all."""
        return (self.value(mask) - self.empty) / (self.full - self.empty)

    def exact(self) -> Float[np.ndarray, "writer reader"]:
        """The fall without each single edge."""
        found = np.zeros(self.model.edges.shape)
        for place in np.argwhere(self.model.edges):
            mask = self.model.edges.copy()
            mask[tuple(place)] = False
            found[tuple(place)] = self.full - self.value(mask)
        return found

    def attribution(self, points: Sequence[float]) -> Float[np.ndarray, "writer reader"]:
        """Edge attribution: change of each writer times the gradient by each reader's input, mean over inputs
        donor + point (prompt − donor). One point 1 is EAP; k/n for k from 0 to n − 1 is EAP-IG's code."""
        change, total = self.clean - self.other, None
        for point in points:
            start = (self.other_start + point * (self.start - self.other_start)).requires_grad_()
            logits, _, inputs = self.model.forward(start)
            gradients = torch.autograd.grad(self.measure(logits).mean(), inputs)
            found = torch.cat(gradients).flatten(1)
            total = found if total is None else total + found
        assert total is not None
        scores = change.flatten(1) @ (total / len(points)).T
        return np.where(self.model.edges, scores.double().numpy(), 0.0)

    def by_factors(self, points: Sequence[float]) -> Float[np.ndarray, "writer reader"]:
        """Gradients of the measure by the factors of all edges, mean over factors that are all one point."""
        total = np.zeros(self.model.edges.shape)
        for point in points:
            factors = torch.full(total.shape, point).to(self.start).requires_grad_()
            logits, _, _ = self.model.forward(self.start, factors, self.other)
            total += torch.autograd.grad(self.measure(logits).mean(), factors)[0].double().numpy()
        return np.where(self.model.edges, total / len(points), 0.0)

    def acdc(self, threshold: float) -> Bool[np.ndarray, "writer reader"]:
        """The edges that are left when each in turn, from the last reader and writer to the first, is
        ablated for good if the measure then falls by less than a share of its whole change."""
        mask, value, change = self.model.edges.copy(), self.full, self.full - self.empty
        for reader in reversed(range(mask.shape[1])):
            for writer in reversed(np.flatnonzero(mask[:, reader])):
                mask[writer, reader] = False
                tried = self.value(mask)
                if (value - tried) / change < threshold:
                    value = tried
                else:
                    mask[writer, reader] = True
        return mask


def top(
    scores: Float[np.ndarray, "writer reader"], count: int, heads: int
) -> Bool[np.ndarray, "writer reader"]:
    """The largest edges by size, without heads that nothing reaches or that reach nothing, until none is
    left."""
    found = np.zeros(scores.shape, dtype=bool)
    found.ravel()[np.argsort(-np.abs(scores), axis=None, kind="stable")[:count]] = True
    owner = np.arange(scores.shape[1] - 1)  # the writer of each head's query, key and value
    owner = 1 + owner // (3 * heads) * heads + owner % heads
    while True:
        alive = found.any(1)
        read = np.zeros_like(alive)
        np.logical_or.at(read, owner, found[:, :-1].any(0))
        read[0] = True
        kept = alive & read
        smaller = found & kept[:, None] & np.append(kept[owner], True)[None]
        if (smaller == found).all():
            return found
        found = smaller
