"""Gradient descent to any time that can be written down: full batch, growing steps, in logarithms.

On cross-entropy the loss falls like 1/t, so a fixed step needs t steps. Here the step grows with 1 / loss and
is limited by what it does: no training logit moves by more than `logit_step`, and the parameters not by more
than `relative_step` of their length. t is the sum of the step sizes, as in gradient descent on the mean loss.
Losses and residuals are computed as logarithms, so t = 1e100 takes 8,000 steps. With a fixed `lr` it is plain
gradient descent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.checks import check_choice, check_count, check_number
from ocr_interp.devices import resolve_device, seeded_generator
from ocr_interp.errors import ConfigError, RunError
from ocr_interp.maps import maps
from ocr_interp.maps.base import LinearMap
from ocr_interp.running.interruption import asked_to_stop
from ocr_interp.running.progress import progress_bar
from ocr_interp.storage.digests import digest_of, digest_of_tensors
from ocr_interp.storage.tensors import read_tensors, write_tensors
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.certificate import held_out_beta
from ocr_interp.theory.norms import norms
from ocr_interp.theory.problem import MaxMarginProblem, max_margin_problem

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

_SCORES = "scores"
_LITTLE = 1e-6
"""Relative length of the trial step that measures how fast the logits change."""


@dataclass(frozen=True)
class LongDescent:
    """A descent, finished or interrupted.

    Attributes:
        task: the task.
        history: a DataFrame with COLUMNS.
        parameters: the parameters at the end by name, on the CPU; with trained attention also "scores".
        W: the effective circuit diag(a) W_OV at the end.
        complete: whether the time asked for was reached; else call again with the same arguments.
    """

    task: FactRecallTask
    history: pd.DataFrame = field(repr=False)
    parameters: dict[str, Tensor] = field(repr=False)
    W: Float[np.ndarray, "input output"] = field(repr=False)
    complete: bool

    @property
    def beta(self) -> float:
        """Held-out coefficient at the end."""
        return float(self.history["beta"].iloc[-1])

    def beta_at(self, log10_time: float) -> float:
        """Held-out coefficient at a time, between logged rows by interpolation; NaN outside of them."""
        rows = self.history.iloc[1:]
        return float(np.interp(log10_time, rows["log10_time"], rows["beta"], left=np.nan, right=np.nan))

    def at_log10_loss(self, log10_loss: float) -> float:
        """Held-out coefficient at a loss, by interpolation; NaN outside of the history."""
        rows = self.history
        return float(np.interp(-log10_loss, -rows["log10_loss"], rows["beta"], left=np.nan, right=np.nan))


def long_descent(
    task: FactRecallTask,
    ov: str | LinearMap = "factorized",
    *,
    log10_time: float = 100.0,
    entries: float = 0.01,
    seed: int = 0,
    d_head: int | None = None,
    ov_options: Mapping[str, Any] | None = None,
    start: Mapping[str, Tensor] | None = None,
    scores: float | None = None,
    outputs: str = "answers",
    inputs: str = "subject_relation",
    lr: float | None = None,
    logit_step: float = 0.05,
    relative_step: float = 0.05,
    log_every: int = 20,
    max_steps: int = 2_000_000,
    file: str | Path | None = None,
    device: str = "cpu",
    progress: bool | None = False,
) -> LongDescent:
    """Full-batch gradient descent on the mean cross-entropy until a time is reached.

    Args:
        task: any task; noise-free.
        ov: the parameterisation: a name of `ocr_interp.maps`, or a LinearMap, which may hold constants.
        log10_time: log10 of the time to reach, the sum of the step sizes.
        entries: standard deviation of the normal entries at the start.
        seed: of these draws, which are float64 on the CPU.
        d_head, ov_options: of the parameterisation; None: the number of answers, the defaults.
        start: the parameters at the start instead, by name, for this problem's inputs and outputs.
        scores: attention of every input token at the start, and training it; None: frozen at 1.
        outputs, inputs: the problem (`theory.problem`): which outputs compete, what an example holds.
        lr: fixed step size: plain gradient descent; None: steps limited by logit_step and relative_step.
        logit_step: largest change of a training logit in one step, to first order, in logits.
        relative_step: largest change of the parameters in one step, relative to their length.
        log_every: steps between rows of the history, and between synchronisations with the device.
        max_steps: give up after so many steps.
        file: a file that keeps the descent: written at intervals and at the end or on Ctrl-C; a file of the
            same descent is resumed, with the same result as without interruption.
        device: "cpu", "cuda" or "auto"; float64 throughout.
        progress: whether to show a bar; None shows it in a terminal.

    Returns: the descent; `complete` is False after Ctrl-C.

    Raises:
        ConfigError: an argument that is not allowed.
        RunError: the file is damaged or of another descent, or max_steps were not enough.
    """
    check_number("log10_time", log10_time)
    check_number("entries", entries, above=0.0)
    for name, value in (("lr", lr), ("scores", scores)):
        if value is not None:
            check_number(name, value, above=0.0)
    check_number("logit_step", logit_step, above=0.0)
    check_number("relative_step", relative_step, above=0.0)
    check_count("log_every", log_every, 1)
    check_count("max_steps", max_steps, 1)
    check_count("seed", seed, 0)
    problem = max_margin_problem(task, outputs, inputs)
    linear_map = _linear_map(task, ov, d_head, ov_options, file)
    parameters = _start(problem, linear_map, entries, seed, start, scores)
    where = resolve_device(device, "float64")
    descent = _Descent(problem, linear_map, parameters, where, lr, logit_step, relative_step)
    settings = {
        "task": [list(map(int, task.subject_fact)), list(map(bool, task.subject_trained)), task.d_vocab],
        "implications": list(map(int, task.fact_implication)),
        "problem": [outputs, inputs, task.n_noise, task.seq_len],
        "map": [linear_map.name, linear_map.d_head, dict(ov_options or {})],
        "start": digest_of_tensors(parameters),
        "steps": [lr, logit_step, relative_step, log_every],
        "device": where.type,
    }
    store = _File(Path(file), digest_of(json.dumps(settings, sort_keys=True), 32)) if file else None
    rows = store.restore(descent) if store else []
    if not rows:
        rows.append(descent.measure())
    complete = bool(rows[-1]["log10_time"] >= log10_time)
    total = max(1, math.ceil(log10_time))
    with asked_to_stop() as stopped, progress_bar("log10 t", total, show=progress) as move:
        while not complete and not stopped() and descent.step < max_steps:
            for _ in range(log_every):
                descent.advance()
            rows.append(descent.measure())
            complete = bool(rows[-1]["log10_time"] >= log10_time)
            reached = max(0.0, rows[-1]["log10_time"])
            move(min(total, int(reached)), f"beta {rows[-1]['beta']:.4f}")
            if store and len(rows) % 100 == 0:
                store.write(descent, rows)
    if store:
        store.write(descent, rows)
    if not complete and descent.step >= max_steps:
        raise RunError(
            f"t = 1e{rows[-1]['log10_time']:.3g} was reached after max_steps={max_steps} steps, required "
            f"1e{log10_time:g}: raise max_steps, or leave lr out so that steps grow"
        )
    W = descent.W().cpu().numpy()
    kept = {name: value.cpu() for name, value in descent.parameters.items()}
    return LongDescent(task, pd.DataFrame(rows, columns=list(COLUMNS)), kept, W, complete)


def _linear_map(
    task: FactRecallTask,
    ov: str | LinearMap,
    d_head: int | None,
    ov_options: Mapping[str, Any] | None,
    file: str | Path | None,
) -> LinearMap:
    """The parameterisation.

    Raises:
        ConfigError: an unknown name, or a LinearMap with options of its own or a file beside it.
    """
    if isinstance(ov, LinearMap):
        if d_head is not None or ov_options or file is not None:
            raise ConfigError(
                "with ov= a LinearMap, d_head and ov_options are its own and no file can tell what it holds: "
                "leave d_head, ov_options and file out"
            )
        return ov
    check_choice("ov", ov, maps.names)
    width = task.n_answers if d_head is None and maps[ov].takes_d_head else d_head
    return maps[ov].of(width, dict(ov_options or {}), "entries")


def _start(
    problem: MaxMarginProblem,
    linear_map: LinearMap,
    entries: float,
    seed: int,
    start: Mapping[str, Tensor] | None,
    scores: float | None,
) -> dict[str, Tensor]:
    """The parameters at the start, float64 on the CPU.

    Raises:
        ConfigError: given parameters of other names or shapes.
    """
    shapes = linear_map.shapes(*problem.shape)
    if start is None:
        found = {
            name: entries
            * torch.randn(shape, generator=seeded_generator("cpu", seed, k), dtype=torch.float64)
            for k, (name, shape) in enumerate(shapes.items())
        }
    else:
        found = {name: torch.as_tensor(value).to(torch.float64).clone() for name, value in start.items()}
        given = {name: tuple(value.shape) for name, value in found.items()}
        if given != shapes:
            raise ConfigError(
                f"start must have the parameters of ov={linear_map.name!r} for {problem.shape[0]} inputs and "
                f"{problem.shape[1]} outputs: {shapes}, got {given}"
            )
    if scores is not None:
        found[_SCORES] = torch.full((problem.shape[0],), float(scores), dtype=torch.float64)
    return found


class _Descent:
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
        if self.lr is None:
            relative = _length(self.parameters) / _length(moves)
            little = _LITTLE * relative
            near = {name: value + little * moves[name] for name, value in self.parameters.items()}
            most = (self.x @ (_effective(self.linear_map, near) - W)).abs().max() / little
            eta = torch.minimum(self.limits[0] / most, self.limits[1] * relative)
            self.log_time = torch.logaddexp(self.log_time, eta.log() - top)
        else:
            eta = self.lr * torch.exp(top)
            self.log_time = torch.logaddexp(self.log_time, torch.full_like(top, math.log(self.lr)))
        self.parameters = {name: value + eta * moves[name] for name, value in self.parameters.items()}
        self.step += 1

    def _pulled_back(self, descent: Float[Tensor, "input output"]) -> dict[str, Tensor]:
        """The negative gradient of every parameter from that of the effective circuit."""
        ov = {name: value for name, value in self.parameters.items() if name != _SCORES}
        scores = self.parameters.get(_SCORES)
        if scores is None:
            return dict(self.linear_map.gradients(ov, descent))
        moves = dict(self.linear_map.gradients(ov, scores.unsqueeze(1) * descent))
        moves[_SCORES] = (self.linear_map.product(ov) * descent).sum(dim=1)
        return moves

    def measure(self) -> dict[str, float]:
        """One row of the history."""
        W = self.W().cpu().numpy()
        push, _, log_losses = (value.cpu() for value in self.residuals(self.W()))
        log_loss = float(torch.logsumexp(log_losses, 0)) - math.log(len(log_losses))
        margin = float(self.problem.constraint_margins(W).min())
        norm = norms[self.linear_map.norm or "nuclear"]
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
    ov = {name: value for name, value in parameters.items() if name != _SCORES}
    W = linear_map.product(ov)
    return W if _SCORES not in parameters else parameters[_SCORES].unsqueeze(1) * W


def _length(parameters: Mapping[str, Tensor]) -> Float[Tensor, ""]:
    return torch.stack([value.square().sum() for value in parameters.values()]).sum().sqrt()


@dataclass(frozen=True)
class _File:
    """The file that keeps a descent: parameters, time and history, sealed."""

    path: Path
    fingerprint: str

    def write(self, descent: _Descent, rows: list[dict[str, float]]) -> None:
        tensors = {f"parameter.{name}": value for name, value in descent.parameters.items()}
        tensors["log_time"] = descent.log_time.reshape(1)
        tensors["history"] = torch.tensor([[row[c] for c in COLUMNS] for row in rows], dtype=torch.float64)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {
            "kind": "long descent",
            "fingerprint": self.fingerprint,
            "step": descent.step,
            "columns": list(COLUMNS),
        }
        write_tensors(self.path, tensors, metadata)

    def restore(self, descent: _Descent) -> list[dict[str, float]]:
        """Puts the state of the file into the descent; returns its rows, none without a file.

        Raises:
            RunError: a damaged file, or one of another descent.
        """
        if not self.path.exists():
            return []
        advice = "delete it to start again, or give another file"
        tensors, metadata = read_tensors(self.path, self.fingerprint, "long descent", advice)
        descent.parameters = {
            name: tensors[f"parameter.{name}"].to(descent.device) for name in descent.parameters
        }
        descent.log_time = tensors["log_time"][0].to(descent.device)
        descent.step = int(metadata["step"])
        return [dict(zip(metadata["columns"], row, strict=True)) for row in tensors["history"].tolist()]
