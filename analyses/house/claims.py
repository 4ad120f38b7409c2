"""figures/claims.json: one entry a claim, replaced by whichever script measures it again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Claim:
    """One statement against what was measured.

    Attributes:
        id: short name; also the key under which the claim is replaced.
        statement: what is claimed, of which models.
        source: who claims it.
        expected: the condition in words.
        measured: the values it is judged by; a list has one entry a seed or case.
        tolerance: how far a value may be off; 0 for plain thresholds.
        holds: whether the condition is met by every entry.
        script: the script in analyses/ that measures it.
        figure: the figure that shows it; None if it is only in this file.
    """

    id: str
    statement: str
    source: str
    expected: str
    measured: dict[str, Any]
    tolerance: float
    holds: bool
    script: str
    figure: str | None = None


def write_claims(figures: Path, claims: Sequence[Claim]) -> None:
    """Puts claims into figures/claims.json, keeping those of other scripts, and prints them.

    Claims that a script no longer makes go away with it.
    """
    path = figures / "claims.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    new = {claim.id: dataclasses.asdict(claim) for claim in claims}
    scripts = {claim.script for claim in claims}
    kept = [entry for entry in known if entry["id"] in new or entry["script"] not in scripts]
    merged = [new.pop(entry["id"], entry) for entry in kept] + list(new.values())
    figures.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(merged, indent=1, default=_plain) + "\n", encoding="utf-8")
    table = Table("claim", "measured", "holds", show_lines=True)
    for claim in claims:
        shown = "\n".join(f"{name.replace('_', ' ')}: {span(v)}" for name, v in claim.measured.items())
        table.add_row(claim.id.replace("_", " "), shown, "yes" if claim.holds else "NO")
    Console().print(table)


def _plain(value: Any) -> Any:
    """Numbers of numpy as Python's own."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a claim must hold numbers and text, got {value!r}")


def span(values: Any) -> str:
    """One number, or the range of several, to three digits."""
    numbers = values if isinstance(values, list) else [values]
    low, high = f"{min(numbers):.3g}", f"{max(numbers):.3g}"
    return low if low == high else f"{low} to {high}"
