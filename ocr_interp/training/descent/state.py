"""The state of a descent: parameters on their device, one step, and the measurements of a row."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.errors import TrainingDivergedError
from ocr_interp.maps.base import LinearMap
from ocr_interp.theory.certificate import held_out_beta
from ocr_interp.theory.norms import as_norm
from ocr_interp.theory.problem import MaxMarginProblem

COLUMNS = (
    "step",
    "log10_time",
    "log10_loss",
    "margin",
    "beta",
    "held_out_accuracy",
    "norm_at_margin_1",
    "dual_bound",
)
"""The history: one row per logged step.

- step: updates done;
- log10_time: log10 of the sum of the step sizes; −inf at step 0;
- log10_loss: log10 of the mean cross-entropy in nats;
- margin: smallest training margin, logits;
- beta: coefficient of the held-out implication block relative to the training one;
- held_out_accuracy: share of held-out implications whose answer is first among the implications;
- norm_at_margin_1: the norm that the parameterisation makes small (nuclear if it has none) over the margin;
  inf while a margin is <= 0;
- dual_bound: lower bound of the smallest such norm that the residuals prove.
"""

SCORES = "scores"
"""Name of the attention scores among the parameters, where they are trained."""

_LITTLE = 1e-6
"""Relative length of the trial step that measures how fast the logits change."""


class DescentState:
    """Parameters on their device, one step of descent, and the measurements of a row."""

    def __init__(
        self,
        problem: MaxMarginProblem,
        linear_map: LinearMap,
        parameters: dict[str, Tensor],
        device: torch.device,
        lr: float | None,
        logit_step: float,
        relative_step: float,
    ) -> None:
        self.problem, self.linear_map = problem, linear_map
        self.parameters = {name: value.to(device) for name, value in parameters.items()}
        self.device, self.lr = device, lr
        self.limits = (logit_step, relative_step)
        x = torch.from_numpy(problem.x.toarray())
        self.x: Float[Tensor, "example input"] = x.to(device)
        self.correct: Int[Tensor, " example"] = torch.from_numpy(problem.correct).to(device)
        self.example = torch.arange(len(problem.correct), device=device)
        self.log_time = torch.tensor(-math.inf, dtype=torch.float64, device=device)
        self.step = 0

    def W(self) -> Float[Tensor, "input output"]:
        """The effective circuit."""
        return _effective(self.linear_map, self.parameters)

    def residuals(self, W: Float[Tensor, "input output"]) -> tuple[Tensor, Tensor, Tensor]:
        """Residuals (one-hot − softmax) over the largest, its logarithm, and the log losses."""
        logits = self.x @ W
        right = logits[self.example, self.correct].clone()
        logits[self.example, self.correct] = -torch.inf
        wrong = torch.logsumexp(logits, dim=1)
        gap = wrong - right  # loss = log(1 + exp(gap)), exp(gap) where that is small
        log_losses = torch.where(gap < -30, gap, torch.nn.functional.softplus(gap.clamp(min=-30)).log())
        log_residual = logits - torch.logaddexp(wrong, right).unsqueeze(1)
        top = log_residual.max()
        push = -torch.exp(log_residual - top)
        push[self.example, self.correct] = -push.sum(dim=1)
        return push, top, log_losses

    def advance(self) -> None:
        """One update."""
        W = self.W()
        push, top, _ = self.residuals(W)
        descent = (self.x.T @ push) / len(self.example)
        moves = self._pulled_back(descent)
        moving = {name: value for name, value in self.parameters.items() if name in moves}
        if self.lr is None:
            relative = _length(moving) / _length(moves)
            little = _LITTLE * relative
            near = {name: value + little * moves[name] for name, value in moving.items()}
            changed = _effective(self.linear_map, {**self.parameters, **near}) - W
            most = (self.x @ changed).abs().max() / little
            eta = torch.minimum(self.limits[0] / most, self.limits[1] * relative)
            self.log_time = torch.logaddexp(self.log_time, eta.log() - top)
        else:
            eta = self.lr * torch.exp(top)
            self.log_time = torch.logaddexp(self.log_time, torch.full_like(top, math.log(self.lr)))
        moved = {name: value + eta * moves[name] for name, value in moving.items()}
        self.parameters = {**self.parameters, **moved}
        self.step += 1

    def _pulled_back(self, descent: Float[Tensor, "input output"]) -> dict[str, Tensor]:
        """The negative gradient of every trained parameter from that of the effective circuit."""
        ov = {name: value for name, value in self.parameters.items() if name != SCORES}
        scores = self.parameters.get(SCORES)
        of_W = descent if scores is None else scores.unsqueeze(1) * descent
        gradients = self.linear_map.gradients(ov, of_W)
        moves = {name: value for name, value in gradients.items() if name not in self.linear_map.frozen}
        if scores is not None:
            moves[SCORES] = (self.linear_map.product(ov) * descent).sum(dim=1)
        return moves

    def measure(self) -> dict[str, float]:
        """One row of the history.

        Raises:
            TrainingDivergedError: weights that are not finite, as a fixed rate that is too large makes them.
        """
        W = self.W().cpu().numpy()
        if not np.isfinite(W).all():
            raise TrainingDivergedError(
                f"the descent diverged: its weights are not finite at step {self.step}: lower lr, or "
                "leave it out so that steps are limited by what they change"
            )
        push, _, log_losses = (value.cpu() for value in self.residuals(self.W()))
        log_loss = float(torch.logsumexp(log_losses, 0)) - math.log(len(log_losses))
        margin = float(self.problem.constraint_margins(W).min())
        norm = as_norm(self.linear_map.norm or "nuclear")
        held_out = self.problem.held_out_margins(W)
        size = float(np.abs(W).max()) or 1.0
        weights = -push.clamp(max=0).numpy()
        dual = float(weights.sum()) / norm.dual_value(self.problem.dual_matrix(weights))
        return {
            "step": float(self.step),
            "log10_time": float(self.log_time) / math.log(10),
            "log10_loss": log_loss / math.log(10),
            "margin": margin,
            "beta": held_out_beta(W / size, self.problem.task).projection if W.any() else math.nan,
            "held_out_accuracy": float((held_out > 0).mean()) if len(held_out) else math.nan,
            "norm_at_margin_1": norm.value(W) / margin if margin > 0 else math.inf,
            "dual_bound": dual,
        }


def _effective(linear_map: LinearMap, parameters: Mapping[str, Tensor]) -> Float[Tensor, "input output"]:
    ov = {name: value for name, value in parameters.items() if name != SCORES}
    W = linear_map.product(ov)
    return W if SCORES not in parameters else parameters[SCORES].unsqueeze(1) * W


def _length(parameters: Mapping[str, Tensor]) -> Float[Tensor, ""]:
    return torch.stack([value.square().sum() for value in parameters.values()]).sum().sqrt()
