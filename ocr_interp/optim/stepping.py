"""Optimiser steps: torch optimisers made from kinds, and the updates of several runs in lockstep."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ocr_interp.errors import ConfigError, OcrInterpError, RunError
from ocr_interp.optim import optimizers
from ocr_interp.optim.base import OptimizerKind


@runtime_checkable
class Recipe(Protocol):
    """What a recipe says about its optimisers (`TrainConfig`)."""

    @property
    def switch_step(self) -> int:
        """Number of the first update by the second optimiser; 0 without one."""
        ...

    def phases(self, step: int | None = None) -> Sequence[Any]:
        """The phases up to a step, in order; the `optimizer` of each is a name."""
        ...

    def optimizer_settings(self, phase: Any) -> Mapping[str, Any]:
        """All settings of a phase, as `OptimizerKind.for_parameter` reads them."""
        ...


def torch_optimizers(
    kind: OptimizerKind,
    parameters: Iterable[tuple[Tensor, bool, Mapping[str, Any]]],
) -> list[torch.optim.Optimizer]:
    """The torch optimisers of parameters, the kind's own first; equal settings share a group.

    Args:
        kind: the kind that the recipe names; parameters that it does not take go to its fallback.
        parameters: (parameter, is_map, recipe) of each, as in `OptimizerKind.for_parameter`.

    Raises:
        ConfigError: the kind takes none of them.
    """
    groups: dict[tuple[Any, ...], list[Tensor]] = {}
    for parameter, is_map, recipe in parameters:
        owner, settings = kind.for_parameter(recipe, tuple(parameter.shape), is_map)
        key = (owner is not kind, owner.maker(settings), *owner.group(settings, parameter).items())
        groups.setdefault(key, []).append(parameter)
    if all(is_fallback for is_fallback, *_ in groups):
        raise ConfigError(f"optimizer={kind.name!r} needs {kind.needs} to train: this model trains none")
    made: dict[tuple[bool, Any], list[dict[str, Any]]] = {}
    for (is_fallback, make, *options), tensors in groups.items():
        made.setdefault((is_fallback, make), []).append({"params": tensors, **dict(options)})
    ordered = sorted(made.items(), key=lambda item: item[0][0])
    return [make(param_groups) for (_, make), param_groups in ordered]


def state_of(made: Iterable[torch.optim.Optimizer], parameter: Tensor) -> dict[str, Tensor]:
    """The tensors that optimisers keep for a parameter, by their names in the optimisers' state.

    Raises:
        OcrInterpError: a value that is not a tensor, which a checkpoint cannot hold.
    """
    found: dict[str, Tensor] = {}
    for optimizer in made:
        for key, value in optimizer.state.get(parameter, {}).items():
            if not isinstance(value, Tensor):
                raise OcrInterpError(
                    f"{type(optimizer).__name__} keeps {key} as {type(value).__name__}: checkpoints hold "
                    "tensors, so keep it as one (torch.tensor(0.0) for a count)"
                )
            found[key] = value.detach()
    return found


def _entries_after_a_step(optimizer: torch.optim.Optimizer, parameter: Tensor) -> set[str]:
    """What an optimiser keeps for a parameter, found by a step on a tiny one that stands for it."""
    group = next(g for g in optimizer.param_groups if any(t is parameter for t in g["params"]))
    small = torch.nn.Parameter(parameter.new_zeros([min(size, 2) for size in parameter.shape]))
    small.grad = torch.zeros_like(small)
    probe = copy.copy(optimizer)
    probe.param_groups, probe.state = [{**group, "params": [small]}], defaultdict(dict)
    probe.step()
    return {key for key, value in probe.state[small].items() if isinstance(value, Tensor)}


def put_state(made: Iterable[torch.optim.Optimizer], parameter: Tensor, state: Mapping[str, Tensor]) -> None:
    """Restores the result of `state_of`, to the bit.

    Raises:
        RunError: an entry that cannot be of this parameter, whatever seal its file has.
    """
    for key, value in state.items():
        sizes = [n for n in value.shape if n not in parameter.shape]
        if value.numel() > parameter.numel() or sizes or value.dtype not in (parameter.dtype, torch.float32):
            raise RunError(
                f"the checkpoint holds {key!r} of {value.dtype} {tuple(value.shape)} for a parameter of "
                f"{parameter.dtype} {tuple(parameter.shape)}: restore it, or start anew elsewhere"
            )
    for optimizer in made:
        if any(tensor is parameter for group in optimizer.param_groups for tensor in group["params"]):
            wanted = _entries_after_a_step(optimizer, parameter)
            if state and set(state) != wanted:
                raise RunError(
                    f"the checkpoint must hold {', '.join(sorted(wanted)) or 'nothing'} of the optimiser for "
                    f"each parameter, got {', '.join(sorted(state))}: restore it, or start anew elsewhere"
                )
            for key, value in state.items():
                # A step count belongs where torch keeps it (on the CPU, unless fused on a GPU).
                on_device = value.dim() or parameter.device.type == "cuda"
                optimizer.state[parameter][key] = value.to(parameter.device if on_device else "cpu")


class RunOptimizers:
    """The updates of several runs in lockstep, each with its own recipe.

    Torch's optimisers act on each run's own tensors, so a run gets the same bits alone as together with
    others. Parameters of two or more axes are treated as linear maps, or stacks of them.

    Args:
        recipes: one for each run. All have the same names of optimisers, which switch at the same step.
        parameters: the tensors of each run by name; their `.grad` are read at every step.
    """

    def __init__(self, recipes: Sequence[Recipe], parameters: Sequence[Mapping[str, Tensor]]) -> None:
        if len({recipe.switch_step for recipe in recipes}) != 1:
            raise ConfigError("runs in lockstep must switch their optimiser at the same step")
        self._recipes, self._parameters = list(recipes), list(parameters)
        self._phase, self._optimizers = -1, []

    def step(self, step: int) -> None:
        """Update number `step`, counted from 0."""
        self._enter(step)
        for optimizer in self._optimizers:
            optimizer.step()

    def kinds(self, run: int, step: int) -> dict[str, OptimizerKind]:
        """The kind that makes update `step` of each parameter of a run: the recipe's own or its fallback."""
        phase = self._recipes[run].phases(step + 1)[-1]
        recipe, kind = self._recipes[run].optimizer_settings(phase), optimizers[phase.optimizer]
        return {
            name: kind.for_parameter(recipe, tuple(p.shape), p.ndim >= 2)[0]
            for name, p in self._parameters[run].items()
        }

    def state(self, run: int, step: int) -> dict[str, dict[str, Tensor]]:
        """The state of a run's optimisers before update number `step`, by parameter."""
        self._enter(step)
        found = {name: state_of(self._optimizers, p) for name, p in self._parameters[run].items()}
        return {name: state for name, state in found.items() if state}

    def restore(self, run: int, step: int, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restores the result of `state(run, step)`."""
        self._enter(step)
        for name, tensors in state.items():
            put_state(self._optimizers, self._parameters[run][name], tensors)

    def _enter(self, step: int) -> None:
        """Makes the optimisers of the phase that update number `step` belongs to."""
        index = len(self._recipes[0].phases(step + 1)) - 1
        if index == self._phase:
            return
        self._phase = index
        by_name: dict[str, list[tuple[Tensor, bool, Mapping[str, Any]]]] = {}
        for recipe, named in zip(self._recipes, self._parameters, strict=True):
            phase = recipe.phases(step + 1)[-1]
            settings, members = recipe.optimizer_settings(phase), by_name.setdefault(phase.optimizer, [])
            members += [(parameter, parameter.ndim >= 2, settings) for parameter in named.values()]
        self._optimizers = [
            optimizer
            for name, members in by_name.items()
            for optimizer in torch_optimizers(optimizers[name], members)
        ]
