"""What the optimiser study claims, each with its criterion; predictions are in `optimizers`."""

from __future__ import annotations

from typing import Any

import pandas as pd
from claims_file import Claim
from optimizer_predictions import muon_first_step, muon_fixed_point
from optimizer_runs import FEW_PAIRS, MIDDLE_TASK, OV_KINDS, SCHATTEN, SMALL, SWITCHES, TASKS, Study

SILENT = 0.1
"""Largest |β| of a model that is silent."""

OUTCOMES = ("opposite", "silence", "reasoning")
PREDICTED = {
    ("gradient descent", "factorized"): ("reasoning", "nuclear"),
    ("momentum", "factorized"): ("reasoning", "nuclear"),
    ("AdamW", "factorized"): ("reasoning", "gamma_2"),
    ("SignSGD", "factorized"): ("reasoning", "gamma_2"),
    ("Muon", "factorized"): ("opposite", "spectral"),
    ("gradient descent", "non_factorized"): ("silence", "frobenius"),
    ("momentum", "non_factorized"): ("silence", "frobenius"),
    ("AdamW", "non_factorized"): ("silence", "entry"),
    ("SignSGD", "non_factorized"): ("silence", "entry"),
    ("Muon", "non_factorized"): ("opposite", "spectral"),
}
"""(optimiser, OV kind) -> outcome and norm."""

PLAIN = ("main", "few pairs", "trained attention", "noise", "paper's task", "long")
"""Parts of one optimiser with nothing special about it."""


def outcome(beta: float) -> str:
    """Reasoning, silence or the opposite."""
    return OUTCOMES[1] if abs(beta) <= SILENT else OUTCOMES[2 if beta > 0 else 0]


def all_claims(study: Study) -> list[Claim]:
    """Every claim of the study."""
    claims = [_outcome_claim(study, *key) for key in PREDICTED]
    claims += [_geometry_claim(study, *key) for key in PREDICTED]
    claims += [*_muon_claims(study), _gamma_2_claim(study), *_mixed_claims(study)]
    return claims


def _claim(name: str, statement: str, expected: str, measured: dict[str, Any], holds: bool, **more) -> Claim:
    values = {"tolerance": 0.0, "figure": "optimizer_summary", **more}
    source = "conjecture of this project (docs/theory.md)"
    return Claim(
        f"optimizer_{name}",
        statement,
        source,
        expected,
        measured,
        holds=bool(holds),
        script="optimizers",
        **values,
    )


def _of(frame: pd.DataFrame, **values: Any) -> pd.DataFrame:
    for name, value in values.items():
        frame = frame.loc[frame[name] == value]
    return frame


def _short(text: str) -> str:
    for mark in " ,'-.":
        text = text.replace(mark, "_")
    return text.lower()


def _outcome_claim(study: Study, optimizer: str, ov: str) -> Claim:
    wanted = PREDICTED[optimizer, ov][0]
    runs = _of(study.cells, optimizer=optimizer, ov=ov)
    runs = runs.loc[runs["part"].isin(PLAIN)]
    fitted = runs.loc[runs["fitted"].astype(bool)]
    good = [outcome(beta) == wanted for beta in fitted["beta"]]
    measured: dict[str, Any] = {
        f"beta_{_short(part)}": list(group["beta"]) for part, group in fitted.groupby("part", sort=False)
    }
    measured |= {"fitted": len(fitted), "not_fitted": len(runs) - len(fitted), "as_predicted": sum(good)}
    measured["held_out_accuracy"] = list(fitted["accuracy"])
    return _claim(
        f"{_short(optimizer)}_{ov}",
        f"{optimizer}, {ov}: {wanted} ({_words(wanted)}) in every task, rate, start, seed, with noise and with "
        "trained attention",
        f"{_words(wanted)} in every run that fits its training set",
        measured,
        len(good) > 0 and all(good),
    )


def _words(wanted: str) -> str:
    return {"reasoning": "β > 0.1", "silence": "|β| <= 0.1", "opposite": "β < -0.1"}[wanted]


def _geometry_claim(study: Study, optimizer: str, ov: str) -> Claim:
    norm = PREDICTED[optimizer, ov][1]
    runs = _of(study.cells, optimizer=optimizer, ov=ov, part="few pairs", fitted=True)
    others = [other for other in SCHATTEN if other != norm]
    closest = runs[f"excess_{norm}"] < runs[[f"excess_{other}" for other in others]].min(axis=1)
    measured: dict[str, Any] = {f"excess_{name}": list(runs[f"excess_{name}"]) for name in (norm, *others)}
    measured |= {"nearest_to_it": int(closest.sum()), "runs": len(runs)}
    return _claim(
        f"geometry_{_short(optimizer)}_{ov}",
        f"{optimizer}, {ov}, few pairs: of the norms at margin 1 the {norm.replace('_', '-')} norm is the "
        "nearest to its smallest value",
        f"excess of the {norm.replace('_', '-')} norm below that of {' and '.join(others)}, every run",
        measured,
        len(runs) > 0 and bool(closest.all()),
        figure="optimizer_geometry",
    )


def _muon_claims(study: Study) -> list[Claim]:
    claims = []
    limit = _of(study.cells, part="limit", fitted=True)
    for sizes in FEW_PAIRS:
        runs, end = limit.loc[[s == sizes for s in limit["sizes"]]], muon_fixed_point(sizes)
        betas = list(runs["beta"])
        claims.append(
            _claim(
                f"muon_end_{'_'.join(map(str, sizes))}",
                f"Muon in small steps, eps 1e-18, both OV kinds, at {sizes}: β ends at {end:.3f}, the fixed point "
                "of orthogonal steps",
                "within 10 %, every seed",
                {"beta": betas, "excess_spectral": list(runs["excess_spectral"])},
                len(betas) > 0 and all(abs(beta - end) <= 0.1 * abs(end) for beta in betas),
                tolerance=0.1,
                figure="optimizer_limits",
            )
        )
    first = _of(
        study.curves, part="main", optimizer="Muon", ov="non_factorized", rate="middle", start=SMALL, step=50
    )
    pairs = [(float(b), muon_first_step(s)) for b, s in zip(first["beta"], first["sizes"], strict=True)]
    claims.append(
        _claim(
            "muon_first_steps",
            "Muon, non-factorized, early (50 steps): β is that of one orthogonal step, -m_train / (m_test + "
            "√(m_train m_test))",
            "within 10 %, every task and seed",
            {"beta_over_prediction": [beta / wanted for beta, wanted in pairs]},
            all(abs(beta / wanted - 1) <= 0.1 for beta, wanted in pairs),
            tolerance=0.1,
            figure="optimizer_beta",
        )
    )
    long = _of(study.curves, part="long", optimizer="Muon", ov="factorized").pivot(
        index="run", columns="step", values="beta"
    )
    drift = [float(v) for v in (long[30_000] - long[5_000]).abs()]
    claims.append(
        _claim(
            "muon_stands_still",
            "Muon with torch's eps, factorized: nothing moves once the loss is below it",
            "|β(30,000) - β(5,000)| <= 0.001",
            {"drift": drift},
            max(drift) <= 0.001,
            tolerance=0.001,
            figure="optimizer_limits",
        )
    )
    return [*claims, _precision_claim(study)]


def _precision_claim(study: Study) -> Claim:
    rounded = study.curves.loc[
        study.curves["variant"].str.contains("bfloat16") & (study.curves["step"] == 1_000)
    ]
    exact = study.curves.loc[
        (study.curves["optimizer"] == "Muon")
        & (study.curves["part"].isin(["main", "few pairs"]))
        & (study.curves["rate"] == "middle")
        & (study.curves["start"] == SMALL)
        & (study.curves["step"] == 1_000)
    ]
    both = rounded.merge(exact, on=["ov", "sizes", "seed"], suffixes=("", "_exact"), validate="1:1")
    difference = [float(v) for v in (both["beta"] - both["beta_exact"]).abs()]
    same = [outcome(a) == outcome(b) for a, b in zip(both["beta"], both["beta_exact"], strict=True)]
    return _claim(
        "muon_precision",
        "torch.optim.Muon in bfloat16 and the same iteration in float32 find the same",
        "same outcome and β within 0.1 after 1,000 steps",
        {
            "beta_bfloat16": list(both["beta"]),
            "beta_float32": list(both["beta_exact"]),
            "difference": difference,
        },
        all(same) and max(difference) <= 0.1,
        tolerance=0.1,
        figure="optimizer_limits",
    )


def _gamma_2_claim(study: Study) -> Claim:
    nuclear = (MIDDLE_TASK[1] / MIDDLE_TASK[2]) ** 0.5
    runs = _of(study.cells, part="long", ov="factorized", fitted=True)
    found = {name: list(runs.loc[runs["optimizer"] == name, "beta"]) for name in ("AdamW", "SignSGD")}
    nearer = [abs(beta - 1) < abs(beta - nuclear) for betas in found.values() for beta in betas]
    return _claim(
        "gamma_2",
        f"AdamW and SignSGD, factorized, (10, 1, 3), 30,000 steps: β is nearer to 1 (gamma-2 norm) than to {nuclear:.3f} "
        "(nuclear norm)",
        "every seed of both",
        {f"beta_{name.lower()}": betas for name, betas in found.items()},
        all(nearer),
        figure="optimizer_limits",
    )


def _mixed_claims(study: Study) -> list[Claim]:
    """Early, the second optimiser decides; late, what does depends on how its steps shrink."""
    cells, claims = _of(study.cells, part="mixed", ov=OV_KINDS[0]), []
    late = f"switch at {SWITCHES[-1]}"
    for first, second, survives in (
        ("gradient descent", "Muon", False),
        ("AdamW", "Muon", False),
        ("Muon", "gradient descent", True),
    ):
        name = f"{first}, then {second}"
        winner = first if survives else second
        wanted = PREDICTED[winner, OV_KINDS[0]][0]
        runs = _of(cells, optimizer=name, variant=late)
        betas = list(runs["beta"])
        before = _of(
            study.curves, part="mixed", ov=OV_KINDS[0], optimizer=name, variant=late, step=SWITCHES[-1]
        )
        claims.append(
            _claim(
                f"mixed_{_short(name)}",
                f"{name} after the training set is fitted (step 1,000), factorized: the outcome is that of {winner}",
                f"{_words(wanted)} at the end, every seed; all told margins positive at the switch",
                {"beta": betas, "beta_at_the_switch": list(before["beta"])},
                all(outcome(beta) == wanted for beta in betas) and bool((before["train_margin"] > 0).all()),
                figure="optimizer_mixed",
            )
        )
    early = _of(cells, variant=f"switch at {SWITCHES[0]}")
    second = [name.split(", then ")[1] for name in early["optimizer"]]
    right = [
        outcome(beta) == PREDICTED[name, OV_KINDS[0]][0]
        for beta, name in zip(early["beta"], second, strict=True)
    ]
    measured: dict[str, Any] = {
        f"beta_{_short(name)}": list(group["beta"]) for name, group in early.groupby("optimizer", sort=False)
    }
    claims.append(
        _claim(
            "mixed_early",
            f"Mixed recipes that switch at step {SWITCHES[0]}, factorized: the second optimiser decides",
            "the outcome predicted for the second one, every recipe and seed",
            measured,
            all(right),
            figure="optimizer_mixed",
        )
    )
    return claims
