"""Training on a GPU, in wall-clock seconds between two waits for the device; ratios within one run.

    python benchmarks/bench_gpu.py [--model runs/models/smollm2-135m] [--steps 30] [--device cuda]

Language models: a step of ours beside the plain loop of peft's examples (LoRA) and beside the same plain loop
on all weights; then Compacter and LoRA-Mixer beside LoRA on the same linear maps. Same data in the same
order, batch, precision, optimizer and start; float32. One-layer models: model-steps per second of stacks of
1 to 1,024 runs that train together. Results go to benchmarks/results/gpu.json.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import tyro
from bench_llm import BESIDE, METHODS, padded, training
from bench_llm_lora import with_peft

from ocr_interp import FactRecallTask, ModelConfig, RunConfig, TrainConfig
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.models.loading import LanguageModel, load_model
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.training.lockstep import Lockstep

WARM_UP, BLOCK = 3, 5
STACKS = (1, 16, 64, 256, 1024)


def wait(device: str) -> None:
    """Waits until the device has done what it was asked."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], device: str) -> float:
    """Wall-clock seconds of some work and of waiting for it."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


class Ours:
    """The library's loop, a step at a time."""

    def __init__(self, config: LLMRunConfig, lm: LanguageModel) -> None:
        self.run, self.losses = training(config, lm), []

    def step(self) -> None:
        self.losses.append(self.run._update())
        self.run.step += 1


class Plain:
    """model(**batch).loss.backward() and a step, on the same batches from the same start."""

    def __init__(self, config: LLMRunConfig, lm: LanguageModel, device: str) -> None:
        order = training(config, lm)
        recipe = config.train
        self.rows = [
            [
                {"input_ids": [*e.prompt, *e.answer], "labels": [-100] * len(e.prompt) + list(e.answer)}
                for e in order._batch(step)
            ]
            for step in range(recipe.steps)
        ]
        self.device, self.pad, self.at, self.losses = device, lm.pad, 0, []
        self.model: Any = copy.deepcopy(lm.model).to(device)
        if recipe.method == "lora":
            self.model = with_peft(self.model, order)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        # What users get who know of it: the fused kernel is the quicker one on a GPU.
        self.optimizer = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=0.0, fused=device == "cuda")
        self.model.train()

    def step(self) -> None:
        batch = {k: v.to(self.device) for k, v in padded(self.rows[self.at], self.pad).items()}
        self.at += 1
        loss = self.model(**batch).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses.append(loss.detach())


def alternating(loops: dict[str, Any], steps: int, device: str) -> dict[str, Any]:
    """Milliseconds per step, the median, of loops that take turns; how far the losses of all are apart."""
    times: dict[str, list[float]] = {name: [] for name in loops}
    for loop in loops.values():
        for _ in range(WARM_UP):
            loop.step()
    for _ in range((steps - WARM_UP) // BLOCK):
        for name, loop in loops.items():
            for _ in range(BLOCK):
                times[name].append(seconds(loop.step, device))
    found = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    losses = [torch.stack(loop.losses).float().cpu() for loop in loops.values()]
    return {**found, "losses apart": float(max((one - losses[0]).abs().max() for one in losses))}


def language_model(model: str, steps: int, device: str) -> dict[str, Any]:
    """Ours beside plain loops, and the methods beside LoRA."""
    lm = load_model(model)

    def config(**fields: Any) -> LLMRunConfig:
        recipe = FinetuneConfig(model=model, steps=steps, device=device, movement="none", **fields)
        return LLMRunConfig(FactConfig(), recipe)

    found: dict[str, Any] = {}
    for name, fields in (("LoRA", {"method": "lora", "lr": 1e-3}), ("all weights", {"lr": 1e-4})):
        pair = {"plain": Plain(config(**fields), lm, device), "ours": Ours(config(**fields), lm)}
        own = alternating(pair, steps, device)
        found[name] = {**own, "ratio": own["plain"] / own["ours"]}
        print(name, found[name], flush=True)
        del pair
    for name, beside in BESIDE.items():
        loops = {one: Ours(config(lr=1e-3, **METHODS[one]), lm) for one in (beside, name)}
        own = alternating(loops, steps, device)
        own.pop("losses apart")
        found[name] = {**own, "ratio": own[name] / own[beside]}
        print(name, found[name], flush=True)
        del loops
    return found


def one_layer(device: str, steps: int) -> dict[str, Any]:
    """Model-steps per second of stacks of runs of the paper's recipe; float32, no history between."""
    task, found = FactRecallTask(n_pairs=20, m_train=1, m_test=3), {}
    for runs in STACKS:
        recipes = [replace(TrainConfig.paper(device=device), seed=s, log_every=steps) for s in range(runs)]
        made = Lockstep([RunConfig(task, ModelConfig(), recipe) for recipe in recipes])
        made.advance(0, 2)
        spent = seconds(lambda made=made: made.advance(2, 2 + steps), device)
        found[str(runs)] = runs * steps / spent
        print(f"one-layer, {runs} runs together: {found[str(runs)]:.0f} model-steps a second", flush=True)
    return found


def main(
    model: tuple[str, ...] = ("runs/models/smollm2-135m",), steps: int = 33, device: str = "cuda"
) -> None:
    name = torch.cuda.get_device_name() if device == "cuda" else device
    results: dict[str, Any] = {"device": name, "torch": torch.__version__, "unit": "milliseconds a step"}
    for folder in model:
        results[folder] = language_model(folder, steps, device)
    results["one-layer, model-steps a second by runs together"] = one_layer(device, 200)
    path = Path(__file__).resolve().parent / "results" / "gpu.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
