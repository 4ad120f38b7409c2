"""Optimisers of one run or of many at once: AdamW, gradient descent, sign descent, Muon, and a switch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ocr_interp.configuration.training import TrainConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration of torch.optim.Muon."""


class SignSGD(torch.optim.Optimizer):
    """Each entry moves by lr against the sign of its gradient: w <- (1 - lr wd) w - lr sign(m).

    m is the gradient, or with momentum its running mean, m <- momentum m + (1 - momentum) g from 0
    (Bernstein et al. 2018, signSGD and Signum). An entry with m = 0 stays.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                mean = _running_mean(self.state[p], p, group["momentum"]) if group["momentum"] else p.grad
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(mean.sign(), alpha=-group["lr"])


class Float32Muon(torch.optim.Optimizer):
    """torch.optim.Muon with its Newton-Schulz iteration in float32, over all matrices of one shape at once.

    The same momentum (a running mean), Nesterov step, coefficients, decoupled weight decay and rates;
    only the rounding to bfloat16 is left out, which on CPUs without bfloat16 units takes most of the
    time. A matrix gets the same bits alone as among others of its shape.
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
            for (rows, columns), params in by_shape.items():
                rate = group["lr"] * _rate_of_shape(group["adjust_lr_fn"], rows, columns)
                directions = orthogonalised(self._momenta(params, group), group["ns_steps"], group["eps"])
                for p, direction in zip(params, directions, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(direction, alpha=-rate)

    def _momenta(self, params: Sequence[Tensor], group: Mapping[str, Any]) -> Tensor:
        """What is orthogonalised, of all matrices [stack, row, column]."""
        momentum, found = group["momentum"], []
        for p in params:
            mean = _running_mean(self.state[p], p, momentum)
            assert p.grad is not None
            found.append(p.grad.lerp(mean, momentum) if group["nesterov"] else mean)
        return torch.stack(found).float()


def orthogonalised(matrices: Tensor, steps: int, eps: float = 1e-7) -> Tensor:
    """Each matrix [stack, row, column] with its singular values pushed towards 1 (0.7 to 1.2).

    A norm below eps counts as eps, so that the matrix comes out smaller.

    Source: the Newton-Schulz iteration of torch.optim.Muon.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    X = (matrices.mT if tall else matrices).contiguous()
    X = X / X.flatten(1).norm(dim=1).clamp(min=eps)[:, None, None]
    for _ in range(steps):
        gram = X @ X.mT
        X = torch.baddbmm(X, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), X, beta=a)
    return X.mT if tall else X


def _rate_of_shape(adjust: str, rows: int, columns: int) -> float:
    """What torch.optim.Muon multiplies the rate of a matrix with."""
    if adjust == "original":
        return math.sqrt(max(1, rows / columns))
    return 0.2 * math.sqrt(max(rows, columns))


class RunOptimizers:
    """The updates of several runs in lockstep, each with its own recipe.

    Torch's optimisers on each run's own tensors, one parameter group a set of hyperparameters: a run gets
    the same bits alone as among others.

    Args:
        recipes: one a run; a second optimiser takes over at the same step in all of them.
        parameters: the tensors of each run by name; their `.grad` are read at every step.
    """

    def __init__(self, recipes: Sequence[TrainConfig], parameters: Sequence[Mapping[str, Tensor]]) -> None:
        assert len({recipe.switch_step for recipe in recipes}) == 1
        self._recipes, self._parameters = list(recipes), list(parameters)
        self._phase, self._optimizers = -1, []

    def step(self, step: int) -> None:
        """Update number `step`, counted from 0."""
        self._enter(step)
        for optimizer in self._optimizers:
            optimizer.step()

    def state(self, run: int, step: int) -> dict[str, dict[str, Tensor]]:
        """What the optimisers of a run remember before update number `step`, by parameter."""
        self._enter(step)
        found = {}
        for optimizer in self._optimizers:
            for name, parameter in self._parameters[run].items():
                if parameter in optimizer.state:
                    found[name] = dict(optimizer.state[parameter])
        return found

    def restore(self, run: int, step: int, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Puts a run's `state(run, step)` back."""
        self._enter(step)
        for optimizer in self._optimizers:
            tensors = [p for group in optimizer.param_groups for p in group["params"]]
            loaded = optimizer.state_dict()
            for name, parameter in self._parameters[run].items():
                index = [k for k, tensor in enumerate(tensors) if tensor is parameter]
                if index and name in state:
                    loaded["state"][index[0]] = dict(state[name])
            optimizer.load_state_dict(loaded)

    def _enter(self, step: int) -> None:
        """Makes the optimisers of the phase that update number `step` belongs to."""
        phase = len(self._recipes[0].phases(step + 1)) - 1
        if phase == self._phase:
            return
        self._phase = phase
        groups: dict[tuple[Any, ...], list[Tensor]] = {}
        for recipe, named in zip(self._recipes, self._parameters, strict=True):
            for parameter in named.values():
                groups.setdefault(_settings(recipe, phase, parameter), []).append(parameter)
        by_class: dict[Any, list[dict[str, Any]]] = {}
        for (kind, *options), tensors in groups.items():
            by_class.setdefault(kind, []).append({"params": tensors, **dict(options)})
        self._optimizers = [_CLASSES[kind](groups) for kind, groups in by_class.items()]


def _settings(recipe: TrainConfig, phase: int, parameter: Tensor) -> tuple[Any, ...]:
    """Class and options of the optimiser of a parameter; equal ones share a parameter group."""
    now = recipe.phases()[phase]
    kind, lr = now.optimizer, now.lr
    if kind == "muon" and parameter.ndim != 2:
        kind, lr = "adamw", recipe.scores_lr
    common: list[tuple[str, Any]] = [("lr", lr), ("weight_decay", recipe.weight_decay)]
    if kind == "adamw":
        betas = (recipe.beta1, recipe.beta2)
        return kind, *common, ("betas", betas), ("eps", recipe.eps), ("fused", _fused(parameter))
    if kind == "sgd":
        return kind, *common, ("momentum", recipe.momentum), ("fused", _fused(parameter))
    if kind == "signsgd":
        return kind, *common, ("momentum", recipe.momentum)
    return (
        f"muon {recipe.muon_precision}",
        *common,
        ("momentum", recipe.muon_momentum),
        ("nesterov", recipe.muon_nesterov),
        ("ns_steps", recipe.muon_ns_steps),
        ("eps", recipe.muon_eps),
        ("adjust_lr_fn", recipe.muon_adjust_lr),
    )


_CLASSES: dict[str, Callable[[list[dict[str, Any]]], torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "signsgd": lambda groups: SignSGD(groups, lr=groups[0]["lr"]),
    "muon bfloat16": torch.optim.Muon,
    "muon float32": Float32Muon,
}


def _fused(parameter: Tensor) -> bool:
    return parameter.device.type in ("cpu", "cuda")


def _running_mean(state: dict[str, Tensor], parameter: Tensor, momentum: float) -> Tensor:
    """Running mean of the gradients, from 0, updated by the gradient at hand."""
    if "momentum_buffer" not in state:
        state["momentum_buffer"] = torch.zeros_like(parameter)
    assert parameter.grad is not None
    return state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
