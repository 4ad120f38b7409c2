"""Gradient descent, plain or with momentum (torch's, undamped); weight decay is an L2 penalty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ocr_interp.optim.base import OptimizerKind, has_fused


class _SGD(OptimizerKind):
    def group(self, settings: Mapping[str, Any], parameter: Tensor) -> dict[str, Any]:
        """The settings by the names of torch.optim.SGD."""
        return {**settings, "fused": has_fused(parameter)}

    def copies(self, settings: Mapping[str, Any]) -> int:
        """The velocity; only with momentum."""
        return 1 if settings["momentum"] else 0

    def decayed(self, value: float, settings: Mapping[str, Any], steps: int) -> float:
        """The penalty's gradient goes through the momentum like any other."""
        velocity = 0.0
        for _ in range(steps if settings["weight_decay"] else 0):
            velocity = settings["momentum"] * velocity + settings["weight_decay"] * value
            value -= settings["lr"] * velocity
        return value


OPTIMIZER = _SGD("sgd", torch.optim.SGD, {"momentum": 0.0}, elementwise=True)
