"""Muon: orthogonalised updates of matrices, steepest descent in the spectral norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ocr_interp.checks import Option, check_choice, check_count, check_number
from ocr_interp.errors import ConfigError
from ocr_interp.optim.adamw import OPTIMIZER as ADAMW
from ocr_interp.optim.base import OptimizerKind, running_mean
from ocr_interp.optim.newton_schulz import orthogonalised, orthogonalised_stack

_LARGE = 192
"""Matrices whose shorter side is at least this are orthogonalised one by one. From about here on that is
faster on a CPU (measured: equal at 192 x 192, two thirds of the time at 192 x 576 and 576 x 576, but
twice the time at 64 x 128). It also keeps the results of both uses the same to the bit: the matrices of the
one-layer models are smaller, those of SmolLM2-135M at least this large."""


class Float32Muon(torch.optim.Optimizer):
    """torch.optim.Muon with its Newton-Schulz iteration in float32, over all matrices of one shape at once.

    The same momentum (a running mean), Nesterov step, coefficients, decoupled weight decay and rates;
    only the rounding to bfloat16 is left out, which on processors without bfloat16 units takes most of
    the time. A matrix gets the same bits alone as together with others of its shape. A parameter of more than
    two axes is a stack of matrices (its last two axes), each orthogonalised by itself.
    """

    def __init__(self, params: Iterable[Any], **options: Any) -> None:
        super().__init__(params, options)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, params in by_shape.items():
                rate = group["lr"] * _rate_of_shape(group["adjust_lr_fn"], *shape[-2:])
                for p, direction in zip(params, self._directions(params, group), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(direction, alpha=-rate)

    def _directions(self, params: Sequence[Tensor], group: Mapping[str, Any]) -> Iterable[Tensor]:
        """Orthogonalised momenta of parameters of one shape."""
        momenta = (self._momentum(p, group) for p in params)
        steps, eps = group["ns_steps"], group["eps"]
        if params[0].ndim == 2 and min(params[0].shape) >= _LARGE:
            return (orthogonalised(matrix, steps, eps) for matrix in momenta)
        stacked = torch.stack(list(momenta))
        matrices = orthogonalised_stack(stacked.view(-1, *stacked.shape[-2:]), steps, eps)
        return matrices.reshape(stacked.shape)

    def _momentum(self, p: Tensor, group: Mapping[str, Any]) -> Tensor:
        """The momentum that is orthogonalised, in float32."""
        mean = running_mean(self.state[p], p, group["momentum"])
        if group["nesterov"] and p.grad is not None:
            mean = p.grad.lerp(mean, group["momentum"])
        return mean.float()


def _rate_of_shape(adjust: str, rows: int, columns: int) -> float:
    """The factor of torch.optim.Muon on the learning rate of a matrix."""
    if adjust == "original":
        return math.sqrt(max(1, rows / columns))
    return 0.2 * math.sqrt(max(rows, columns))


class _Muon(OptimizerKind):
    """Linear maps go to Muon, vectors and tables of embeddings to AdamW.

    A parameter of three axes or more is a stack of maps (Kronecker factors [sum, row, column], one map
    for each route): its matrices are orthogonalised one by one in float32. torch.optim.Muon does not take
    stacks, so muon_precision="bfloat16" refuses such a parameter.
    """

    def takes(self, shape: tuple[int, ...], is_map: bool) -> bool:
        """Maps and stacks of them."""
        return is_map and len(shape) >= 2

    def check(self, options: Mapping[str, Option]) -> None:
        """What torch.optim.Muon allows."""
        check_choice("muon_adjust_lr", options["muon_adjust_lr"], ("original", "match_rms_adamw"))
        check_choice("muon_precision", options["muon_precision"], ("bfloat16", "float32"))
        check_count("muon_ns_steps", options["muon_ns_steps"], 1)
        check_number("muon_eps", options["muon_eps"], above=0)
        check_number("muon_momentum", options["muon_momentum"], at_least=0)
        if float(options["muon_momentum"]) >= 1:
            raise ConfigError(f"muon_momentum must be < 1, got {options['muon_momentum']}")

    def group(self, settings: Mapping[str, Any], parameter: Tensor) -> dict[str, Any]:
        """The settings by the names of torch.optim.Muon."""
        if parameter.ndim > 2 and self.maker(settings) is torch.optim.Muon:
            raise ConfigError(
                f"muon_precision='bfloat16' is torch.optim.Muon, which takes no stack of matrices, got a "
                f"parameter of shape {tuple(parameter.shape)}: muon_precision='float32' orthogonalises each "
                "of its matrices"
            )
        return {
            "lr": settings["lr"],
            "weight_decay": settings["weight_decay"],
            "momentum": settings["muon_momentum"],
            "nesterov": settings["muon_nesterov"],
            "ns_steps": settings["muon_ns_steps"],
            "eps": settings["muon_eps"],
            "adjust_lr_fn": settings["muon_adjust_lr"],
        }

    def maker(self, settings: Mapping[str, Any]) -> Callable[[list[dict[str, Any]]], torch.optim.Optimizer]:
        """torch.optim.Muon, or the same in float32."""
        return torch.optim.Muon if settings["muon_precision"] == "bfloat16" else Float32Muon


OPTIMIZER = _Muon(
    "muon",
    torch.optim.Muon,
    {
        "muon_momentum": 0.95,
        "muon_nesterov": True,
        "muon_ns_steps": 5,
        "muon_adjust_lr": "original",
        "muon_eps": 1e-7,
        "muon_precision": "bfloat16",
    },
    state_copies=1,
    fallback=ADAMW,
    needs="a matrix",
)
