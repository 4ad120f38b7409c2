"""What an optimiser must provide for runs, stacks, sweeps and language models to use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ocr_interp.checks import Option
from ocr_interp.errors import ConfigError


@dataclass(frozen=True, eq=False)
class OptimizerKind:
    """A kind of optimiser. A simple one is a torch.optim.Optimizer with its options:

        OPTIMIZER = OptimizerKind("lion", Lion, {"rho": 0.99}, state_copies=1)

    An optimiser that differs in more than these overrides methods in a subclass.

    Attributes:
        name: the name of its file, or the one that it is registered under.
        make: makes the torch optimiser from parameter groups. A group holds "params" and what
            `group` returns. Between steps the optimiser keeps tensors only, in its `state`.
        options: the settings that it reads beside lr and weight_decay, with their defaults. A setting
            that a recipe has a field for (such as momentum) is read from there, any other one from
            the recipe's optimizer_options.
        state_copies: number of tensors of a parameter's size that it keeps per parameter between steps.
        fallback: the kind that updates the parameters that this one does not take, at the recipe's
            fallback_lr; None if it takes every parameter.
        needs: what a model must train for this kind to be usable, for messages.
        elementwise: whether the step of an entry depends on this entry alone, so that matrices may be
            trained side by side in one tensor. Elsewhere each gets a tensor of its own.
    """

    name: str
    make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
    options: Mapping[str, Option] = field(default_factory=dict)
    state_copies: int = 0
    fallback: OptimizerKind | None = None
    needs: str = "a parameter"
    elementwise: bool = False

    def takes(self, shape: tuple[int, ...], is_map: bool) -> bool:
        """Whether it updates a parameter itself.

        Args:
            shape: of the parameter.
            is_map: whether the parameter acts as a linear map, or as a stack of them: neither a vector
                nor a table of embeddings.
        """
        return True

    def check(self, options: Mapping[str, Option]) -> None:
        """Raises ConfigError for a value of an option that is not allowed; types are checked before."""

    def group(self, settings: Mapping[str, Any], parameter: Tensor) -> dict[str, Any]:
        """The parameter group of a parameter, as `make` expects it; equal groups are joined."""
        return dict(settings)

    def maker(self, settings: Mapping[str, Any]) -> Callable[[list[dict[str, Any]]], torch.optim.Optimizer]:
        """The `make` for these settings, for kinds where it depends on them."""
        return self.make

    def copies(self, settings: Mapping[str, Any]) -> int:
        """The `state_copies` for these settings, for kinds where it depends on them."""
        return self.state_copies

    def decayed(self, value: float, settings: Mapping[str, Any], steps: int) -> float:
        """The value of a weight without gradients after some steps of weight decay.

        Decoupled weight decay by default: value (1 - lr weight_decay)^steps.
        """
        return value * (1 - settings["lr"] * settings["weight_decay"]) ** steps

    def for_parameter(
        self, recipe: Mapping[str, Any], shape: tuple[int, ...], is_map: bool
    ) -> tuple[OptimizerKind, dict[str, Any]]:
        """The kind that updates a parameter in a recipe of this kind, and the settings that it reads.

        Args:
            recipe: all settings by name: lr, fallback_lr, weight_decay and options; those that are
                missing have the kind's default.
            shape, is_map: as in `takes`.

        Raises:
            ConfigError: neither this kind nor its fallback takes the parameter.
        """
        if not self.takes(shape, is_map):
            if self.fallback is None:
                raise ConfigError(
                    f"optimizer={self.name!r} takes no parameter of shape {shape} and names no fallback: "
                    "choose another optimizer"
                )
            return self.fallback.for_parameter({**recipe, "lr": recipe["fallback_lr"]}, shape, is_map)
        own = {name: recipe.get(name, default) for name, default in self.options.items()}
        return self, {"lr": recipe["lr"], "weight_decay": recipe["weight_decay"], **own}


def has_fused(parameter: Tensor) -> bool:
    """Whether torch has its fused AdamW and SGD for the device of a parameter."""
    return parameter.device.type in ("cpu", "cuda")


def running_mean(state: dict[str, Tensor], parameter: Tensor, momentum: float) -> Tensor:
    """Running mean of a parameter's gradients, starting at 0, updated with its current gradient."""
    if parameter.grad is None:
        raise ValueError("a parameter without a gradient has no running mean of gradients")
    if "momentum_buffer" not in state:
        state["momentum_buffer"] = torch.zeros_like(parameter)
    return state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
