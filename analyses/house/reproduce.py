"""All that `make reproduce` leaves: trained models in runs/, figures and claims.json in figures/.

python analyses/reproduce.py [--all] [--runs runs] [--figures figures]
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import tyro

from analyses.ablations import paths as ablation_paths
from analyses.ablations import study as ablation_study
from analyses.circuits import alignment_over_training, embedding_projections, ov_breakdown
from analyses.circuits import diagrams as circuit_diagrams
from analyses.llm import figures as figure_llm
from analyses.optimizers import study as optimizers
from analyses.paper import (
    claims,
    figure_2_ov_weights,
    figure_3_losses,
    figure_4_full_weights,
    proposition_1,
    theorem_3,
)
from analyses.paper import runs as paper_runs
from analyses.phases import diagrams as phase_diagrams
from analyses.theory import figure_5_max_margin, sample_efficiency, theorem_1, theorem_2
from analyses.width import figure_6_width

QUICK = (
    figure_2_ov_weights.main,
    figure_3_losses.main,
    figure_4_full_weights.main,
    claims.main,
    proposition_1.main,
    theorem_3.main,
    figure_llm.main,
)
SLOW = (
    theorem_1.main,
    theorem_2.main,
    sample_efficiency.main,
    figure_5_max_margin.main,
    ablation_study.main,
    ablation_paths.main,
    ov_breakdown.main,
    embedding_projections.main,
    alignment_over_training.main,
    circuit_diagrams.main,
    figure_6_width.main,
    phase_diagrams.main,
    optimizers.main,
)
"""What takes longer than a few minutes, for --all."""


def main(
    runs: Path = Path("runs"),
    figures: Path = Path("figures"),
    everything: Annotated[bool, tyro.conf.arg(name="all")] = False,
) -> None:
    start = time.perf_counter()
    paper_runs.train_all(runs)
    for make in (*QUICK, *(SLOW if everything else ())):
        make(runs, figures)
    print(f"{figures}/ holds the figures with their numbers and claims.json, {runs}/ the trained models")
    print(f"{time.perf_counter() - start:.0f} seconds")


if __name__ == "__main__":
    tyro.cli(main)
