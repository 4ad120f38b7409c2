"""Phase diagrams: when does a model reason out of context? Each beside the prediction, where there is one.

Over the sizes of the groups, the number of pairs, the start's entries, the penalty, the attention and the
noise; which recipe (that of the theory or that of the paper) is written above every row. Values after a
finite number of steps, with the certified gap that was reached: they are not those of the max-margin
solution, and for m_train < m_test descent goes to a saddle instead (analyses/saddle). Cells whose
training set is not fitted are no evidence and look so. Takes about a quarter of an hour of one core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from analyses.house.figure import Figure
from analyses.house.looks import COLORS
from analyses.house.reproduce import main
from analyses.phases import accuracy
from analyses.phases import claims as phase_claims
from analyses.phases import grids as phase_grids
from analyses.phases.grids import ENTRIES, PENALTIES, SMALL, at_the_end
from analyses.phases.panels import Row, cells, row_numbers
from analyses.phases.path_drawing import PATH_DRAWING
from analyses.phases.penalised import PenalisedOptimum, first_beta, penalised_optimum
from ocr_interp import solve
from ocr_interp.theory import trained_attention_beta_interval

BETA = solve(SMALL).beta
MAX_MARGIN = {"factorized": BETA, "non_factorized": 0.0}
THEORY = "Theory's recipe: full-batch gradient descent, no noise, frozen attention"
PAPER = "Paper's recipe: AdamW, noisy batches, trained attention"
PATH_PENALTIES = (0.05, 0.03, *(10.0 ** (-k / 2) for k in range(4, 17)))
PATH_ENTRIES = (1e-4, 1e-3, 1e-2, 0.03, 0.1)
"""Standard deviations of the start's entries whose descents stand beside the penalty's path."""

FIRST_GROUPS = ((1, 8), (1, 4), (1, 3), (1, 2), (1, 1), (2, 1), (4, 1), (8, 1))
DRAWINGS = {
    "phase_groups": accuracy.GROUPS_DRAWING,
    "phase_pairs": accuracy.PAIRS_DRAWING,
    "phase_entries": accuracy.ENTRIES_DRAWING,
    "phase_path": PATH_DRAWING,
    "phase_decay": accuracy.DECAY_DRAWING,
    "phase_attention": accuracy.ATTENTION_DRAWING,
}
Optima = dict[str, list[PenalisedOptimum]]


def constant(n: int) -> dict[str, list[float]]:
    """The predicted β of both models, repeated n times."""
    return {ov: [value] * n for ov, value in MAX_MARGIN.items()}


def group_numbers(table: pd.DataFrame) -> dict[str, object]:
    """Every cell over the sizes of the groups, and the predicted margin ratio of the factorized model."""
    end = at_the_end(table)
    sizes = sorted({(int(a), int(b)) for a, b in zip(end["m_train"], end["m_test"], strict=True)})
    predicted = pd.DataFrame({"m_train": [a for a, _ in sizes], "m_test": [b for _, b in sizes]})
    predicted["value"] = np.minimum(np.sqrt(predicted["m_train"] / predicted["m_test"]), 1)
    return {"predicted": predicted.to_dict("list"), "cells": cells(table, ("m_train", "m_test"))}


def path_numbers(
    table: pd.DataFrame, groups: pd.DataFrame, optima: Optima, firsts: Mapping[str, PenalisedOptimum]
) -> dict[str, object]:
    """β and loss along the penalty's path and under descent, and β over the sizes of the groups."""
    shown: dict[str, object] = {}
    for ov, found in optima.items():
        shown[f"{ov}/penalised"] = {
            "penalty": PATH_PENALTIES,
            "loss": [each.loss for each in found],
            "beta": [each.beta for each in found],
        }
    for size in PATH_ENTRIES:
        near = table.loc[np.isclose(table["entries"], size) & (table["step"] > 0)]
        for ov in COLORS:
            run = near.loc[near["ov"] == ov].groupby("step")[["train_loss", "beta"]].median()
            shown[f"{ov}/entries {size:g}"] = run.to_dict("list")
    shown["firsts"] = {key: {"beta": found.beta, "loss": found.loss} for key, found in firsts.items()}
    end = at_the_end(groups)
    end = end.loc[(end["ov"] == "factorized") & (end["m_train"] > 0)]
    ratio = (end["m_train"] / end["m_test"]).astype(float)
    steps = int(end["steps"].iloc[0])
    return shown | {"descent": {"ratio": ratio.tolist(), "beta": end["beta"].tolist(), "steps": steps}}


def attention_rows(tables: dict[str, pd.DataFrame]) -> list[Row]:
    """Noise tokens with both kinds of attention, and attention frozen or trained without noise."""
    noise = tables["noise"]
    undecided = (np.nan, np.nan)
    solved = [(BETA, BETA), trained_attention_beta_interval(SMALL), (BETA, BETA), undecided]
    by, title = ("attention", "train_attention"), "Full-batch gradient descent, no noise"
    return [
        *(
            Row(noise.loc[noise["attention"] == kind], ("noise_tokens",), f"{PAPER} ({kind})")
            for kind in ("linear", "softmax")
        ),
        Row(tables["attentions"], by, title, {"factorized": solved}),
    ]


def make(
    runs: Path, figures: Path
) -> tuple[dict[str, pd.DataFrame], dict[str, list[float]], Optima, dict[str, PenalisedOptimum]]:
    tables = {name: phase_grids.trained(name, runs) for name in phase_grids.GRIDS}
    optima = {ov: [penalised_optimum(SMALL, ov, p) for p in PATH_PENALTIES] for ov in COLORS}
    firsts = {f"{a}/{b}": first_beta(replace(SMALL, m_train=a, m_test=b)) for a, b in FIRST_GROUPS}
    exact = {
        ov: [penalised_optimum(SMALL, ov, p).beta if p else MAX_MARGIN[ov] for p in PENALTIES]
        for ov in COLORS
    }
    pairs = [
        Row(tables["pairs"], ("n_pairs",), THEORY, constant(len(phase_grids.PAIRS))),
        Row(tables["pairs_paper"], ("n_pairs",), PAPER),
    ]
    decays = [
        Row(tables["penalties"], ("weight_decay",), THEORY, exact),
        Row(tables["decays"], ("weight_decay",), PAPER),
    ]
    numbers = {
        "phase_groups": group_numbers(tables["groups"]),
        "phase_pairs": row_numbers(pairs),
        "phase_entries": row_numbers([Row(tables["entries"], ("entries",), THEORY, constant(len(ENTRIES)))]),
        "phase_path": path_numbers(tables["entries"], tables["groups"], optima, firsts),
        "phase_decay": row_numbers(decays),
        "phase_attention": row_numbers(attention_rows(tables)),
    }
    for name, drawing in DRAWINGS.items():
        drawing.write(figures / name, numbers[name])
    return tables, exact, optima, firsts


FIGURE = Figure(
    pictures=tuple(DRAWINGS),
    draw=make,
    claims=lambda measured: phase_claims.claims(*measured),
    cost="slow",
    drawings=DRAWINGS,
)


if __name__ == "__main__":
    main()
