"""Many models at once: model-steps per CPU-second of one thread at the paper's setting.

    python benchmarks/bench_sweeps.py [--quick]

For each kind of model: one HookedTransformer trained step by step; our runs one after another; stacks of
1, 8, 32, 128 of our models. Rounds alternate, so that all see the same machine; the best of each counts.
Also measured: the machine's peak (a large matrix product on one thread, in the same rounds), the
floating-point operations of a step, the stacks' share of the peak, and the times of the parts of a step.
Batches are drawn anew at every step, each run from its own generator. Evaluation is not included; a row of
the history is timed separately.

Results go to benchmarks/results/sweeps.json.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import tyro
from bench_training import hooked

from ocr_interp import FactRecallTask, ModelConfig, RunConfig, TrainConfig
from ocr_interp.data import STEPS_PER_CHUNK, NoisyBatches
from ocr_interp.models.stacks import residuals_
from ocr_interp.sweeps.engines import one_thread
from ocr_interp.training.lockstep import Lockstep
from ocr_interp.training.tracking import Tracker

TASK = FactRecallTask(n_pairs=20, m_train=1, m_test=3)
RECIPE = TrainConfig.paper(device="cpu")
KINDS = {
    "factorized, d_head 128": ModelConfig(),
    "factorized, d_head 8": ModelConfig(d_head=8),
    "non_factorized": ModelConfig(ov="non_factorized"),
}
STACKS = (1, 8, 32, 128)
RELEASED_CODE = 41.0
"""Model-steps per CPU-second of the paper's released training code (theory.md §7, another run)."""


def flops(model: ModelConfig) -> float:
    """Multiplications and additions of a step's matrix products; other operations are not counted."""
    inputs, outputs, batch = TASK.n_inputs, TASK.d_vocab, RECIPE.batch_size
    context = inputs - TASK.n_subjects
    products = 2 * (2 * batch * context * outputs)  # logits, and back to the rows of the context
    if model.ov == "factorized":
        products += 3 * (2 * inputs * model.resolved_d_head(outputs) * outputs)
    return float(products)


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def lockstep(model: ModelConfig, runs: int, steps: int) -> Lockstep:
    recipes = [replace(RECIPE, seed=seed, log_every=steps) for seed in range(runs)]
    made = Lockstep([RunConfig(TASK, model, recipe) for recipe in recipes])
    made.advance(0, 2)  # memory and optimiser states exist from here on
    return made


def peak_gflops(size: int = 1_536) -> float:
    A, B, C = (torch.randn(size, size) for _ in range(3))
    return 2 * size**3 / cpu_seconds(lambda: torch.mm(A, B, out=C)) / 1e9


def parts_of_a_step(model: ModelConfig, runs: int) -> dict[str, float]:
    """Microseconds per model-step of each part of a stack's step, timed separately, best of 5."""
    stack = lockstep(model, runs, 10)
    sources = [NoisyBatches(TASK, RECIPE.batch_size, seed) for seed in range(runs)]
    batch, chunk = stack._batches.at(0), [0]
    logits = torch.randn(*batch.target.shape, TASK.d_vocab)

    def draw() -> None:
        chunk[0] += STEPS_PER_CHUNK
        for source in sources:
            source.chunk(chunk[0])

    parts: dict[str, tuple[Callable[[], object], float]] = {
        "drawing batches": (draw, STEPS_PER_CHUNK),
        "loss and gradients": (lambda: stack._stack.loss_and_gradients(batch), 1),
        "  of these the residuals (softmax)": (lambda: residuals_(logits.normal_(), batch.target), 1),
        "  less making their input": (lambda: logits.normal_(), 1),
        "optimiser": (lambda: stack.optimizers.step(5), 1),
    }
    with torch.no_grad():
        best = {
            name: 1e6 * min(cpu_seconds(work) for _ in range(5)) / runs / steps
            for name, (work, steps) in parts.items()
        }
    best["  of these the residuals (softmax)"] -= best.pop("  less making their input")
    return best


def rates(model: ModelConfig, rounds: int, budget: int) -> tuple[dict[str, float], float]:
    """Model-steps per CPU-second of each way, and the machine's peak in GFLOP/s in the same rounds."""
    one_by_one = hooked(model)
    stacks = {runs: lockstep(model, runs, max(8, budget // runs)) for runs in STACKS}
    best, peak = dict.fromkeys(["HookedTransformer", "one after another", *map(str, STACKS)], 0.0), 0.0
    for _ in range(rounds):
        peak = max(peak, peak_gflops())
        spent = cpu_seconds(lambda: [one_by_one(k) for k in range(max(4, budget // 100))])
        best["HookedTransformer"] = max(best["HookedTransformer"], max(4, budget // 100) / spent)
        alone = [lockstep(model, 1, max(8, budget // 4)) for _ in range(4)]
        spent = cpu_seconds(lambda alone=alone: [run.advance(2, 2 + run.losses.shape[1]) for run in alone])
        best["one after another"] = max(best["one after another"], 4 * alone[0].losses.shape[1] / spent)
        for runs, stack in stacks.items():
            steps = stack.losses.shape[1]
            spent = cpu_seconds(lambda stack=stack, steps=steps: stack.advance(2, 2 + steps))
            best[str(runs)] = max(best[str(runs)], runs * steps / spent)
    return best, peak


def row_cost(model: ModelConfig, certificates: bool) -> float:
    """Milliseconds per row of the history."""
    made = lockstep(model, 1, 200)
    made.advance(2, 202)
    tracker = Tracker(TASK, RECIPE, torch.float32, torch.device("cpu"), certificates)
    with torch.no_grad():
        return 1e3 * min(cpu_seconds(lambda: tracker.measure(made.models[0])) for _ in range(10))


def main(quick: bool = False) -> None:
    load = os.getloadavg()[1]  # other work on the machine slows all ways down
    results: dict[str, Any] = {
        "load average": load,
        "released code, model-steps per CPU-second (theory.md §7)": RELEASED_CODE,
    }
    with one_thread():
        for name, model in KINDS.items():
            best, peak = rates(model, rounds=2 if quick else 6, budget=100 if quick else 1_000)
            needed = flops(model)
            achieved = {stack: 1e-9 * needed * rate / peak for stack, rate in best.items()}
            parts = {str(runs): parts_of_a_step(model, runs) for runs in (1, 32)}
            rows = {str(c): row_cost(model, c) for c in (True, False)}
            print(f"\n{name}: {needed / 1e6:.2f} MFLOP in matrix products, peak {peak:.0f} GFLOP/s")
            for way, rate in best.items():
                print(
                    f"  {way:>17}{rate:8.0f} model-steps a CPU-second {rate / RELEASED_CODE:6.1f} x released,"
                    f" {rate / best['one after another']:6.2f} x one after another"
                    f" {achieved[way]:6.1%} of the peak"
                )
            for runs, costs in parts.items():
                shown = ", ".join(f"{part.strip()} {cost:.0f}" for part, cost in costs.items())
                print(f"  microseconds a model-step in a stack of {runs}: {shown}")
            print(f"  a row: {rows['True']:.1f} ms, without certificates {rows['False']:.1f} ms")
            results[name] = {
                "model-steps per CPU-second": best,
                "peak GFLOP/s": peak,
                "MFLOP a step": needed / 1e6,
                "share of the peak": achieved,
                "microseconds a model-step": parts,
                "ms a row (with certificates, without)": list(rows.values()),
            }
    if not quick:
        target = Path(__file__).parent / "results" / "sweeps.json"
        target.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
