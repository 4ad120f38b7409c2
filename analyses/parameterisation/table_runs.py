"""The runs of the table of all parameterisations: descents, plain training, AdamW, and what a fit costs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analyses.elsewhere.fixed_rank import rank_of
from analyses.house.experiments import Experiment, load_all
from analyses.parameterisation.table_criteria import (
    ADAMW,
    CONTROL,
    FITTED,
    LOGGED,
    MAPS,
    PLAIN,
    PRETRAINED_TIME,
    PRETRAINED_TOLD,
    REPEATS,
    SEEDS,
    STOP,
    TASKS,
    TIME,
    TIMED,
    MapRow,
    Sizes,
    noise_free,
)
from ocr_interp import FactRecallTask, ModelConfig, Run, TrainConfig, train
from ocr_interp.devices import seeded_generator
from ocr_interp.maps import maps
from ocr_interp.maps.axes import TokenAxes
from ocr_interp.storage.atomic import write_atomic
from ocr_interp.theory.problem import max_margin_problem
from ocr_interp.training.long_descent import long_descent

FOLDER = "parameterisation_table"
LOGIT_STEP = 0.1


@dataclass(frozen=True)
class Outcome:
    """The end of one run.

    Attributes:
        beta: held-out coefficient.
        accuracy: share of held-out implications that are right among implications.
        steps: updates that were done up to there.
        fitted: updates up to the first logged row with a training margin of FITTED; None if there is none.
        log10_loss: log10 of the mean loss there, nats.
        rank: number of modes of W above 2 % of the largest; None of runs that `train` made.
    """

    beta: float
    accuracy: float
    steps: int
    fitted: int | None
    log10_loss: float
    rank: int | None = None


def named(sizes: Sizes) -> str:
    """A task in a name."""
    return "-".join(map(str, sizes))


def file_name(name: str) -> str:
    """A map's name in the name of a folder."""
    return "_".join("".join(letter if letter.isalnum() else " " for letter in name).split()).lower()


def _width(row: MapRow, task: FactRecallTask) -> int | None:
    """That of `long_descent`: the number of answers where the width is free."""
    return task.n_answers if maps[row.ov].takes_d_head and row.ov != "non_factorized" else None


def _model(row: MapRow, task: FactRecallTask) -> ModelConfig:
    return ModelConfig(
        ov=row.ov,
        ov_options=row.options_for(task),
        d_head=_width(row, task),
        init="entries",
        init_scale=row.entries * task.d_vocab**0.5,
        train_attention=False,
        dtype="float64",
    )


def _experiment(name: str, row: MapRow, sizes: Sizes, recipe: TrainConfig, rule: str) -> Experiment:
    task = noise_free(sizes)
    folder = f"{FOLDER}/{rule}_{file_name(name)}_{named(sizes)}"
    return Experiment(folder, task, _model(row, task), recipe, SEEDS)


BY_ADAMW = TrainConfig(
    **ADAMW, data="noise_free", log_every=LOGGED, checkpoint_every=2_000, snapshots=0, device="cpu"
)
BY_PLAIN = TrainConfig.gradient_descent(
    **PLAIN, log_every=PLAIN["steps"] // 20, checkpoint_every=PLAIN["steps"], snapshots=0, device="cpu"
)
ADAMW_RUNS = {
    (name, sizes): _experiment(name, row, sizes, BY_ADAMW, "adamw")
    for name, row in MAPS.items()
    if not row.pretrained
    for sizes in TASKS
}
PLAIN_RUNS = {
    (name, sizes): _experiment(name, row, sizes, BY_PLAIN, "plain")
    for name, row in [*MAPS.items(), (CONTROL, MAPS["factorized"])]
    if row.is_plain or name == CONTROL
    for sizes in TASKS
}
EXPERIMENTS = (*ADAMW_RUNS.values(), *PLAIN_RUNS.values())


def descended(
    runs: Path, name: str, sizes: Sizes, seeds: Sequence[int] = SEEDS, log10_time: float = TIME
) -> list[Outcome]:
    """Gradient descent of a map on a task, one outcome per seed: `long_descent`, or PLAIN where that cannot.

    Descents are kept in files and resumed.
    """
    if (name, sizes) in PLAIN_RUNS:
        return [_outcome(run, 0.0) for run in load_all(runs, PLAIN_RUNS[name, sizes])]
    row, task, found = MAPS[name], noise_free(sizes), []
    time_named = "" if log10_time == TIME else f"_1e{log10_time:g}"
    for seed in seeds:
        start = pretrained_start(sizes, row, seed) if row.pretrained else None
        descent = long_descent(
            task,
            row.ov,
            ov_options=row.options_for(task),
            entries=row.entries,
            seed=seed,
            start=start,
            log10_time=log10_time,
            logit_step=LOGIT_STEP,
            file=runs
            / FOLDER
            / f"descent_{file_name(name)}_{named(sizes)}_seed{seed}{time_named}.safetensors",
        )
        last = descent.history.iloc[-1]
        found.append(
            Outcome(
                descent.beta,
                float(last["held_out_accuracy"]),
                int(last["step"]),
                _first_fitted(descent.history, "margin"),
                float(last["log10_loss"]),
                rank_of(descent.W),
            )
        )
    return found


def by_adamw(runs: Path, name: str, sizes: Sizes) -> list[Outcome] | None:
    """AdamW of a map on a task, one outcome per seed; None of the pretrained row."""
    if MAPS[name].pretrained:
        return None
    return [_outcome(run, STOP) for run in load_all(runs, ADAMW_RUNS[name, sizes])]


def _outcome(run: Run, stop: float) -> Outcome:
    """A run at its first logged row with a loss below `stop`, or at its end."""
    history = run.history
    below = history[history["train_loss"] < stop]
    row = below.iloc[0] if len(below) else history.iloc[-1]
    return Outcome(
        float(row["beta"]),
        float(row["held_out_implication/accuracy_in_set"]),
        int(row["step"]),
        _first_fitted(history, "train_margin"),
        float(np.log10(row["train_loss"])),
    )


def _first_fitted(history: pd.DataFrame, column: str) -> int | None:
    fitted = np.flatnonzero(history[column].to_numpy() >= FITTED)
    return int(history["step"].iloc[int(fitted[0])]) if len(fitted) else None


def pretrained_start(sizes: Sizes, row: MapRow, seed: int) -> dict[str, Tensor]:
    """A drawn, B = 0, and W_0 with the relations' rows of a model of other subjects."""
    task = noise_free(sizes)
    n_in, n_out = max_margin_problem(task).shape
    W_0 = torch.zeros(n_in, n_out, dtype=torch.float64)
    W_0[task.n_subjects :] = relations_of_others(sizes[0])
    rank, draw = row.options_for(task)["rank"], seeded_generator("cpu", seed, 0)
    return {
        "A": row.entries * torch.randn((n_in, rank), generator=draw, dtype=torch.float64),
        "B": torch.zeros(rank, n_out, dtype=torch.float64),
        "W_0": W_0,
    }


@cache
def relations_of_others(n_pairs: int) -> Tensor:
    """Rows of r1 and r2 of a factorized model that was told everything of other subjects of these pairs."""
    others = noise_free((n_pairs, PRETRAINED_TOLD, 0))
    found = long_descent(
        others, "factorized", entries=1e-3, log10_time=PRETRAINED_TIME, logit_step=LOGIT_STEP
    )
    return torch.from_numpy(found.W[others.n_subjects :])


def n_trained(name: str, sizes: Sizes) -> int:
    """Numbers that a map trains, of rows of subjects and relations and columns of answers."""
    row, task = MAPS[name], noise_free(sizes)
    shape = max_margin_problem(task).shape
    placed = (
        maps[row.ov].of(_width(row, task), row.options_for(task), "entries").placed(TokenAxes(task, *shape))
    )
    return sum(prod(of) for part, of in placed.shapes(*shape).items() if part not in placed.frozen)


def step_seconds(runs: Path) -> dict[str, dict[str, float]]:
    """CPU seconds of one AdamW step, trained alone in one thread: map -> task -> seconds.

    Measured once and kept in a file, since no two measurements are equal.
    """
    file = runs / FOLDER / f"step_seconds_{TIMED}_{REPEATS}.json"
    found: dict[str, dict[str, float]] = json.loads(file.read_text()) if file.exists() else {}
    missing = [key for key in ADAMW_RUNS if named(key[1]) not in found.get(key[0], {})]
    recipe: dict[str, Any] = {**ADAMW, "steps": TIMED}
    for name, sizes in missing:
        task = noise_free(sizes)
        seconds = []
        for _ in range(REPEATS):
            before = time.process_time()
            train(
                task,
                _model(MAPS[name], task),
                TrainConfig(**recipe, data="noise_free", log_every=TIMED, snapshots=0, device="cpu"),
                progress=False,
            )
            seconds.append((time.process_time() - before) / TIMED)
        found.setdefault(name, {})[named(sizes)] = min(seconds)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(found, indent=1).encode())
    return found
