"""What each arm of `analyses.llm.parts` trains and how much memory it is foreseen to take, without a run.

python -m analyses.llm.parameterisation.costs   (needs `make llm-model` and `make llm-model-gemma`, once)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from analyses.llm.studies.parts import ON_GEMMA, STUDY
from analyses.llm.studies.plan import FOLDERS, GEMMA, SMOLLM2

RESULT = Path(__file__).resolve().parents[2] / "results" / "llm_costs.json"
POSITIONS = 16
"""Tokens of the longest sequence of the study, about."""


def costs() -> dict[str, dict[str, dict[str, Any]]]:
    """Model -> arm -> numbers that are trained, and the foreseen memory in bytes."""
    import transformers

    from ocr_interp.llm.training.memory import estimate_memory

    found: dict[str, dict[str, dict[str, Any]]] = {}
    for model, study in ((SMOLLM2, STUDY), (GEMMA, ON_GEMMA)):
        configs = {run.arm.partition("--")[2]: run.config.train for run in study.planned()}
        shapes = transformers.AutoConfig.from_pretrained(FOLDERS[model])
        estimates = {arm: estimate_memory(shapes, config, POSITIONS) for arm, config in configs.items()}
        found[model] = {
            arm: {"trained_numbers": one.trained, "foreseen_memory_bytes": one.total}
            for arm, one in estimates.items()
        }
    return found


def read_costs() -> dict[str, dict[str, dict[str, Any]]]:
    """The committed costs; no model is needed."""
    return json.loads(RESULT.read_text(encoding="utf-8"))


def main() -> None:
    RESULT.write_text(json.dumps(costs(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
