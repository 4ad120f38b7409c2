"""Which optimiser reasons out of context? Five optimisers, both OV kinds, and what each geometry predicts.

The conjecture: the geometry of the optimiser picks the norm, the norm picks β, and β decides between
reasoning (β > 0), silence (0) and the opposite (β < 0: held-out subjects are pushed away from their
implication). What was predicted before the runs (one seed at (10, 1, 3) had been tried, for the rates), with
a = m_train, b = m_test:

| | factorized | non-factorized |
|---|---|---|
| gradient descent, momentum | nuclear norm: β = +min(√(a/b), 1) | Frobenius norm: β = 0 |
| SignSGD, AdamW | largest entry of the factors, so the gamma-2 norm: β = 1 at any a/b | β = 0, see below |
| Muon | spectral norm of each factor, so of the product: β < 0 | spectral norm: β < 0 |

- The entry norm of W_OV leaves β anywhere in [-1, 1]. But from a start without an opinion, all wrong
  implications of a held-out subject get the same gradient: β = 0 by symmetry, and a start's noise stays as
  large as it was while the rest grows.
- The spectral norm decides β only if n <= a + max(a, b): -a/b for a <= b, anything from -1 to -√(a/b) for
  a > b. With more pairs (the paper's task too) its minimisers reach from β = -2.4 to +1.7, so that "the
  geometry picks β" cannot be the whole story there. Muon's own steps are more definite: along the orthogonal
  polar factor β is -a / (b + √(ab)) at first and -a/b (a <= b) or -√(a/b) (a > b) in the end
  (`optimizers.predictions`).
- Torch's Muon divides the gradient by max(norm, 1e-7): once the loss is far below that, it stands still.
  AdamW's eps does the same at 1e-8.
- Mixed recipes: the second optimiser undoes the first if its steps do not shrink with the gradient. So Muon
  undoes gradient descent and AdamW at any time; gradient descent undoes Muon only before the training set is
  fitted; AdamW undoes Muon unless the loss is below its eps.

A run that does not fit the training set is no evidence; it is drawn grey and left out of every claim.
Criteria: a run reasons if β > 0.1, is silent if |β| <= 0.1 and does the opposite if β < -0.1. Two claims were
added after the results were seen, and say so. About 20 CPU-minutes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.optimizers import figures as optimizer_figures
from analyses.optimizers import theory_figures as optimizer_theory_figures
from analyses.optimizers.claims import all_claims
from analyses.optimizers.exact import MuonPath
from analyses.optimizers.runs import Study, run_study

PICTURES = (
    "optimizer_summary",
    "optimizer_beta",
    "optimizer_mixed",
    "optimizer_geometry",
    "optimizer_limits",
)


def make(runs: Path, figures: Path) -> tuple[Study, dict[Any, MuonPath]]:
    study = run_study(runs)
    optimizer_figures.draw_all(study, figures)
    paths = optimizer_theory_figures.draw_theory(study, figures)
    return study, paths


FIGURE = Figure(
    pictures=PICTURES,
    draw=make,
    claims=lambda measured: all_claims(*measured),
    cost="slow",
    drawings={
        "optimizer_summary": optimizer_figures.SUMMARY,
        "optimizer_beta": optimizer_figures.BETA,
        "optimizer_mixed": optimizer_figures.MIXED_DRAWING,
        "optimizer_geometry": optimizer_theory_figures.GEOMETRY,
        "optimizer_limits": optimizer_theory_figures.LIMITS,
    },
)


if __name__ == "__main__":
    main()
