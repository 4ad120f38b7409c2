"""Shared by the claims about SmolLM2-135M: bounds, seeds, and how a claim is made."""

from __future__ import annotations

from typing import Any

from analyses.house.claims import Claim

FITTED = 0.05
"""Largest mean rank of told facts at which a model counts as knowing them."""

SMALL = 0.3
"""Largest mean rank at which held-out implications count as deduced, and largest difference of equal ends."""

SEEDS = [0, 1, 2]


def llm_claim(
    name: str, statement: str, source: str, expected: str, measured: dict[str, Any], holds: bool, figure: str
) -> Claim:
    shown = {key: _rounded(value) for key, value in measured.items()}
    return Claim(f"llm_{name}", f"SmolLM2-135M{statement}", source, expected, shown, 0.0, holds, figure)


def study_claim(
    study: str,
    statement: str,
    measured: dict[str, Any],
    holds: bool,
    figure: str,
    source: str = "ours",
) -> Claim:
    """A claim whose statement is one of the criteria of a study, written before its runs.

    Args:
        study: name of the study and of the claim, e.g. "parts_every_arm_fits".
        statement: the criterion.
        measured, holds, figure, source: as in `Claim`.
    """
    expected = "as stated; written before the runs"
    return llm_claim(study, f": {statement}", source, expected, measured, holds, figure)


def _rounded(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
