"""What the claims of SmolLM2-135M share: bounds, seeds, and how a claim is written."""

from __future__ import annotations

from typing import Any

from analyses.house.claims import Claim

FITTED = 0.05
"""Mean rank of told facts up to which a model knows them."""

SMALL = 0.3
"""Mean rank up to which held-out implications are deduced, and up to which two ways end alike."""

SEEDS = [0, 1, 2]


def llm_claim(
    name: str, statement: str, source: str, expected: str, measured: dict[str, Any], holds: bool, figure: str
) -> Claim:
    shown = {key: _rounded(value) for key, value in measured.items()}
    return Claim(f"llm_{name}", f"SmolLM2-135M{statement}", source, expected, shown, 0.0, holds, figure)


def _rounded(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
