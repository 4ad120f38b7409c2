"""ocr-interp analyze: one circuit in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ocr_interp.cli.files import check_output, read_run, read_snapshot, write_output
from ocr_interp.theory.norms import as_norm


@dataclass(frozen=True)
class Analyze:
    """Show a run's OV circuit: energy by block, spectrum, attention, alignment with the prediction."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """directory of the run"""
    step: int | None = None
    """a snapshot's step instead of the end of training"""
    other: Path | None = None
    """a run of the other OV kind and the same task, shown beside as a baseline"""
    norm: str | None = None
    """norm of the max-margin solution to compare with; by default the one that the run's parameterisation
    makes small"""
    tolerance: float = 0.05
    """singular values within this share of the largest are one degenerate block"""
    random_seeds: tuple[int, ...] = (0, 1, 2)
    """random baselines, one a seed"""
    json: Path | None = None
    """a file for all numbers, with all their digits"""

    def run(self) -> None:
        check_output(self.json, (".json",))
        if self.norm is not None:
            as_norm(self.norm)  # an unknown one is told before anything is read
        from ocr_interp.circuits.analysis import analyze_run
        from ocr_interp.viz.text.analysis import describe_analysis

        run, snapshot = read_run(self.run_dir), read_snapshot(self.run_dir, self.step)
        other = None if self.other is None else read_snapshot(self.other, None)
        found = analyze_run(
            snapshot,
            norm=self.norm,
            other=other,
            untrained=run.at(0) if snapshot.step and 0 in run.snapshot_steps else None,
            tolerance=self.tolerance,
            random_seeds=self.random_seeds,
        )
        if self.json is not None:
            write_output(self.json, found.to_json().encode())
        print(describe_analysis(found))
        if self.json is not None:
            print(f"all numbers: {self.json}")
