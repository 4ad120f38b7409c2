"""Muon where bfloat16 is slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class FullPrecisionMuon(torch.optim.Muon):
    """torch.optim.Muon ("match_rms_adamw") that orthogonalises in the gradients' own precision.

    torch's turns them to bfloat16, which a processor without such instructions multiplies 25 times slower.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all matrices that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                buffer = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(buffer, group["momentum"])  # Nesterov's, as torch's default
                update = orthogonalised(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-0.2 * group["lr"] * max(parameter.shape) ** 0.5)
        return loss


def orthogonalised(
    gradient: Float[Tensor, "row column"], coefficients: tuple[float, float, float], steps: int, eps: float
) -> Float[Tensor, "row column"]:
    """A matrix with its singular values brought near 1 (Newton-Schulz, quintic)."""
    a, b, c = coefficients
    wide = gradient.T if gradient.shape[0] > gradient.shape[1] else gradient
    X = wide / wide.norm().clamp(min=eps)
    for _ in range(steps):
        gram = X @ X.T
        X = torch.addmm(X, torch.addmm(gram, gram, gram, beta=b, alpha=c), X, beta=a)
    return X.T if gradient.shape[0] > gradient.shape[1] else X
