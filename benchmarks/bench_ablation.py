"""Would an ablation study be faster if its specs ran in parallel? All ways are timed in one run.

    python benchmarks/bench_ablation.py [--rounds 3]

The same zero ablations of single heads, one after the other (what `run_ablation_study` does) with one
torch thread and with as many as there are cores; in as many Python threads, each with its own copy of the
model and one torch thread; and in as many processes, which import torch and transformer_lens first (their
start is timed separately). Two models: the fact-recall model at (20, 1, 3), and a random HookedTransformer
with 6 layers and d_model 512 on 64 prompts of 32 tokens. Times are wall-clock seconds, the smallest of the
rounds, which alternate; other work on the machine increases them (most with several torch threads), so the
load is stored with them. Results go to benchmarks/results/ablation.json.
"""

from __future__ import annotations

import copy
import json
import os
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import tyro

from ocr_interp import FactRecallTask, ModelConfig, build_model
from ocr_interp.ablation import Examples, Intervention, Site, Zero, run_ablation_study, task_examples

CORES = os.cpu_count() or 1
SERIAL_1, SERIAL, THREADS = "serial, one torch thread", "serial, a torch thread a core", "a thread a core"
PROCESSES, START = "a process a core, started", "start of the processes"
SPECS = {"fact recall": 24, "6 layers": 8}


def subject(name: str) -> tuple[Any, Examples]:
    """A model and its examples."""
    if name == "fact recall":
        task = FactRecallTask(20, 1, 3)
        return build_model(task, ModelConfig(), device="cpu"), task_examples(task, True, 0, 4)
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    cfg = HookedTransformerConfig(
        n_layers=6,
        n_heads=8,
        d_model=512,
        d_head=64,
        d_vocab=1000,
        n_ctx=32,
        act_fn="gelu",
        seed=0,
        device="cpu",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "HookedTransformer is deprecated", DeprecationWarning)
        model = HookedTransformer(cfg)
    tokens = torch.randint(1000, (64, 32), generator=torch.Generator().manual_seed(0))
    return model, Examples(tokens, tokens[:, 0])


def specs(name: str, part: int = 0, parts: int = 1) -> dict[str, Intervention]:
    """Every `parts`-th of the interventions, from `part` on."""
    heads = 1 if name == "fact recall" else 8
    layers = 1 if name == "fact recall" else 6
    found = {
        f"{k}": Zero().at(Site.at("z", layer=k % layers, heads=[k % heads], positions=[-1 - k % 3]))
        for k in range(SPECS[name])
    }
    return dict(list(found.items())[part::parts])


def study(model: Any, examples: Examples, chosen: dict[str, Intervention]) -> int:
    """Runs the study; returns the number of measured rows."""
    return len(run_ablation_study(model, chosen, examples=examples, controls=False, progress=False).table)


_OWN: dict[str, tuple[Any, Examples]] = {}


def in_process(name: str, part: int) -> int:
    """Runs a part of the study in a worker process, which builds its model once."""
    torch.set_num_threads(1)
    if name not in _OWN:
        _OWN[name] = subject(name)
    return study(*_OWN[name], specs(name, part, CORES))


def seconds_of(rounds: int, name: str) -> dict[str, float]:
    """Wall-clock seconds of each way."""
    model, examples = subject(name)
    copies = [copy.deepcopy(model) for _ in range(CORES)]
    best: dict[str, float] = {}

    def timed(way: str, work: Any) -> None:
        start = time.perf_counter()
        work()
        best[way] = min(best.get(way, float("inf")), time.perf_counter() - start)

    with (
        ProcessPoolExecutor(CORES, get_context("spawn")) as pool,
        ThreadPoolExecutor(CORES) as threads,
    ):

        def processes() -> None:
            list(pool.map(in_process, [name] * CORES, range(CORES)))

        timed(START, processes)
        for _ in range(rounds):
            torch.set_num_threads(1)
            timed(SERIAL_1, lambda: study(model, examples, specs(name)))
            timed(
                THREADS,
                lambda: list(
                    threads.map(lambda k: study(copies[k], examples, specs(name, k, CORES)), range(CORES))
                ),
            )
            torch.set_num_threads(CORES)
            timed(SERIAL, lambda: study(model, examples, specs(name)))
            timed(PROCESSES, processes)
    return best


def main(rounds: int = 3) -> None:
    results = {name: seconds_of(rounds, name) for name in SPECS}
    for name, best in results.items():
        print(f"\n{SPECS[name]} ablations of {name}, {CORES} cores:")
        for way, spent in best.items():
            print(f"  {way:32}{spent:8.2f} s{spent / best[SERIAL_1]:8.2f} x serial, one torch thread")
    target = Path(__file__).parent / "results" / "ablation.json"
    target.parent.mkdir(exist_ok=True)
    written = {"cores": CORES, "load_average_15_min": os.getloadavg()[2], "seconds": results}
    target.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
