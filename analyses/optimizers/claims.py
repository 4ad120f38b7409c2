"""The claims of the optimiser study, each with its criterion; the predictions are in `optimizers.study`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analyses.house.claims import Claim
from analyses.optimizers.exact import MuonPath
from analyses.optimizers.predictions import muon_first_step, muon_fixed_point
from analyses.optimizers.runs import FEW_PAIRS, MIDDLE_TASK, OV_KINDS, SCHATTEN, SMALL, SWITCHES, Study

SILENT = 0.1
"""Largest |β| of a model that counts as silent."""

OUTCOMES = ("opposite", "silence", "reasoning")
WORDS = {"reasoning": "β > 0.1", "silence": "|β| <= 0.1", "opposite": "β < -0.1"}
FACTORIZED, WHOLE = OV_KINDS
PREDICTED = {
    ("gradient descent", FACTORIZED): ("reasoning", "nuclear"),
    ("momentum", FACTORIZED): ("reasoning", "nuclear"),
    ("AdamW", FACTORIZED): ("reasoning", "gamma_2"),
    ("SignSGD", FACTORIZED): ("reasoning", "gamma_2"),
    ("Muon", FACTORIZED): ("opposite", "spectral"),
    ("gradient descent", WHOLE): ("silence", "frobenius"),
    ("momentum", WHOLE): ("silence", "frobenius"),
    ("AdamW", WHOLE): ("silence", "entry"),
    ("SignSGD", WHOLE): ("silence", "entry"),
    ("Muon", WHOLE): ("opposite", "spectral"),
}
"""(optimiser, OV kind) -> outcome and norm."""

FAMILIES = {
    "descent_factorized": [("gradient descent", FACTORIZED), ("momentum", FACTORIZED)],
    "descent_non_factorized": [("gradient descent", WHOLE), ("momentum", WHOLE)],
    "entries_factorized": [("AdamW", FACTORIZED), ("SignSGD", FACTORIZED)],
    "entries_non_factorized": [("AdamW", WHOLE), ("SignSGD", WHOLE)],
    "muon": [("Muon", FACTORIZED), ("Muon", WHOLE)],
}
"""Name of a claim -> its two (optimiser, OV kind); it holds if both meet the criterion."""

PLAIN = ("main", "few pairs", "trained attention", "noise", "paper's task", "long")
"""Parts of the study with one optimiser and no variant of the recipe."""


def outcome(beta: float) -> str:
    """Reasoning, silence or the opposite."""
    return OUTCOMES[1] if abs(beta) <= SILENT else OUTCOMES[2 if beta > 0 else 0]


def all_claims(study: Study, paths: Mapping[Any, MuonPath]) -> list[Claim]:
    """Every claim of the study; `paths` are Muon's along the exact polar factor."""
    claims = [_outcome_claim(study, *family) for family in FAMILIES.items()]
    claims += [_geometry_claim(study, *family) for family in FAMILIES.items()]
    claims += [_cosine_claim(study), _end_claim(study), _exact_claim(paths), _first_steps_claim(study)]
    claims += [_standstill_claim(study), _precision_claim(study), _gamma_2_claim(study)]
    return claims + _late_claims(study) + [_early_claim(study)]


def _claim(name: str, statement: str, expected: str, measured: dict[str, Any], holds: bool, **more) -> Claim:
    values = {"tolerance": 0.0, "figure": "optimizer_summary", **more}
    return Claim(
        id=f"optimizer_{name}",
        statement=statement,
        source="conjecture of this project (docs/theory.md)",
        expected=expected,
        measured=measured,
        holds=bool(holds),
        **values,
    )


def _of(frame: pd.DataFrame, **values: Any) -> pd.DataFrame:
    for name, value in values.items():
        frame = frame.loc[frame[name] == value]
    return frame


def _short(*texts: str) -> str:
    text = "_".join(texts)
    for mark in " ,'-.":
        text = text.replace(mark, "_")
    return text.lower().replace("__", "_")


def _names(keys: list[tuple[str, str]]) -> str:
    return " and ".join(dict.fromkeys(name for name, _ in keys)) + (
        "" if keys[0][1] != keys[1][1] else f", {keys[0][1].replace('_', '-')}"
    )


def _outcome_claim(study: Study, name: str, keys: list[tuple[str, str]]) -> Claim:
    wanted = PREDICTED[keys[0]][0]
    measured: dict[str, Any] = {"fitted": 0, "not_fitted": 0, "as_predicted": 0}
    for optimizer, ov in keys:
        runs = _of(study.cells, optimizer=optimizer, ov=ov)
        runs = runs.loc[runs["part"].isin(PLAIN)]
        fitted = _of(runs, fitted=True)
        right = sum(outcome(beta) == wanted for beta in fitted["beta"])
        measured |= {
            "fitted": measured["fitted"] + len(fitted),
            "not_fitted": measured["not_fitted"] + len(runs) - len(fitted),
            "as_predicted": measured["as_predicted"] + right,
            f"beta_{_short(optimizer, ov)}": list(fitted["beta"]),
            f"accuracy_{_short(optimizer, ov)}": list(fitted["accuracy"]),
        }
    return _claim(
        name,
        f"{_names(keys)}: {wanted}, in every task, rate, start and seed, with noise and trained attention",
        f"{WORDS[wanted]} in every run that fits its training set",
        measured,
        measured["fitted"] > 0 and measured["as_predicted"] == measured["fitted"],
    )


def _geometry_claim(study: Study, name: str, keys: list[tuple[str, str]]) -> Claim:
    norm = PREDICTED[keys[0]][1]
    others = [other for other in SCHATTEN if other != norm]
    measured: dict[str, Any] = {"runs": 0, "nearest": 0}
    for optimizer, ov in keys:
        runs = _of(study.cells, optimizer=optimizer, ov=ov, part="few pairs", fitted=True)
        nearest = runs[f"excess_{norm}"] < runs[[f"excess_{other}" for other in others]].min(axis=1)
        measured["runs"] += len(runs)
        measured["nearest"] += int(nearest.to_numpy().sum())
        measured[f"excess_{norm}_{_short(optimizer, ov)}"] = list(runs[f"excess_{norm}"])
    shown = norm.replace("_", "-")
    return _claim(
        f"geometry_{name}",
        f"{_names(keys)}, few pairs: at margin 1 the {shown} norm is nearer to its smallest value than "
        f"{' and '.join(others)} norm are",
        f"excess of the {shown} norm below the others', every run",
        measured,
        measured["runs"] > 0 and measured["nearest"] == measured["runs"],
        figure="optimizer_geometry",
    )


def _cosine_claim(study: Study) -> Claim:
    """Added after the norms had been seen: near one solution the other norms are near their minima too."""
    right, count, cosines = 0, 0, []
    for (optimizer, ov), (_, norm) in PREDICTED.items():
        if norm not in SCHATTEN:
            continue
        runs = _of(study.cells, optimizer=optimizer, ov=ov, part="few pairs", fitted=True)
        columns = [f"cosine_{other}" for other in SCHATTEN]
        best = [columns[k] for k in np.argmax(runs[columns].to_numpy(), axis=1)]
        right += sum(column == f"cosine_{norm}" for column in best)
        count += len(runs)
        cosines += list(runs[f"cosine_{norm}"])
    return _claim(
        "cosines",
        "Gradient descent, momentum and Muon, few pairs: of the three solutions (nuclear, Frobenius, "
        "spectral) the predicted one has the largest cosine (criterion added after the norms were seen)",
        "the largest of three cosines, every run",
        {"runs": count, "as_predicted": right, "cosine": cosines},
        right == count > 0,
        figure="optimizer_geometry",
    )


def _end_claim(study: Study) -> Claim:
    limit, measured, good = _of(study.cells, part="limit", fitted=True), {}, []
    for sizes in FEW_PAIRS:
        runs, end = limit.loc[[s == sizes for s in limit["sizes"]]], muon_fixed_point(sizes)
        label = "_".join(map(str, sizes))
        measured |= {f"predicted_{label}": end, f"beta_{label}": list(runs["beta"])}
        good += [abs(beta - end) <= 0.1 * abs(end) for beta in runs["beta"]]
    return _claim(
        "muon_end",
        "Muon as shipped (small steps, eps 1e-18), few pairs, both OV kinds: β ends at the fixed point of "
        "orthogonal steps",
        "within 10 %, every task and seed",
        measured,
        bool(good) and all(good),
        tolerance=0.1,
        figure="optimizer_limits",
    )


def _exact_claim(paths: Mapping[Any, MuonPath]) -> Claim:
    """Added after `_end_claim` had failed: Muon with the exact polar factor instead of Newton-Schulz."""
    measured, good = {}, []
    for (sizes, name), path in paths.items():
        low, high = muon_fixed_point(sizes), -min(sizes[1] / sizes[2], 1.0)
        measured[_short(*map(str, sizes), name.removeprefix("exact, "))] = path.beta[-1]
        good.append(low - 0.1 * abs(low) <= path.beta[-1] <= high + 0.1 * abs(high))
    return _claim(
        "muon_exact",
        "Steps along the exact polar factor, few pairs: β ends where the spectral norm has it (added after "
        "Muon as shipped had not)",
        "in the spectral norm's range of β, to 10 %, every task and OV kind",
        measured,
        bool(good) and all(good),
        tolerance=0.1,
        figure="optimizer_limits",
    )


def _first_steps_claim(study: Study) -> Claim:
    chosen = {"part": "main", "optimizer": "Muon", "ov": WHOLE, "rate": "middle", "start": SMALL, "step": 50}
    first = _of(study.curves, **chosen)
    ratios = [float(b) / muon_first_step(s) for b, s in zip(first["beta"], first["sizes"], strict=True)]
    return _claim(
        "muon_first_steps",
        "Muon as shipped, non-factorized, after 50 steps: β is that of one orthogonal step, -m_train / "
        "(m_test + √(m_train m_test))",
        "within 10 %, every task and seed",
        {"beta_over_prediction": ratios},
        all(abs(ratio - 1) <= 0.1 for ratio in ratios),
        tolerance=0.1,
        figure="optimizer_beta",
    )


def _standstill_claim(study: Study) -> Claim:
    long = _of(study.curves, part="long", optimizer="Muon", ov=FACTORIZED)
    table = long.pivot(index="run", columns="step", values="beta")
    drift = [float(v) for v in (table[30_000] - table[5_000]).abs()]
    return _claim(
        "muon_stands_still",
        "Muon with torch's eps, factorized: nothing moves any more once the loss is below it",
        "|β(30,000) - β(5,000)| <= 0.001",
        {"drift": drift},
        max(drift) <= 0.001,
        tolerance=0.001,
        figure="optimizer_limits",
    )


def _precision_claim(study: Study) -> Claim:
    at = study.curves.loc[study.curves["step"] == 1_000]
    rounded = at.loc[at["variant"].str.contains("bfloat16")]
    exact = _of(at.loc[at["part"].isin(["main", "few pairs"])], optimizer="Muon", rate="middle", start=SMALL)
    both = rounded.merge(exact, on=["ov", "sizes", "seed"], suffixes=("", "_exact"), validate="1:1")
    difference = [float(v) for v in (both["beta"] - both["beta_exact"]).abs()]
    same = [outcome(a) == outcome(b) for a, b in zip(both["beta"], both["beta_exact"], strict=True)]
    return _claim(
        "muon_precision",
        "torch.optim.Muon in bfloat16 and the same iteration in float32 find the same",
        "same outcome and β within 0.1 after 1,000 steps",
        {"beta_bfloat16": list(both["beta"]), "difference": difference},
        bool(same) and all(same) and max(difference) <= 0.1,
        tolerance=0.1,
        figure="optimizer_limits",
    )


def _gamma_2_claim(study: Study) -> Claim:
    nuclear = (MIDDLE_TASK[1] / MIDDLE_TASK[2]) ** 0.5
    runs = _of(study.cells, part="long", ov=FACTORIZED, fitted=True)
    found = {name: list(_of(runs, optimizer=name)["beta"]) for name in ("AdamW", "SignSGD")}
    nearer = [abs(beta - 1) < abs(beta - nuclear) for betas in found.values() for beta in betas]
    return _claim(
        "gamma_2",
        f"AdamW and SignSGD, factorized, (10, 1, 3), 30,000 steps: β is nearer to 1 (gamma-2 norm) than to "
        f"{nuclear:.3f} (nuclear norm)",
        "every seed of both",
        {f"beta_{name.lower()}": betas for name, betas in found.items()},
        all(nearer),
    )


def _late_claims(study: Study) -> list[Claim]:
    """After the training set is fitted: Muon was predicted to undo the others, not the other way round."""
    late, eps = f"switch at {SWITCHES[-1]}", f"switch at {SWITCHES[-1]}, eps 1e-18"
    cells = _of(study.cells, part="mixed", ov=FACTORIZED)
    betas = {}
    for first in ("gradient descent", "AdamW"):
        runs = _of(cells, optimizer=f"{first}, then Muon")
        for label, variant in (("", late), (" eps 1e-18", eps)):
            betas[f"beta_after_{_short(first + label)}"] = list(_of(runs, variant=variant)["beta"])
    kept = list(_of(cells, optimizer="Muon, then gradient descent", variant=late)["beta"])
    return [
        _claim(
            "late_muon",
            "Muon after gradient descent or AdamW have fitted the training set (step 1,000), factorized, "
            "undoes their reasoning, with its eps or with eps 1e-18 (the latter added after the first had "
            "not)",
            f"{WORDS['opposite']} at the end, every seed",
            betas,
            all(outcome(beta) == "opposite" for values in betas.values() for beta in values),
            figure="optimizer_mixed",
        ),
        _claim(
            "late_descent",
            "Gradient descent after Muon has fitted the training set (step 1,000), factorized, changes "
            "nothing",
            f"{WORDS['opposite']} at the end, every seed",
            {"beta": kept},
            all(outcome(beta) == "opposite" for beta in kept),
            figure="optimizer_mixed",
        ),
    ]


def _early_claim(study: Study) -> Claim:
    early = _of(study.cells, part="mixed", ov=FACTORIZED, variant=f"switch at {SWITCHES[0]}")
    second = [name.split(", then ")[1] for name in early["optimizer"]]
    right = [
        outcome(beta) == PREDICTED[name, FACTORIZED][0]
        for beta, name in zip(early["beta"], second, strict=True)
    ]
    groups = early.groupby("optimizer", sort=False)
    return _claim(
        "early_switch",
        f"Mixed recipes that switch at step {SWITCHES[0]}, factorized: the second optimiser decides",
        "the outcome predicted for the second one, every recipe and seed",
        {f"beta_{_short(str(name))}": list(group["beta"]) for name, group in groups},
        all(right),
        figure="optimizer_mixed",
    )
