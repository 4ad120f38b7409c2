"""Shared by the claims about language models: bounds, seeds, and how a claim is made."""

from __future__ import annotations

from typing import Any

from analyses.house.claims import Claim
from analyses.llm.studies.plan import SMOLLM2, TITLES

FITTED = 0.05
"""Largest mean rank of told facts at which a model counts as knowing them."""

SMALL = 0.3
"""Largest mean rank at which held-out implications count as deduced, and largest difference of equal ends."""

SEEDS = [0, 1, 2]


def llm_claim(
    name: str,
    statement: str,
    source: str,
    expected: str,
    measured: dict[str, Any],
    holds: bool,
    figure: str,
    model: str = TITLES[SMOLLM2],
) -> Claim:
    """A claim about a language model; numbers are shown with four digits."""
    shown = {key: _rounded(value) for key, value in measured.items()}
    return Claim(f"llm_{name}", f"{model}{statement}", source, expected, shown, 0.0, holds, figure)


def study_claim(
    study: str,
    statement: str,
    measured: dict[str, Any],
    holds: bool,
    figure: str,
    source: str = "ours",
    model: str = TITLES[SMOLLM2],
) -> Claim:
    """A claim whose statement is one of the criteria of a study, written before its runs.

    Args:
        study: name of the study and of the claim, e.g. "parts_every_arm_fits".
        statement: the criterion.
        measured, holds, figure, source: as in `Claim`.
        model: what it is about.
    """
    expected = "as stated; written before the runs"
    return llm_claim(study, f": {statement}", source, expected, measured, holds, figure, model)


def _rounded(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
