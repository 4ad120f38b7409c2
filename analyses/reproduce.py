"""All that `make reproduce` leaves: trained models in runs/, figures and claims.json in figures/.

python analyses/reproduce.py [--all] [--runs runs] [--figures figures]
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import ablation_paths
import ablation_study
import alignment_over_training
import circuit_diagrams
import claims
import embedding_projections
import figure_2_ov_weights
import figure_3_losses
import figure_4_full_weights
import figure_5_max_margin
import figure_6_width
import figure_llm
import optimizers
import ov_breakdown
import paper_runs
import phase_diagrams
import proposition_1
import sample_efficiency
import theorem_1
import theorem_2
import theorem_3
import tyro

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
