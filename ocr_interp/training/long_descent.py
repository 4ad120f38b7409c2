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
from jaxtyping import Float
from torch import Tensor

from ocr_interp.checks import check_choice, check_count, check_number
from ocr_interp.devices import resolve_device, seeded_generator
from ocr_interp.errors import ConfigError, RunError
from ocr_interp.maps import maps
from ocr_interp.maps.axes import TokenAxes
from ocr_interp.maps.base import LinearMap
from ocr_interp.running.interruption import asked_to_stop
from ocr_interp.running.progress import progress_bar
from ocr_interp.storage.digests import digest_of, digest_of_tensors
from ocr_interp.task import IMPLICATION, FactRecallTask
from ocr_interp.theory.problem import MaxMarginProblem, max_margin_problem
from ocr_interp.training.descent.kept import DescentFile
from ocr_interp.training.descent.state import COLUMNS, SCORES, DescentState


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
        TrainingDivergedError: weights that are not finite: lr is too large.
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
    linear_map = _linear_map(task, ov, d_head, ov_options, file).placed(TokenAxes(task, *problem.shape))
    parameters = _start(problem, linear_map, entries, seed, start, scores)
    where = resolve_device(device, "float64")
    descent = DescentState(problem, linear_map, parameters, where, lr, logit_step, relative_step)
    several, implied = task.implied_relations > 1, task.answer_of_fact[IMPLICATION:] - task.n_facts
    told = task.told[IMPLICATION:].flatten() if several else task.subject_trained
    settings = {
        "task": [list(map(int, task.subject_fact)), list(map(bool, told)), task.d_vocab],
        "implications": implied.tolist() if several else implied[0].tolist(),
        "problem": [outputs, inputs, task.n_noise, task.seq_len],
        "map": [linear_map.name, linear_map.d_head, dict(ov_options or {})],
        "start": digest_of_tensors(parameters),
        "steps": [lr, logit_step, relative_step, log_every],
        "device": where.type,
    }
    store = DescentFile(Path(file), digest_of(json.dumps(settings, sort_keys=True), 32)) if file else None
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
        found[SCORES] = torch.full((problem.shape[0],), float(scores), dtype=torch.float64)
    return found
