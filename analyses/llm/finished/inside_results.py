"""Reads the results of `analyses.llm.inside`: inspected runs by model, data set and method."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analyses.llm.studies.plan import FOLDERS, GEMMA, SMOLLM2
from ocr_interp.llm.training.files.result import read_result

RESULTS = Path(__file__).resolve().parents[2] / "results" / "llm_inside"
HEADS_CUT = {SMOLLM2: 27, GEMMA: 7}
"""Number of the most changed heads that are cut, by model: a tenth of the 270 and of the 72 heads."""

SPLITS = ("held_out_fact", "training_implication", "held_out_implication")
METHODS = {"full": "full", "lora": "LoRA"}


@dataclass(frozen=True)
class Runs:
    """Inspected runs of one model, data set and method.

    Attributes:
        model: SMOLLM2 or GEMMA.
        data, method: as in the configuration.
        results: one result per seed.
    """

    model: str
    data: str
    method: str
    results: tuple[dict[str, Any], ...]

    @property
    def key(self) -> str:
        """Key of its numbers in the JSON."""
        named = f"{self.data}, {self.method}"
        return named if self.model == SMOLLM2 else f"{self.model}, {named}"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of every result."""
        return tuple(result["config"]["facts"]["seed"] for result in self.results)

    def cuts(self) -> dict[str, dict[str, Any]]:
        """What was cut -> its kind, and the mean ranks of every seed by split; NaN where a seed lacks it."""
        found: dict[str, dict[str, Any]] = {}
        for k, result in enumerate(self.results):
            for cut in result["cuts"]:
                nothing = {split: [np.nan] * len(self.results) for split in SPLITS}
                entry = found.setdefault(cut["what"], {"kind": cut["kind"], **nothing})
                for split in SPLITS:
                    entry[split][k] = np.nan if cut["rank"][split] is None else cut["rank"][split]
        return found

    def circuits(self) -> list[dict[str, Any]]:
        """Token circuits of the seeds that have them."""
        return [r["circuits"] for r in self.results if isinstance(r.get("circuits"), dict)]

    def layers(self) -> dict[int, dict[str, Any]]:
        """Seed -> probes and patching by layer, of the seeds that have them."""
        found = zip(self.seeds, self.results, strict=True)
        return {seed: result["layers"] for seed, result in found if isinstance(result.get("layers"), dict)}


def read_runs(folder: Path) -> list[Runs]:
    """The inspected runs in a folder by model, data set and method, each with its seeds."""
    models = {path: model for model, path in FOLDERS.items()}
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(folder.glob("*.json")):
        result = read_result(path)
        facts, train = result["config"]["facts"], result["config"]["train"]
        model = models[train.get("model", FOLDERS[SMOLLM2])]
        found[model, facts["data"], train["method"]].append(result)
    order = list(FOLDERS)
    ordered = sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0]))
    return [Runs(*key, tuple(results)) for key, results in ordered]
