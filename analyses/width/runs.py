"""How wide must the OV circuit be? The models behind figure_6_width, and training the missing ones."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from analyses.paper import runs as paper_runs
from analyses.paper.runs import FACTORIZED, PAPER, SEEDS
from ocr_interp import SweepResult, sweep

WORKERS = os.cpu_count() or 1
WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128)
RECIPE = replace(paper_runs.RECIPE, device="auto")

STEP_WIDTH = 3
"""The width that the paper reports to fail; the variants test why."""

VARIANTS: dict[str, dict[str, Any]] = {
    "60,000 steps": {"steps": 60_000},
    "rate 0.001": {"lr": 1e-3},
    "rate 0.02": {"lr": 0.02},
    "no decay": {"weight_decay": 0.0},
    "decay 0.3": {"weight_decay": 0.3},
    "entries × 0.1": {"init_scale": 0.1},
    "no noise tokens": {"n_noise": 0, "seq_len": 3},
}
"""Single changes of the paper's recipe."""

LONG_STEPS = VARIANTS["60,000 steps"]["steps"]
LONG: dict[str, dict[str, Any]] = {
    "$d_h$ = 3": {"d_head": 3},
    "$d_h$ = 3, no decay": {"d_head": 3, "weight_decay": 0.0},
    "$d_h$ = 4": {"d_head": 4},
    "$d_h$ = 4, no decay": {"d_head": 4, "weight_decay": 0.0},
    "$d_h$ = 5": {"d_head": 5},
    "$d_h$ = 128": {"d_head": 128},
}
"""Three times the paper's steps, around the step and at the full width."""

PAIRS, NARROW = (5, 10, 20, 40), (2, 3, 4, 5, 6)
PAIRS_STEPS, PAIRS_SEEDS = 10_000, range(3)


def widths(runs: Path) -> SweepResult:
    """Every width with every seed, the paper's task and recipe, weights kept."""
    axes = {"d_head": sorted(WIDTHS, key=lambda d: abs(d - 3.4)), "seed": SEEDS}  # the step first
    return sweep(
        axes,
        task=PAPER,
        model=FACTORIZED,
        train=RECIPE,
        path=runs / "figure_6" / "paper",
        certificates=False,
        keep_weights=True,
        workers=WORKERS,
    )


def variants(runs: Path) -> dict[str, SweepResult]:
    """The runs of each variant at STEP_WIDTH."""
    return _changed({name: {"d_head": STEP_WIDTH, **changes} for name, changes in VARIANTS.items()}, runs)


def long(runs: Path) -> dict[str, SweepResult]:
    """The runs of LONG."""
    return _changed({name: {"steps": LONG_STEPS, **changes} for name, changes in LONG.items()}, runs)


def _changed(changes: dict[str, dict[str, Any]], runs: Path) -> dict[str, SweepResult]:
    """The runs of each change of the recipe; all are in one folder."""
    points = [{**change, "seed": seed} for change in changes.values() for seed in SEEDS]
    where, options = runs / "figure_6" / "variants", {"task": PAPER, "model": FACTORIZED, "train": RECIPE}
    found = sweep(points, **options, path=where, certificates=False, workers=WORKERS)
    usual = {"steps": RECIPE.steps, "lr": RECIPE.lr, "weight_decay": RECIPE.weight_decay}
    usual |= {"init_scale": FACTORIZED.init_scale, "seq_len": PAPER.seq_len, "n_noise": PAPER.n_noise}
    return {name: found.select(**usual | change) for name, change in changes.items()}


def pairs(runs: Path) -> SweepResult:
    """Narrow widths at several numbers of pairs, fewer steps."""
    return sweep(
        {"n_pairs": PAIRS, "d_head": NARROW, "seed": PAIRS_SEEDS},
        task=PAPER,
        model=FACTORIZED,
        train=replace(RECIPE, steps=PAIRS_STEPS),
        path=runs / "figure_6" / "pairs",
        certificates=False,
        workers=WORKERS,
    )


def main(runs: Path = Path("runs")) -> None:
    """Trains all runs; prints how long those of the figure itself took."""
    start, cpu = time.perf_counter(), time.process_time()
    widths(runs)
    print(f"Figure 6: {time.perf_counter() - start:.0f} s, {time.process_time() - cpu:.0f} CPU-seconds")
    variants(runs)
    pairs(runs)
    long(runs)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
