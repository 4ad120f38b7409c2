"""Proposition 1: with d_head >= d the factorized model can express every non-factorized one.

A trained non-factorized model is factorized by a balanced SVD at every width: from the rank of its OV circuit
on, both HookedTransformers give the same logits. So differences after training are implicit bias.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure as Picture

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.looks import COLORS
from analyses.house.reproduce import main
from analyses.paper.runs import PAPER, load_all, named
from ocr_interp import ModelConfig, build_model
from ocr_interp.models.weights import TokenWeights, factorize_ov

WIDTHS = (4, 8, 16, 24, 32, 40, 48, 64, 96, 128)
TOLERANCE = 1e-12


def make(runs: Path, figures: Path) -> dict[str, float | int]:
    weights = load_all(runs, "non_factorized")[0].weights.to(torch.float64)
    # Only the rows of input tokens act; the other tokens never occur in a sequence.
    W_OV = weights.W_OV.clone()
    W_OV[PAPER.n_inputs :] = 0
    weights = replace(weights, ov={"W_OV": W_OV})
    U, S, Vh = torch.linalg.svd(W_OV)
    rank = int(torch.linalg.matrix_rank(W_OV))
    questions = [PAPER.tokens(f"s{s}", r, "EOS") for s in range(PAPER.n_subjects) for r in ("r1", "r2")]
    tokens = torch.as_tensor(np.stack(questions))
    wanted = logits_of(ModelConfig("non_factorized", dtype="float64"), weights, tokens)
    errors = []
    for width in WIDTHS:
        truncated = U[:, :width] * S[:width] @ Vh[:width]
        W_V, W_O = factorize_ov(truncated, width)
        twin = TokenWeights.of_factors(W_V, W_O, weights.W_QK)
        found = logits_of(ModelConfig("factorized", d_head=width, dtype="float64"), twin, tokens)
        errors.append(float((found - wanted).abs().max() / wanted.abs().max()))
    DRAWING.write(figures / "proposition_1", {"d_head": WIDTHS, "error": errors, "rank": rank})
    return {"relative_difference": errors[-1], "rank_of_W_OV": rank}


def draw(numbers: dict[str, Any]) -> Picture:
    """Largest error of the logits by width of the head."""
    fig, ax = plt.subplots(figsize=(WIDTH, 3.2), layout="constrained")
    ax.plot(numbers["d_head"], numbers["error"], "o-", color=COLORS["factorized"], lw=2)
    ax.axvline(numbers["rank"], color="0.4", ls=":", lw=1.2)
    label = f"rank {numbers['rank']} of the\ntrained $W_{{OV}}$"
    ax.text(numbers["rank"] + 1.5, 1e-4, label, color="0.3")
    ax.set(yscale="log", xlabel="$d_{head}$ of the factorized twin", ylabel="largest relative logit error")
    return fig


DRAWING = Drawing(
    "A factorized model whose head is as wide as the rank of the trained single matrix gives the same logits",
    draw,
)


def claims(measured: dict[str, float | int]) -> list[Claim]:
    """That the full width gives the same logits."""
    claim = Claim(
        id="proposition_1",
        statement="Proposition 1: a factorized HookedTransformer with d_head = d gives the logits of the "
        "trained non-factorized one",
        source="Proposition 1",
        expected="largest difference of logits over the largest logit <= 1e-12",
        measured=measured,
        tolerance=TOLERANCE,
        holds=measured["relative_difference"] <= TOLERANCE,
        figure="proposition_1",
    )
    return [claim]


def logits_of(config: ModelConfig, weights: TokenWeights, tokens: torch.Tensor) -> torch.Tensor:
    """Logits at EOS of the HookedTransformer with these weights."""
    model = build_model(PAPER, config, device="cpu", weights=weights)
    return model(tokens)[:, -1].detach()


FIGURE = Figure(
    pictures=("proposition_1",),
    draw=make,
    claims=claims,
    experiments=named("non_factorized"),
    drawings={"proposition_1": DRAWING},
)


if __name__ == "__main__":
    main()
