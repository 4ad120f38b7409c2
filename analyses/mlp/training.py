"""Full-batch training of stacked runs until a loss: AdamW without decay, or descent by relative steps."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from analyses.mlp.criteria import ADAM_RATE, LOSS, MAX_STEPS, RELATIVE_STEP
from analyses.mlp.models import Architecture, Data, Weights, forward, losses

RULES = ("descent", "adamw")
_BETAS, _EPS = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Trained:
    """Weights of every run when its loss first was below LOSS (or at the end), and that loss.

    Attributes:
        steps: updates done by then.
    """

    weights: Weights
    loss: Tensor
    steps: Tensor


def train(
    architecture: Architecture,
    weights: Weights,
    of: Data,
    rule: str,
    *,
    only: Collection[str] | None = None,
    max_steps: int = MAX_STEPS,
) -> Trained:
    """Trains all runs at once; each keeps the weights that it has when it reaches LOSS.

    "descent" moves every run by RELATIVE_STEP of its length along its negative gradient: gradient flow in
    another time, as long as steps are small.

    Args:
        only: names of the weights that are trained; None: all.
    """
    trained = [name for name in weights if only is None or name in only]
    now = {name: value.clone() for name, value in weights.items()}
    kept = {name: value.clone() for name, value in weights.items()}
    runs = len(next(iter(now.values())))
    done, at = torch.zeros(runs, dtype=torch.bool), torch.full((runs,), max_steps)
    moments = {name: (torch.zeros_like(now[name]), torch.zeros_like(now[name])) for name in trained}
    final = torch.full((runs,), torch.inf)
    for step in range(1, max_steps + 1):
        leaves = {name: now[name].requires_grad_() for name in trained}
        loss = losses(
            forward(architecture, {**now, **leaves}, of.tokens).logits({**now, **leaves}), of.answer
        )
        found = torch.autograd.grad(loss.sum(), list(leaves.values()))
        now = {name: value.detach() for name, value in now.items()}
        loss = loss.detach()
        new = (loss < LOSS) & ~done
        if new.any() or step == max_steps:
            take = ~done if step == max_steps else new
            for name in kept:
                kept[name][take] = now[name][take]
            final[take], at[take], done = loss[take], step, done | new
        if done.all():
            break
        gradients = dict(zip(trained, found, strict=True))
        if rule == "descent":
            length = sum(now[name].square().sum(dim=(1, 2)) for name in trained)
            slope = sum(g.square().sum(dim=(1, 2)) for g in gradients.values())
            eta = RELATIVE_STEP * (length / slope.clamp(min=1e-60)).sqrt()  # pyright: ignore
            for name in trained:
                now[name] = now[name] - eta.view(-1, 1, 1) * gradients[name]
        else:
            for name in trained:
                first, second = moments[name]
                first.lerp_(gradients[name], 1 - _BETAS[0])
                second.lerp_(gradients[name].square(), 1 - _BETAS[1])
                scale = (second / (1 - _BETAS[1] ** step)).sqrt() + _EPS
                now[name] = now[name] - ADAM_RATE * (first / (1 - _BETAS[0] ** step)) / scale
    return Trained(kept, final, at)
