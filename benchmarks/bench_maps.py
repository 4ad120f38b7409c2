"""What a training step of every parameterisation of W_OV costs beside the factorized one.

    python benchmarks/bench_maps.py [--quick]

CPU-seconds of one thread at the paper's setting, with the options that a map needs to be tried. Rounds
alternate between the maps, so that all of them see the same machine; the smallest time of each counts.
Results go to benchmarks/results/maps.json.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import torch
import tyro

from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, train
from ocr_interp.maps import maps

TASK = FactRecallTask(n_pairs=20, m_train=1, m_test=3)
BESIDE = "factorized"


def configurations() -> dict[str, ModelConfig]:
    """One model a map; of those that cost more with an option, its first values too."""
    found = {ov: ModelConfig(ov=ov, ov_options=dict(maps[ov].example)) for ov in maps.names}
    deep = {f"deep, {depth} factors": ModelConfig(ov="deep", ov_options={"depth": depth}) for depth in (4, 6)}
    return {BESIDE: found.pop(BESIDE), **found, **deep}


def main(quick: bool = False) -> None:
    torch.set_num_threads(1)
    steps, rounds = (200, 2) if quick else (1_000, 5)
    recipe = replace(TrainConfig.paper(), steps=steps, log_every=steps, snapshots=0)
    models = configurations()
    best = dict.fromkeys(models, float("inf"))
    for _ in range(rounds):
        for name, model in models.items():
            start = time.process_time()
            train(TASK, model, recipe, progress=False)
            best[name] = min(best[name], 1e3 * (time.process_time() - start) / steps)
    print("A step of the paper's recipe, by parameterisation:")
    for name, cost in best.items():
        print(f"  {name:22}{cost:9.3f} ms CPU{cost / best[BESIDE]:8.2f} x {BESIDE}")
    if not quick:
        target = Path(__file__).parent / "results" / "maps.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps({"step (ms CPU)": best}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
