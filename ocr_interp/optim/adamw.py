"""AdamW: steps by running means of the gradient and of its square, with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ocr_interp.optim.base import OptimizerKind, has_fused


class _AdamW(OptimizerKind):
    def group(self, settings: Mapping[str, Any], parameter: Tensor) -> dict[str, Any]:
        """The settings by the names of torch.optim.AdamW."""
        return {
            "lr": settings["lr"],
            "weight_decay": settings["weight_decay"],
            "betas": (settings["beta1"], settings["beta2"]),
            "eps": settings["eps"],
            "fused": has_fused(parameter),
        }


OPTIMIZER = _AdamW(
    "adamw",
    torch.optim.AdamW,
    {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    state_copies=2,
    elementwise=True,
)
