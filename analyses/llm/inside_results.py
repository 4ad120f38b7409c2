"""Reads the results of `analyses.llm.inside`: inspected runs by data set and method."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analyses.llm.studies.plan import FOLDERS, GEMMA, SMOLLM2
from ocr_interp.llm.training.store import read_result

RESULTS = Path(__file__).resolve().parents[1] / "results" / "llm_inside"
HEADS_CUT = {FOLDERS[SMOLLM2]: 27, FOLDERS[GEMMA]: 7}
"""Number of the most changed heads that are cut, by model: a tenth of the 270 and of the 72 heads."""

SPLITS = ("held_out_fact", "training_implication", "held_out_implication")
METHODS = {"full": "full", "lora": "LoRA"}


@dataclass(frozen=True)
class Runs:
    """Inspected runs of one data set and method.

    Attributes:
        data, method: as in the configuration.
        results: one result per seed.
    """

    data: str
    method: str
    results: tuple[dict[str, Any], ...]

    @property
    def title(self) -> str:
        """Data set, method, number of seeds."""
        seeds = len(self.results)
        name = self.data.replace("_", "-").title()
        return f"{name}\n{METHODS[self.method]}, {seeds} seed{'s' if seeds > 1 else ''}"

    @property
    def key(self) -> str:
        """Key of its numbers in the JSON."""
        return f"{self.data}, {self.method}"

    def cuts(self) -> dict[str, dict[str, Any]]:
        """What was cut -> its kind, and the mean ranks of every seed by split."""
        found: dict[str, dict[str, Any]] = {}
        for result in self.results:
            for cut in result["cuts"]:
                entry = found.setdefault(
                    cut["what"], {"kind": cut["kind"], **{split: [] for split in SPLITS}}
                )
                for split in SPLITS:
                    entry[split].append(np.nan if cut["rank"][split] is None else cut["rank"][split])
        return found

    def circuits(self) -> list[dict[str, Any]]:
        """Token circuits of the seeds that have them."""
        return [r["circuits"] for r in self.results if isinstance(r.get("circuits"), dict)]


def read_runs(folder: Path) -> list[Runs]:
    """The inspected runs in a folder by data set and method, each with its seeds."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(folder.glob("*.json")):
        result = read_result(path)
        found[result["config"]["facts"]["data"], result["config"]["train"]["method"]].append(result)
    return [Runs(data, method, tuple(results)) for (data, method), results in sorted(found.items())]
