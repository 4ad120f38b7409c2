"""Sign descent on the gradient or on its running mean: steepest descent in the largest entry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ocr_interp.optim.base import OptimizerKind, running_mean


class SignSGD(torch.optim.Optimizer):
    """Each entry moves by lr against the sign of its gradient: w <- (1 - lr wd) w - lr sign(m).

    m is the gradient, or with momentum its running mean, m <- momentum m + (1 - momentum) g from 0.
    An entry with m = 0 stays.

    Source: Bernstein et al. 2018, signSGD and Signum.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                mean = running_mean(self.state[p], p, group["momentum"]) if group["momentum"] else p.grad
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(mean.sign(), alpha=-group["lr"])


class _SignSGD(OptimizerKind):
    def copies(self, settings: Mapping[str, Any]) -> int:
        """The running mean; only with momentum."""
        return 1 if settings["momentum"] else 0


OPTIMIZER = _SignSGD("signsgd", SignSGD, {"momentum": 0.0}, elementwise=True)
