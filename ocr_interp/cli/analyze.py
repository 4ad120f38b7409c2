"""ocr-interp analyze: measurements of a run's OV circuit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ocr_interp.cli.arguments.files import (
    check_output,
    check_routes,
    read_run,
    read_snapshot,
    say,
    write_output,
)
from ocr_interp.theory.norms import as_norm


@dataclass(frozen=True)
class Analyze:
    """Show a run's OV circuit: energy by block, spectrum, attention, alignment with the prediction."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """directory of the run"""
    step: int | None = None
    """step of a snapshot to use instead of the end of training"""
    other: Path | None = None
    """directory of another run on the same task, of the same OV parameterisation or of another one, shown
    beside it as a baseline"""
    norm: str | None = None
    """norm of the max-margin solution to compare with; by default the norm that the run's parameterisation
    minimises"""
    tolerance: float = 0.05
    """singular values that differ by at most this share of the largest form one degenerate block"""
    random_seeds: tuple[int, ...] = (0, 1, 2)
    """seeds of the random baselines, one baseline per seed"""
    expert: int | None = None
    """of routed experts, the expert whose circuit is shown; needed where prompts are routed"""
    json: Path | None = None
    """a .json file for all numbers, with all digits"""

    def run(self) -> None:
        check_output(self.json, (".json",))
        if self.norm is not None:
            as_norm(self.norm)  # raises for an unknown norm before anything is read
        from ocr_interp.circuits.analysis import analyze_run
        from ocr_interp.viz.text.analysis import describe_analysis

        run, snapshot = read_run(self.run_dir), read_snapshot(self.run_dir, self.step)
        if self.expert is None:
            check_routes(self.run_dir, snapshot, "analyze {run} --expert 0")
        other = None if self.other is None else read_snapshot(self.other, None)
        found = analyze_run(
            snapshot,
            norm=self.norm,
            other=other,
            untrained=run.at(0) if snapshot.step and 0 in run.snapshot_steps else None,
            tolerance=self.tolerance,
            random_seeds=self.random_seeds,
            expert=self.expert,
        )
        if self.json is not None:
            write_output(self.json, found.to_json().encode())
        say(describe_analysis(found))
        if self.json is not None:
            say(f"all numbers: {self.json}")
