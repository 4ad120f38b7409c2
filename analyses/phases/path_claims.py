"""Claims about β during training, for `phases.diagrams`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from analyses.house.claims import Claim
from analyses.house.tables.claims import Table, numbers, of, span
from analyses.phases.grids import ENTRIES
from analyses.phases.penalised import PenalisedOptimum, leading_beta

PATH_TOLERANCE = 0.05


def path_claim(table: Table, optima: Mapping[str, Sequence[PenalisedOptimum]]) -> Claim:
    """At equal training loss, descent from a small start and the exact path with a penalty."""
    measured = {}
    for ov in ("factorized", "non_factorized"):
        runs = of(table, ov)
        runs = runs.loc[np.isclose(runs["entries"], 0.01) & (runs["step"] > 0)]
        path = sorted((np.log(o.loss), o.beta) for o in optima[ov])
        loss, beta = np.array(path).T
        inside = runs.loc[runs["train_loss"].between(np.exp(loss.min()), np.exp(loss.max()))]
        off = inside["beta"] - np.interp(np.log(inside["train_loss"]), loss, beta)
        measured[f"{ov}_beta_minus_path"] = span(off)
    path = [o.beta for o in optima["factorized"]]
    measured |= {"path_beta": [round(float(b), 4) for b in path]}
    residual = max(o.residual for found in optima.values() for o in found)
    worst = max(abs(v) for name, values in measured.items() if name.endswith("minus_path") for v in values)
    return Claim(
        "phase_path",
        "Descent from a small start follows the exact minimisers with a nuclear norm penalty, whose β falls "
        "to √(1/3) as the loss goes to 0 (it does not: its β stays above, near the saddle's)",
        "derived; noticed in these runs; where descent goes instead: saddle_law",
        f"|β of descent from entries of 0.01 - β of the path at the same training loss| <= {PATH_TOLERANCE}",
        {**measured, "path_optimality_residual": residual},
        PATH_TOLERANCE,
        bool(worst <= PATH_TOLERANCE),
        "phase_path",
    )


def leading_claims(entries: Table, groups: Table, firsts: Mapping[str, PenalisedOptimum]) -> list[Claim]:
    """The initial β for every ratio, and whether descent is between it and the max-margin solution's."""
    fractions = {key: [int(part) for part in key.split("/")] for key in firsts}
    off = [firsts[key].beta - leading_beta(*sizes) for key, sizes in fractions.items()]
    tiny = of(entries, "factorized")
    tiny = tiny.loc[np.isclose(tiny["entries"], min(ENTRIES)) & (tiny["step"] > 0)]
    first = tiny.loc[tiny["step"] == tiny["step"].min(), "beta"] - leading_beta(1, 3)
    told = of(groups, "factorized").query("m_train > 0")
    ratio = told["m_train"] / told["m_test"]
    bounds = [sorted((leading_beta(r, 1), min(np.sqrt(r), 1.0))) for r in ratio]
    inside = np.array([low <= b <= high for b, (low, high) in zip(told["beta"], bounds, strict=True)])
    source = "derived (analyses/phases/penalised.py); seen first at r = 1/3"
    return [
        Claim(
            "phase_leading_direction",
            "β starts at (1 - 2r + √(1 + 4r²)) / 2, r = m_train/m_test, the leading direction of the loss at "
            "W = 0, on the path of the penalty and in descent from a tiny start",
            source,
            "exact minimisers where a pair block first appears within 0.05 of it for all r; descent from "
            "entries of 1e-4 too, at the first logged step (r = 1/3)",
            {"path_minus_leading": [round(v, 4) for v in off], "descent_minus_leading": numbers(first)},
            0.05,
            bool(max(abs(v) for v in off) <= 0.05 and abs(first).max() <= 0.05),
            "phase_path",
        ),
        Claim(
            "phase_between",
            "Gradient descent after 5,000 steps has a β between the leading direction's and the max-margin "
            "solution's; it goes to the latter for r >= 1 alone, to the saddle (saddle_law) below",
            source,
            "in every run with m_train > 0 (at r = 1/2 start and end are both √(1/2))",
            {"runs_between": int(inside.sum()), "runs": len(inside)}
            | {"ratios_outside": sorted({float(r) for r in ratio[~inside]})},
            0.0,
            bool(inside.all()),
            "phase_path",
        ),
    ]
