"""Full-batch descent on the logarithm of the loss, of models whose prompts may have matrices of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.maps.base import LinearMap
from ocr_interp.mitigation.aim import Aim
from ocr_interp.optim import optimizers
from ocr_interp.optim.stepping import torch_optimizers
from ocr_interp.triples import Triples

Steering = Callable[[Float[Tensor, "prompt output"]], dict[str, Tensor]]
"""Moves of the parameters, by name, from the pull on the logits of the told prompts: how a method changes a
step."""

_LITTLE = 1e-6
"""Relative length of the trial step that measures how fast the logits change."""


class Descent:
    """Parameters, and steps of descent on log(mean cross-entropy) of the told answers.

    It has the path of gradient descent on the loss itself, at another speed, and lets a penalty keep its
    weight while the loss falls. A step changes no told logit by more than `logit_step`, to first order, and
    the parameters by no more than `relative_step` of their length.

    Args:
        aim: the task and what is unwanted.
        told: the training set, float64.
        linear_map: how parameters make W, one matrix or one per route.
        routes: the matrix that each relation's prompts use.
        parameters: at the start.
        optimizer: name of an optimiser of `ocr_interp.optim` and its learning rate, whose steps have no such
            limits; None: gradient descent.
        device: where it is computed.
        logit_step, relative_step: the limits.
    """

    def __init__(
        self,
        aim: Aim,
        told: Triples,
        linear_map: LinearMap,
        routes: Sequence[int],
        parameters: dict[str, Tensor],
        optimizer: tuple[str, float] | None = None,
        device: torch.device | str = "cpu",
        logit_step: float = 0.1,
        relative_step: float = 0.05,
    ) -> None:
        self.aim, self.told, self.linear_map, self.routes = aim, told, linear_map, tuple(routes)
        self.device, self.limits, self.step = torch.device(device), (logit_step, relative_step), 0
        self.parameters = {name: value.detach().clone().to(device) for name, value in parameters.items()}
        self._told_inputs = self.inputs(told)
        self._correct = torch.from_numpy(told.answer).to(self.device)
        self._example = torch.arange(len(told), device=self.device)
        self._optimizers: list[torch.optim.Optimizer] = []
        if optimizer is not None:
            name, lr = optimizer
            recipe = {"lr": lr, "fallback_lr": lr, "weight_decay": 0.0}
            trained = [(self.parameters[each], True, recipe) for each in self.trained]
            self._optimizers = torch_optimizers(optimizers[name], trained)

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the parameters that are trained."""
        return tuple(name for name in self.parameters if name not in self.linear_map.frozen)

    @property
    def n_trained(self) -> int:
        """Number of trained parameters."""
        return sum(self.parameters[name].numel() for name in self.trained)

    def inputs(self, prompts: Triples) -> Float[Tensor, "route prompt input"]:
        """e_s + e_r of every prompt in its route, zero in the others."""
        n, prompt = len(prompts), np.arange(len(prompts))
        x = np.zeros((max(self.routes) + 1, n, self.aim.shape[0]))
        route = np.array(self.routes)[prompts.relation]
        x[route, prompt, prompts.subject] = 1.0
        x[route, prompt, self.aim.task.n_subjects + prompts.relation] = 1.0
        return torch.from_numpy(x).to(self.device)

    def W(self) -> Float[Tensor, "route input output"]:
        """The matrices."""
        return self._product(self.parameters)

    def _product(self, parameters: dict[str, Tensor]) -> Float[Tensor, "route input output"]:
        W = self.linear_map.product(parameters)
        return W if W.dim() == 3 else W.unsqueeze(0)

    def logits(self, inputs: Float[Tensor, "route prompt input"]) -> Float[Tensor, "prompt output"]:
        """Logits of prompts."""
        return _logits(self.W(), inputs)

    def margin(self) -> Float[Tensor, ""]:
        """Smallest lead of a told answer over every other output, in logits."""
        right, wrong = self._right_and_wrong(self.logits(self._told_inputs))
        return (right - wrong.amax(1)).min()

    def _right_and_wrong(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        right = logits[self._example, self._correct]
        wrong = logits.clone()
        wrong[self._example, self._correct] = -torch.inf
        return right, wrong

    def pull(self) -> Float[Tensor, "prompt output"]:
        """− the gradient of log(mean cross-entropy) in the logits of the told prompts."""
        right, wrong = self._right_and_wrong(self.logits(self._told_inputs))
        most = torch.logsumexp(wrong, 1)
        gap = most - right  # loss = log(1 + exp(gap)), exp(gap) where that is small
        log_loss = torch.where(gap < -30, gap, torch.nn.functional.softplus(gap.clamp(min=-30)).log())
        log_share = wrong - torch.logaddexp(most, right).unsqueeze(1) - torch.logsumexp(log_loss, 0)
        found = -torch.exp(log_share)
        found[self._example, self._correct] = -found.sum(1)
        return found

    def pull_back(
        self,
        pull: Float[Tensor, "prompt output"],
        inputs: Float[Tensor, "route prompt input"] | None = None,
    ) -> dict[str, Tensor]:
        """Moves of the trained parameters from a pull on the logits of prompts, by default the told ones."""
        of_W = (self._told_inputs if inputs is None else inputs).mT @ pull
        if self.linear_map.n_routes is None:
            of_W = of_W.squeeze(0)
        moves = self.linear_map.gradients(self.parameters, of_W)
        return {name: moves[name] for name in self.trained}

    def advance(self, steps: int, steering: Steering | None = None) -> None:
        """Makes steps; `steering` gives the moves, by default `pull_back`."""
        for _ in range(steps):
            moves = (steering or self.pull_back)(self.pull())
            if self._optimizers:
                for name, move in moves.items():
                    self.parameters[name].grad = -move
                for optimizer in self._optimizers:
                    optimizer.step()
            else:
                eta = self._step_size(moves)
                for name, move in moves.items():
                    self.parameters[name] = self.parameters[name] + eta * move
            self.step += 1

    def _step_size(self, moves: dict[str, Tensor]) -> Float[Tensor, ""]:
        relative = _length([self.parameters[name] for name in moves]) / _length(list(moves.values()))
        little = _LITTLE * relative
        near = {name: self.parameters[name] + little * move for name, move in moves.items()}
        change = _logits(self._product({**self.parameters, **near}) - self.W(), self._told_inputs)
        most = change.abs().max() / little
        return torch.minimum(self.limits[0] / most, self.limits[1] * relative)


def _logits(
    W: Float[Tensor, "route input output"], inputs: Float[Tensor, "route prompt input"]
) -> Float[Tensor, "prompt output"]:
    return (inputs @ W).sum(0)


def _length(tensors: Sequence[Tensor]) -> Float[Tensor, ""]:
    return torch.stack([value.square().sum() for value in tensors]).sum().sqrt()
