"""float32 copies of trained parameters whose own precision is lower; optimisers step on the copies."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class MasterWeights:
    """The trained parameters in the precision that optimisers need.

    A bfloat16 number has 8 bits of mantissa, so that a step of less than a 500th of a weight's size is
    rounded away: at a learning rate of 1e-5 nearly every step is. The steps are therefore summed up in a
    float32 copy of each such parameter, and the parameter is the rounded copy (mixed-precision training,
    Micikevicius et al., arXiv 1710.03740). A float32 parameter needs no copy.

    Args:
        parameters: the trained parameters by name, on their device.

    Attributes:
        trained: by name what optimisers step on: the parameter itself, or its float32 copy.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._own = dict(parameters)
        self.trained = {name: _master(p) for name, p in parameters.items()}

    @property
    def _copied(self) -> list[tuple[Tensor, Tensor]]:
        """(parameter, float32 copy) of all that have one."""
        pairs = ((own, self.trained[name]) for name, own in self._own.items())
        return [(own, copy) for own, copy in pairs if own is not copy]

    def take_gradients(self) -> None:
        """Moves the gradients of the parameters to their copies, before the optimisers step."""
        for own, copy in self._copied:
            copy.grad = None if own.grad is None else own.grad.float()
            own.grad = None

    def write_back(self) -> None:
        """Rounds the copies into the parameters, after the optimisers have stepped."""
        with torch.no_grad():
            for own, copy in self._copied:
                own.copy_(copy)


def _master(parameter: Tensor) -> Tensor:
    if parameter.dtype.itemsize >= torch.float32.itemsize:
        return parameter
    return parameter.detach().float().requires_grad_()
