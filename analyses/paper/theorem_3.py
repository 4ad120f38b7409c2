"""Theorem 3: from a start symmetric under permuting pairs, the non-factorized model can only guess.

Full batch without noise, float64, trained linear attention; the start is defined in
`ocr_interp.models.starts.symmetric_factors`. The factorized model from the same start is the control.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.looks import COLORS, NAMES
from analyses.house.reproduce import main
from analyses.paper.runs import PAPER, load_all, named

GUESS = math.log(PAPER.n_implications)
TOLERANCE = 1e-9


def make(runs: Path, figures: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    losses, in_set, steps = {}, {}, np.array([])
    for kind in COLORS:
        (run,) = load_all(runs, f"theorem_3_{kind}")
        losses[kind] = run.history["held_out_implication/loss"].to_numpy()
        in_set[kind] = run.history["held_out_implication/loss_in_set"].to_numpy()
        steps = run.history["step"].to_numpy()
    DRAWING.write(figures / "theorem_3", {"step": steps, "ln_A2": GUESS, **losses})
    return {kind: (losses[kind], in_set[kind]) for kind in COLORS}


def draw(numbers: dict[str, Any]) -> Picture:
    """The loss of untold implications by step, beside that of guessing."""
    fig, ax = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
    for kind in COLORS:
        ax.plot(np.maximum(numbers["step"], 10), numbers[kind], color=COLORS[kind], lw=2, label=NAMES[kind])
    ax.axhline(numbers["ln_A2"], color="0.2", ls=":", lw=1.2, label=f"guessing: ln {PAPER.n_implications}")
    ax.set(xscale="log", yscale="log", xlabel="training step", ylabel="held-out implication loss (nats)")
    ax.legend(frameon=False)
    return fig


DRAWING = Drawing(
    "From a symmetric start, attention trained too, a single matrix is never better than guessing; two "
    "factors are",
    draw,
)


def claims(losses: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[Claim]:
    """The claims for the theorem and for its control."""
    return [judged(kind, *of_kind) for kind, of_kind in losses.items()]


def judged(kind: str, loss: np.ndarray, in_set: np.ndarray) -> Claim:
    """The theorem for the non-factorized model, the control for the other.

    The loss over the whole vocabulary is above that among the implications alone, which is ln |A2| exactly.
    """
    below, lowest = kind == "factorized", float(min(loss.min(), in_set.min())) - GUESS
    what = "falls below ln |A2| (control)" if below else "is never under ln |A2|"
    return Claim(
        id=f"theorem_3_{kind}",
        statement=f"Theorem 3, {kind} model, symmetric start, trained attention, full batch without noise: "
        f"the held-out implication loss {what}",
        source="Theorem 3",
        expected="lowest loss - ln |A2| " + ("< 0" if below else ">= 0"),
        measured={
            "lowest_loss_minus_ln_A2": float(loss.min()) - GUESS,
            "lowest_loss_among_implications_minus_ln_A2": float(in_set.min()) - GUESS,
            "logged_steps": len(loss),
        },
        tolerance=TOLERANCE,
        holds=bool(lowest < -TOLERANCE if below else lowest >= -TOLERANCE),
        figure="theorem_3",
    )


FIGURE = Figure(
    pictures=("theorem_3",),
    draw=make,
    claims=claims,
    experiments=named(*(f"theorem_3_{kind}" for kind in COLORS)),
    drawings={"theorem_3": DRAWING},
)


if __name__ == "__main__":
    main()
