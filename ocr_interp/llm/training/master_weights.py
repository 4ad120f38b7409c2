"""What optimisers step on: trained parameters, or copies in float32 or of one matrix each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from ocr_interp.llm.layers.joined import JoinedMatrices, name_of_piece

_NONE: Mapping[str, JoinedMatrices] = MappingProxyType({})


class MasterWeights:
    """The trained parameters in the precision that optimisers need.

    A bfloat16 number has 8 bits of mantissa, so that a step of less than a 500th of a weight's size is
    rounded away: at a learning rate of 1e-5 nearly every step is. The steps are therefore summed up in a
    float32 copy of each such parameter, and the parameter is the rounded copy (mixed-precision training,
    Micikevicius et al., arXiv 1710.03740). A float32 parameter needs no copy.

    Args:
        parameters: the trained parameters by name, on their device.
        joined: those that hold several matrices (`joined_in`).
        alone: whether each of these matrices is stepped on alone, in a copy, because the optimiser looks at
            a matrix as a whole (Muon).

    Attributes:
        trained: by name what optimisers step on: the parameter itself, or its copy.
        joined: the parameters of several matrices that are stepped on together.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        joined: Mapping[str, JoinedMatrices] = _NONE,
        *,
        alone: bool = False,
    ) -> None:
        self.trained: dict[str, Tensor] = {}
        self.joined = _NONE if alone else joined
        self._copied: list[tuple[Tensor, JoinedMatrices | None, list[Tensor]]] = []
        for name, parameter in parameters.items():
            module = joined.get(name) if alone else None
            if module is None:
                self.trained[name] = master = _master(parameter)
                masters = [] if master is parameter else [master]
            else:
                masters = [_copy(piece) for piece in module.pieces(parameter)]
                self.trained |= {name_of_piece(name, k): master for k, master in enumerate(masters)}
            if masters:
                self._copied.append((parameter, module, masters))

    def take_gradients(self) -> None:
        """Moves the gradients of the parameters to their copies, before the optimisers step."""
        for own, module, copies in self._copied:
            gradient, own.grad = own.grad, None
            for k, copy in enumerate(copies):
                part = gradient if gradient is None or module is None else module.pieces(gradient)[k]
                copy.grad = None if part is None else part.to(copy.dtype).contiguous()

    def write_back(self) -> None:
        """Rounds the copies into the parameters, after the optimisers have stepped."""
        with torch.no_grad():
            for own, module, copies in self._copied:
                for part, copy in zip((own,) if module is None else module.pieces(own), copies, strict=True):
                    part.copy_(copy)


def _master(parameter: Tensor) -> Tensor:
    return parameter if _is_precise(parameter) else _copy(parameter)


def _copy(tensor: Tensor) -> Tensor:
    precise = tensor.detach() if _is_precise(tensor) else tensor.detach().float()
    return precise.clone(memory_format=torch.contiguous_format).requires_grad_()


def _is_precise(tensor: Tensor) -> bool:
    return tensor.dtype.itemsize >= torch.float32.itemsize
