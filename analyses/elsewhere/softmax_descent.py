"""Gradient descent to long times with trained softmax attention, from uniform scores: as `long_descent`.

The steps are those of `ocr_interp.training.long_descent`. Prompts hold the subject, the relation and EOS, the
query; the attention of a prompt is the softmax of its tokens' scores, so W acts through another mixture of
rows in every kind of prompt, and no one effective circuit exists.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp import FactRecallTask
from ocr_interp.devices import seeded_generator
from ocr_interp.theory.problem import MaxMarginProblem, max_margin_problem

LITTLE = 1e-6
"""Relative length of the trial step that measures how fast the logits change."""

COLUMNS = ("log10_time", "margin", "beta", "norm_at_margin_1", "told", "untold", "r1", "r2", "eos")
"""One row per decade of time. margin: smallest training margin, logits; beta: logit of the untold implication
against the others' mean over that of the told one; the rest: mean scores by kind of token."""


@dataclass(frozen=True)
class SoftmaxDescent:
    """A finished descent.

    Attributes:
        history: a DataFrame with COLUMNS.
        W: W_V W_O at the end; rows subjects, r1, r2, EOS.
        G: the negative gradient of W at the end, over the largest residual.
    """

    history: pd.DataFrame = field(repr=False)
    W: Float[np.ndarray, "input output"] = field(repr=False)
    G: Float[np.ndarray, "input output"] = field(repr=False)


class SoftmaxModel:
    """Logits, residuals and gradients of the model on all prompts of a task."""

    def __init__(self, task: FactRecallTask) -> None:
        self.problem: MaxMarginProblem = max_margin_problem(task, "answers", "eos")
        self.x = torch.from_numpy(self.problem.x.toarray())
        self.x_held_out = torch.from_numpy(self.problem.x_held_out.toarray())
        self.correct = torch.from_numpy(self.problem.correct)
        self.correct_held_out = torch.from_numpy(self.problem.correct_held_out)
        self.example = torch.arange(len(self.correct))

    def start(self, entries: float, seed: int) -> dict[str, Tensor]:
        """Normal factors and scores of 0, float64."""
        rows, columns = self.problem.shape
        shapes = {"W_V": (rows, columns), "W_O": (columns, columns)}
        found = {
            name: entries
            * torch.randn(shape, generator=seeded_generator("cpu", seed, k), dtype=torch.float64)
            for k, (name, shape) in enumerate(shapes.items())
        }
        return {**found, "scores": torch.zeros(rows, dtype=torch.float64)}

    def attention(self, x: Tensor, scores: Tensor) -> Float[Tensor, "prompt input"]:
        """Softmax of the scores of each prompt's tokens."""
        weights = x * torch.exp(scores - scores.max())
        return weights / weights.sum(dim=1, keepdim=True)

    def logits(self, parameters: Mapping[str, Tensor]) -> Float[Tensor, "example output"]:
        """Of the training prompts."""
        attention = self.attention(self.x, parameters["scores"])
        return attention @ (parameters["W_V"] @ parameters["W_O"])

    def residuals(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One-hot − softmax over the largest, the logarithm of the largest, smallest margins."""
        wrong = logits.clone()
        right = logits[self.example, self.correct]
        wrong[self.example, self.correct] = -torch.inf
        others = torch.logsumexp(wrong, dim=1)
        log_residual = wrong - torch.logaddexp(others, right).unsqueeze(1)
        top = log_residual.max()
        push = -torch.exp(log_residual - top)
        push[self.example, self.correct] = -push.sum(dim=1)
        return push, top, right - wrong.max(dim=1).values

    def moves(self, parameters: Mapping[str, Tensor], push: Tensor) -> dict[str, Tensor]:
        """Negative gradients of the mean loss, over the largest residual."""
        W_V, W_O = parameters["W_V"], parameters["W_O"]
        attention, push = self.attention(self.x, parameters["scores"]), push / len(push)
        of_W, W = attention.T @ push, W_V @ W_O
        centred = push @ W.T - (push * (attention @ W)).sum(dim=1, keepdim=True)
        return {"W_V": of_W @ W_O.T, "W_O": W_V.T @ of_W, "scores": (attention * centred).sum(dim=0)}

    def beta(self, parameters: Mapping[str, Tensor]) -> float:
        """Logit of the own implication against the others' mean: untold over told."""
        W, task = parameters["W_V"] @ parameters["W_O"], self.problem.task
        told = self.correct >= task.n_facts
        cases = {
            "told": (self.x[told], self.correct[told]),
            "untold": (self.x_held_out, self.correct_held_out),
        }
        found = {}
        for name, (x, correct) in cases.items():
            logits = (self.attention(x, parameters["scores"]) @ W)[:, task.n_facts :]
            own = logits[torch.arange(len(x)), correct - task.n_facts]
            others = (logits.sum(dim=1) - own) / (logits.shape[1] - 1)
            found[name] = float((own - others).mean())
        return found["untold"] / found["told"]


def softmax_descent(
    task: FactRecallTask,
    *,
    log10_time: float,
    entries: float,
    seed: int,
    logit_step: float = 0.1,
    relative_step: float = 0.05,
) -> SoftmaxDescent:
    """Descent on the mean cross-entropy to a time, the sum of the step sizes.

    Args:
        task: noise-free.
        log10_time: log10 of the time.
        entries: standard deviation of the entries of W_V and W_O at the start.
        seed: of these draws.
        logit_step, relative_step: limits of a step, as in `long_descent`.
    """
    model = SoftmaxModel(task)
    parameters = model.start(entries, seed)
    log_time, rows = -math.inf, []
    while True:
        logits = model.logits(parameters)
        push, top, margins = model.residuals(logits)
        reached = log_time / math.log(10)
        if reached >= len(rows):
            rows.append(_row(model, parameters, reached, float(margins.min())))
        if reached >= log10_time:
            break
        moves = model.moves(parameters, push)
        relative = _length(parameters) / _length(moves)
        little = LITTLE * relative
        near = {name: value + little * moves[name] for name, value in parameters.items()}
        fastest = float((model.logits(near) - logits).abs().max()) / little
        eta = min(logit_step / fastest, relative_step * relative)
        parameters = {name: value + eta * moves[name] for name, value in parameters.items()}
        log_time = float(np.logaddexp(log_time, math.log(eta) - float(top)))
    G = model.attention(model.x, parameters["scores"]).T @ push
    W = parameters["W_V"] @ parameters["W_O"]
    return SoftmaxDescent(pd.DataFrame(rows, columns=list(COLUMNS)), W.numpy(), G.numpy())


def _row(
    model: SoftmaxModel, parameters: Mapping[str, Tensor], reached: float, margin: float
) -> tuple[float, ...]:
    task, scores = model.problem.task, parameters["scores"]
    told = torch.from_numpy(task.subject_trained)
    of_subjects, (r1, r2, eos) = scores[: task.n_subjects], scores[task.n_subjects :].tolist()
    norm = float(torch.linalg.svdvals(parameters["W_V"] @ parameters["W_O"]).sum())
    kinds = (float(of_subjects[told].mean()), float(of_subjects[~told].mean()))
    at_margin_1 = norm / margin if margin > 0 else math.inf
    return (reached, margin, model.beta(parameters), at_margin_1, *kinds, r1, r2, eos)


def _length(parameters: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(value.square().sum()) for value in parameters.values()))
