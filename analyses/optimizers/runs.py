"""The runs of the optimiser study, and the measurements at the end of each.

Helper of `optimizers.study`. All runs are in runs/optimizers; finished runs are not trained again.
The middle recipe is (10, 1, 3), full batch without noise, attention frozen and uniform, no weight
decay, entries of 0.01 at the start, float64, and each optimiser's middle rate; every part changes something.
The rates were chosen in trials with one seed at (10, 1, 3), so that the middle one fits the training set.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analyses.optimizers.predictions import smallest_norm
from ocr_interp import FactRecallTask, ModelConfig, Run, RunConfig, Solution, TrainConfig, solve
from ocr_interp.sweeps.sweep import SweepResult, sweep
from ocr_interp.theory import cosine_with
from ocr_interp.theory.norms import norms
from ocr_interp.theory.problem import max_margin_problem

OV_KINDS = ("factorized", "non_factorized")
SCHATTEN = ("nuclear", "frobenius", "spectral")
SEEDS = tuple(range(5))
MIDDLE_TASK, PAPER_TASK = (10, 1, 3), (20, 1, 3)
TASKS = ((10, 1, 3), (10, 2, 2), (10, 3, 1))
FEW_PAIRS = ((4, 2, 6), (4, 4, 4), (4, 6, 2))
"""n <= m_train + max(m_train, m_test): the spectral norm decides about β (`optimizers.predictions`)."""

SMALL, LARGE = 0.01, 0.1
"""Size of the entries at the start; the paper's is 0.088."""


@dataclass(frozen=True)
class Optimizer:
    """One of the five optimisers: fields of the recipe, and its low, middle and high rate."""

    rates: tuple[float, float, float]
    recipe: dict[str, Any]


OPTIMIZERS = {
    "gradient descent": Optimizer((0.3, 1.0, 3.0), {"optimizer": "sgd"}),
    "momentum": Optimizer((0.03, 0.1, 0.3), {"optimizer": "sgd", "momentum": 0.9}),
    "AdamW": Optimizer((1e-3, 5e-3, 2e-2), {"optimizer": "adamw"}),
    "SignSGD": Optimizer((5e-4, 1e-3, 5e-3), {"optimizer": "signsgd"}),
    "Muon": Optimizer((5e-3, 1e-2, 5e-2), {"optimizer": "muon", "muon_precision": "float32"}),
}

FULL_BATCH = TrainConfig(
    steps=2_000, data="noise_free", weight_decay=0.0, log_every=50, snapshots=0, device="cpu"
)

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "torch's bfloat16": ("Muon", {"muon_precision": "bfloat16", "steps": 1_000}),
    "no momentum": ("Muon", {"muon_momentum": 0.0, "muon_nesterov": False}),
    "10 iterations": ("Muon", {"muon_ns_steps": 10}),
    "eps 1e-18": ("Muon", {"muon_eps": 1e-18}),
    "weight decay 0.1": ("Muon", {"weight_decay": 0.1}),
    "no running means": ("AdamW", {"beta1": 0.0, "beta2": 0.0, "eps": 1e-30}),
    "eps 1e-18 ": ("AdamW", {"eps": 1e-18}),
}
"""One setting changed: name -> (optimiser, change)."""

MIXED = (("Muon", "AdamW"), ("AdamW", "Muon"), ("Muon", "gradient descent"), ("gradient descent", "Muon"))
SWITCHES = (25, 100, 1_000)
MIXED_STEPS = 3_000


@dataclass(frozen=True)
class Cell:
    """One run and its settings in the study.

    Attributes:
        part: part of the study.
        optimizer: a name of OPTIMIZERS, or "first, then second".
        ov: kind of model.
        sizes: (n_pairs, m_train, m_test).
        rate: "low", "middle" or "high".
        start: size of the entries.
        seed: seed of the start and of the batches.
        variant: what else differs; empty for the part's own recipe.
        config: the whole configuration.
    """

    part: str
    optimizer: str
    ov: str
    sizes: tuple[int, int, int]
    rate: str
    start: float
    seed: int
    variant: str
    config: RunConfig = field(repr=False)


def cell(
    part: str,
    optimizer: str,
    ov: str,
    seed: int,
    *,
    sizes: tuple[int, int, int] = MIDDLE_TASK,
    rate: str = "middle",
    start: float = SMALL,
    variant: str = "",
    noise: bool = False,
    train_attention: bool = False,
    **changes: Any,
) -> Cell:
    """A run of the middle recipe with `changes`, which are fields of TrainConfig."""
    task = FactRecallTask(*sizes) if noise else FactRecallTask(*sizes, n_noise=0, seq_len=3)
    model = ModelConfig(
        ov=ov,  # type: ignore[arg-type]
        train_attention=train_attention,
        attention_init="uniform",
        init_scale=start * math.sqrt(task.d_vocab),
        dtype="float64",
    )
    name = optimizer.split(", then ")[0]
    lr = rate_of(name, rate)
    recipe = replace(FULL_BATCH, seed=seed, lr=lr, **{**OPTIMIZERS[name].recipe, **changes})
    return Cell(part, optimizer, ov, sizes, rate, start, seed, variant, RunConfig(task, model, recipe))


def rate_of(optimizer: str, rate: str) -> float:
    """The learning rate with a name."""
    return OPTIMIZERS[optimizer].rates[("low", "middle", "high").index(rate)]


def _main() -> Iterator[Cell]:
    """Tasks, rates and starts, five seeds each."""
    for ov in OV_KINDS:
        for name in OPTIMIZERS:
            for sizes in TASKS:
                for rate, start in (("middle", SMALL), ("middle", LARGE), ("low", SMALL), ("high", SMALL)):
                    for seed in SEEDS:
                        yield cell("main", name, ov, seed, sizes=sizes, rate=rate, start=start)


def _one_factor() -> Iterator[Cell]:
    """Runs with one change of the middle recipe."""
    for ov in OV_KINDS:
        for name in OPTIMIZERS:
            for seed in SEEDS:
                for sizes in FEW_PAIRS:
                    yield cell("few pairs", name, ov, seed, sizes=sizes, steps=3_000, log_every=100)
                yield cell("trained attention", name, ov, seed, train_attention=True)
                for rate in ("low", "middle"):
                    yield cell("noise", name, ov, seed, rate=rate, noise=True, data="noisy", batch_size=120)
                if seed < 3:
                    yield cell("paper's task", name, ov, seed, sizes=PAPER_TASK, log_every=100)
                if seed < 2:
                    yield cell("long", name, ov, seed, steps=30_000, log_every=500)


def _variants() -> Iterator[Cell]:
    for ov in OV_KINDS:
        for variant, (name, changes) in VARIANTS.items():
            for seed in range(2 if "bfloat16" in variant else 3):
                for sizes in (MIDDLE_TASK, FEW_PAIRS[0]):
                    yield cell("variants", name, ov, seed, sizes=sizes, variant=variant, **changes)
        for sizes in FEW_PAIRS:  # the longest way that arithmetic allows, in small steps
            for seed in range(3):
                changes = {"muon_eps": 1e-18, "steps": 10_000, "log_every": 250}
                variant = "eps 1e-18, low rate, 10,000 steps"
                yield cell("limit", "Muon", ov, seed, sizes=sizes, rate="low", variant=variant, **changes)


def _mixed() -> Iterator[Cell]:
    for first, second in MIXED:
        for ov in OV_KINDS if "AdamW" in (first, second) else OV_KINDS[:1]:
            for switch in SWITCHES:
                for seed in SEEDS if ov == OV_KINDS[0] else SEEDS[:3]:
                    changes = {
                        "second_optimizer": OPTIMIZERS[second].recipe["optimizer"],
                        "second_lr": rate_of(second, "middle"),
                        "switch_step": switch,
                        "steps": MIXED_STEPS,
                        "log_every": 50,
                        "muon_precision": "float32",
                    }
                    name, variant = f"{first}, then {second}", f"switch at {switch}"
                    yield cell("mixed", name, ov, seed, variant=variant, **changes)
                    if second == "Muon" and switch == SWITCHES[-1] and ov == OV_KINDS[0]:
                        changes |= {"muon_eps": 1e-18, "steps": 2 * MIXED_STEPS}
                        yield cell("mixed", name, ov, seed, variant=f"{variant}, eps 1e-18", **changes)


def all_cells() -> list[Cell]:
    """Every run of the study."""
    return [*_main(), *_one_factor(), *_mixed(), *_variants()]


@dataclass(frozen=True)
class Study:
    """All runs.

    Attributes:
        cells: one row per run: the fields of `Cell`, "run", "status" and the values of `measured`.
        curves: one row per run and logged step: the same names and the columns of a history.
    """

    cells: pd.DataFrame
    curves: pd.DataFrame


def run_study(runs: Path) -> Study:
    """Trains the missing runs, and measures all."""
    cells = all_cells()
    points = [{"task": c.config.task, "model": c.config.model, "train": c.config.train} for c in cells]
    result = sweep(points, path=runs / "optimizers", certificates=False, keep_weights=True)
    names = ("part", "optimizer", "ov", "sizes", "rate", "start", "seed", "variant")
    rows = [{"run": c.config.fingerprint, **{name: getattr(c, name) for name in names}} for c in cells]
    labels, status = pd.DataFrame(rows), dict(zip(result.runs["run"], result.runs["status"], strict=True))
    found = pd.DataFrame([measured(result, run, status[run]) for run in labels["run"]])
    history = result.table[["run", "step", "train_loss", "beta", "train_margin", *HELD_OUT]]
    return Study(labels.merge(found, on="run", validate="1:1"), labels.merge(history, on="run"))


HELD_OUT = [f"held_out_implication/{name}" for name in ("accuracy", "accuracy_in_set", "loss")]


def measured(result: SweepResult, name: str, status: str) -> dict[str, Any]:
    """Values at the last step: fitted or not, β, held-out accuracy, distances from the predicted solutions.

    - fitted: all training margins are positive; other runs are no evidence;
    - excess_*: norm at margin 1 over the smallest, less 1. "entry" is for W_OV itself; "gamma_2" for the
      factors as they are, longest row of W_V times longest column of W_O, an upper bound of W's own;
    - cosine_*: cosines with the three predicted solutions.
    """
    row: dict[str, Any] = {"run": name, "status": status, "fitted": False}
    if status != "finished":
        return row
    run = result.run(name)
    last = run.history.iloc[-1]
    row |= {"beta": float(last["beta"]), "train_margin": float(last["train_margin"])}
    row |= {column.split("/")[1]: float(last[column]) for column in HELD_OUT}
    row["fitted"] = bool(last["train_margin"] > 0)
    return row | (distances(run) if row["fitted"] else {})


@lru_cache(maxsize=64)
def _predicted(task: FactRecallTask, norm: str, inputs: str) -> Solution:
    return solve(task, norm, outputs="vocabulary", inputs=inputs)


def distances(run: Run) -> dict[str, float]:
    """excess_* and cosine_* of a run."""
    task = run.config.task
    inputs = "eos" if run.config.train.data == "noise_free" else "noise_eos"
    problem = max_margin_problem(task, "vocabulary", inputs)
    W = problem.restrict(run.effective_W)
    margin = float(problem.constraint_margins(W).min())
    row = {}
    for norm in SCHATTEN:
        predicted = _predicted(task, norm, inputs)
        row[f"excess_{norm}"] = norms[norm].value(W) / margin / predicted.objective - 1
        row[f"cosine_{norm}"] = cosine_with(W, predicted)
    sizes = task.balanced_sizes
    assert sizes is not None
    kept = W[:, task.n_inputs :]
    row["excess_entry"] = float(np.abs(kept).max()) / margin / smallest_norm(sizes, "entry") - 1
    if run.weights.W_O is not None and not run.config.model.train_attention:
        rows = run.weights.W_V[: task.n_inputs].norm(dim=1).max()
        columns = run.weights.W_O[:, task.n_inputs : task.d_vocab].norm(dim=0).max()
        row["excess_gamma_2"] = float(rows * columns) / margin / smallest_norm(sizes, "gamma_2") - 1
    return row


def baselines(sizes: tuple[int, int, int]) -> dict[str, dict[str, float]]:
    """excess_* and cosine_* of the three predicted solutions themselves: how far they are from each other."""
    task = FactRecallTask(*sizes, n_noise=0, seq_len=3)
    solutions = {norm: solve(task, norm) for norm in SCHATTEN}
    return {
        norm: {f"excess_{other}": norms[other].value(s.W) / o.objective - 1 for other, o in solutions.items()}
        | {f"cosine_{other}": cosine_with(s.W, o) for other, o in solutions.items()}
        for norm, s in solutions.items()
    }
