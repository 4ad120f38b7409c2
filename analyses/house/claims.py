"""Claims: what a figure states and what was measured; figures/claims.json is assembled from them.

Every figure has its own file, figures/claims/<study>.<module>.json. claims.json is their content in the order
of the figures in the code. So deleting a module removes its claims, and the claims of a slow figure stay
until it is drawn again.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ocr_interp.errors import OcrInterpError
from ocr_interp.storage.atomic import write_atomic
from ocr_interp.storage.plain import plain


@dataclass(frozen=True)
class Claim:
    """One statement against what was measured.

    Attributes:
        id: short name, unique in claims.json.
        statement: what is claimed, and of which models.
        source: who claims it.
        expected: the condition in words.
        measured: the values it is judged by; a list has one entry per seed or case.
        tolerance: how far a value may be off; 0 for plain thresholds.
        holds: whether every entry meets the condition. A claim that fails stays.
        figure: name of the picture that shows it; None if no picture does.
    """

    id: str
    statement: str
    source: str
    expected: str
    measured: dict[str, Any]
    tolerance: float
    holds: bool
    figure: str | None = None

    def entry(self, script: str) -> dict[str, Any]:
        """The claim's entry in claims.json; `script` is the figure's module, e.g. "paper.theorem_3"."""
        values = dataclasses.asdict(self)
        shown_by = values.pop("figure")
        return {**values, "script": script, "figure": shown_by}


def claims_file(figures: Path, script: str) -> Path:
    """Where the claims of one figure are kept."""
    return figures / "claims" / f"{script}.json"


def write_claims(figures: Path, script: str, claims: Sequence[Claim]) -> None:
    """Writes the claims of one figure."""
    path = claims_file(figures, script)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, [claim.entry(script) for claim in claims])


def read_claims(figures: Path, script: str) -> list[dict[str, Any]]:
    """The claims of one figure as they were last measured; empty before that.

    Raises:
        OcrInterpError: the file is damaged.
    """
    path = claims_file(figures, script)
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [{**entry, "id": str(entry["id"])} for entry in found]
    except (ValueError, TypeError, KeyError) as error:
        raise OcrInterpError(
            f"{path} is damaged ({error}): restore it, or draw it again with "
            f"ocr-interp reproduce --only {script}"
        ) from None


def assemble(figures: Path, scripts: Iterable[str]) -> list[dict[str, Any]]:
    """Writes figures/claims.json from the claims of these figures, in their order, and returns them.

    Raises:
        OcrInterpError: two figures make a claim with the same name.
    """
    entries = [entry for script in scripts for entry in read_claims(figures, script)]
    makers: dict[str, str] = {}
    for entry in entries:
        if entry["id"] in makers:
            raise OcrInterpError(
                f"{makers[entry['id']]} and {entry['script']} both make a claim {entry['id']!r}: rename one"
            )
        makers[entry["id"]] = entry["script"]
    figures.mkdir(parents=True, exist_ok=True)
    _write(figures / "claims.json", entries)
    return entries


def print_claims(claims: Sequence[Claim]) -> None:
    """A table: claim, what was measured, whether it holds."""
    table = Table("claim", "measured", "holds", show_lines=True)
    for claim in claims:
        shown = "\n".join(f"{name.replace('_', ' ')}: {span(v)}" for name, v in claim.measured.items())
        table.add_row(claim.id.replace("_", " "), shown, "yes" if claim.holds else "NO")
    if claims:
        Console().print(table)


def span(values: Any) -> str:
    """One number, or the range of several, to three digits; says how many are missing (None or NaN).

    Names are listed, those of one seed together.
    """
    given = values if isinstance(values, list) else [values]
    if any(isinstance(value, str | list) for value in given):
        return "; ".join(", ".join(map(str, v)) if isinstance(v, list) else str(v) for v in given)
    numbers = [value for value in given if value is not None and not math.isnan(value)]
    missing = len(given) - len(numbers)
    if not numbers:
        return "none"
    low, high = f"{min(numbers):.3g}", f"{max(numbers):.3g}"
    shown = low if low == high else f"{low} to {high}"
    return f"{shown} ({missing} of {len(given)} none)" if missing else shown


def _write(path: Path, entries: list[dict[str, Any]]) -> None:
    write_atomic(path, (json.dumps(plain(entries), indent=1) + "\n").encode())
