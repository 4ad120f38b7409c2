"""Inspects SmolLM2-135M after fine-tuning: which parts of the update store the facts and the implications.

    python -m analyses.llm.inside [--only WORD ...] [--threads 1]

Trains the runs again (they keep no weights), reads their heads' OV circuits between tokens, ablates parts,
heads and directions, and writes one small JSON per run into analyses/results/llm_inside. Runs that already
have a JSON are skipped. `ocr-interp reproduce --only inside_figures` draws the results.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import tyro

from analyses.llm.finished.inside_results import N_HEADS, RESULTS
from analyses.llm.table_1 import full, is_finished, lora, run_name
from ocr_interp.llm.training.configuration import FORMAT_VERSION, LLMRunConfig
from ocr_interp.llm.training.store import read_result, write_result

RUNS = (
    full("city_language", 0),
    full("profession_color", 0),
    lora("city_language", 0),
    lora("profession_color", 0),
    full("country_code", 0),
    full("city_language", 1),
    full("profession_color", 1),
)


@dataclass(frozen=True)
class Arguments:
    """Inspect the runs that have no result yet."""

    only: tuple[str, ...] = ()
    """inspect only runs whose names have all these words"""
    threads: int = 1
    """number of torch's threads"""


def inspect(config: LLMRunConfig, path: Path) -> None:
    """Trains a run, inspects it and writes the result."""
    from ocr_interp.llm.facts.drawing import make_facts
    from ocr_interp.llm.inside.inside import inspect_models
    from ocr_interp.llm.models.loading import LanguageModel, load_model
    from ocr_interp.llm.training.finetune import finetune

    before = load_model(config.train.model)
    own = LanguageModel(before.name, copy.deepcopy(before.model), before.tokenizer)
    run = finetune(config, lm=own)
    inside = inspect_models(before, run.lm, make_facts(config.facts), N_HEADS)
    print(f"\n{path.stem}\n{inside.summary()}", flush=True)
    found = {"format_version": FORMAT_VERSION, "fingerprint": config.fingerprint, "config": config.to_dict()}
    write_result(path, {**found, **inside.to_dict()})


def is_inspected(config: LLMRunConfig, path: Path) -> bool:
    """Whether a run has a result with token circuits."""
    return is_finished(config, path) and "circuits" in read_result(path)


def inspect_missing(arguments: Arguments) -> None:
    """Inspects the runs without a result, the most important first."""
    import torch

    from ocr_interp.llm.models.allocator import keep_freed_memory

    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    for config in RUNS:
        name = run_name(config)
        path = RESULTS / f"{name}.json"
        if set(arguments.only) <= set(name.split("--")) and not is_inspected(config, path):
            inspect(config, path)


if __name__ == "__main__":
    inspect_missing(tyro.cli(Arguments))
