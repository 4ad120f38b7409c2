"""Runs of the paper's Table 1 with SmolLM2-135M: one small JSON per finished run.

    python -m analyses.llm.table_1 [--only WORD ...] [--list] [--threads 1] [--results analyses/results/llm]

Needs `ocr-interp llm prepare` (once). It can be stopped at any time: finished runs are kept and are not
computed again, and the same command makes the rest. `--only` takes runs whose names have all the words, such
as `--only city_language lora seed0`.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig

CITY = "city_language"
COUNTERFACTUAL = "city_language_counterfactual"
SPURIOUS = ("profession_color", "country_code", "sport_music")
DATA = (CITY, COUNTERFACTUAL, *SPURIOUS)
CONTROLS = ("facts_only", "random_implications", "implications_only")
OTHER_RATES = (3e-5, 3e-4)
"""Learning rates beside 1e-4, for City-Language and its counterfactual; the first also as slowest AdamW."""

_SEPARATOR = "--"
FACTS_ONLY_STEPS = 100
"""8 epochs of 100 facts; of facts and told implications they are 120 steps."""
LORA_RATE = 1e-3
SELDOM = 40
"""Steps between measurements if no curve is drawn; otherwise measuring would take 40 % of a run."""
SLOWER_RATE = 6e-5
"""Slower rate of AdamW: its OV circuits change about as much as with Muon at 1e-4 (less at batch 8)."""
MUON_STEPS = 90
"""Muon's steps at batch 8, where one costs as much as ten of AdamW's on a CPU; AdamW has fitted by then."""
BATCH_24_STEPS = 50
"""A little more than 8 epochs of 120: what both optimizers need at batch 24 to fit the facts."""


def full(data: str, seed: int, **changes: object) -> LLMRunConfig:
    """The paper's recipe on a data set: AdamW on all weights, 8 epochs, batch 8."""
    recipe = FinetuneConfig(train_seed=seed, **changes)  # pyright: ignore[reportArgumentType]
    return LLMRunConfig(FactConfig(data=data, seed=seed), recipe)


def controlled(data: str, seed: int, control: str) -> LLMRunConfig:
    """A control: facts only for the same number of epochs, the others for the same number of steps."""
    config = full(data, seed)
    facts = replace(config.facts, control=control)  # pyright: ignore[reportArgumentType]
    steps = FACTS_ONLY_STEPS if control == "facts_only" else config.train.steps
    return LLMRunConfig(facts, replace(config.train, steps=steps, log_every=SELDOM))


def lora(data: str, seed: int) -> LLMRunConfig:
    """Rank-8 updates of all linear maps."""
    return full(data, seed, method="lora", lr=LORA_RATE, log_every=SELDOM)


def other_rate(data: str, seed: int, rate: float) -> LLMRunConfig:
    """The paper's recipe at another learning rate."""
    return full(data, seed, lr=rate, log_every=SELDOM)


def muon(data: str, seed: int) -> LLMRunConfig:
    """Muon at batch 8, measured at the same steps as AdamW."""
    return full(data, seed, optimizer="muon", steps=MUON_STEPS)


def batch_24(data: str, seed: int, optimizer: str, rate: float = 1e-4) -> LLMRunConfig:
    """Both optimizers at batch 24, matched in steps and nominal rate."""
    recipe = {"batch_size": 24, "steps": BATCH_24_STEPS, "log_every": 10}
    return full(data, seed, optimizer=optimizer, lr=rate, **recipe)


def all_runs() -> dict[str, LLMRunConfig]:
    """Every run by name, the most important first."""
    compared = (CITY, "profession_color", "sport_music")
    runs = [full(data, seed) for seed in range(3) for data in DATA]
    runs += [controlled(data, 0, control) for control in CONTROLS[:2] for data in DATA]
    runs += [lora(data, 0) for data in DATA]
    runs += [other_rate(data, 0, rate) for rate in OTHER_RATES for data in (CITY, COUNTERFACTUAL)]
    runs += [batch_24(data, seed, "adamw") for seed in range(3) for data in compared]
    runs += [batch_24(data, seed, "adamw", SLOWER_RATE) for seed in range(3) for data in compared]
    runs += [controlled(data, 0, CONTROLS[2]) for data in DATA]
    runs += [
        other_rate(data, s, rate) for s in (1, 2) for rate in OTHER_RATES for data in (CITY, COUNTERFACTUAL)
    ]
    runs += [lora(data, seed) for seed in (1, 2) for data in DATA]
    runs += [controlled(data, seed, "facts_only") for seed in (1, 2) for data in DATA]
    runs += [batch_24(data, seed, "muon") for seed in range(3) for data in compared]
    slower = (SLOWER_RATE, OTHER_RATES[0])
    runs += [full(data, seed, lr=rate) for rate in slower for seed in range(3) for data in compared[1:]]
    runs += [muon(data, seed) for seed in range(3) for data in compared]
    return {run_name(run): run for run in runs}


def run_name(config: LLMRunConfig) -> str:
    """For example "city_language--full--adamw--lr0.0001--batch8--seed0"."""
    facts, train = config.facts, config.train
    control = () if facts.control == "none" else (facts.control,)
    recipe = (train.method, train.optimizer, f"lr{train.lr:g}", f"batch{train.batch_size}")
    return _SEPARATOR.join((facts.data, *control, *recipe, f"seed{facts.seed}"))


@dataclass(frozen=True)
class Arguments:
    """Make the runs that are missing."""

    only: tuple[str, ...] = ()
    """make only runs whose names have all these words (between the dashes)"""
    results: Path = Path("analyses/results/llm")
    """folder of the JSONs of finished runs"""
    threads: int = 1
    """number of torch's threads; with more threads, sums may differ in the last bits"""
    names: Annotated[bool, tyro.conf.arg(name="list")] = False
    """only list the runs and which of them are finished"""


def main(arguments: Arguments) -> None:
    runs = {
        name: config
        for name, config in all_runs().items()
        if set(arguments.only) <= set(name.split(_SEPARATOR))
    }
    missing = {
        name: config
        for name, config in runs.items()
        if not is_finished(config, arguments.results / f"{name}.json")
    }
    if arguments.names:
        for name in runs:
            print("missing " if name in missing else "finished", name)
    print(f"{len(runs) - len(missing)} of {len(runs)} runs are finished")
    if missing and not arguments.names:
        _run_all(missing, arguments)


def is_finished(config: LLMRunConfig, path: Path) -> bool:
    """Whether a run has its JSON; a JSON of another configuration is an error."""
    from ocr_interp.llm.training.files.result import config_of_result, read_result

    if not path.exists():
        return False
    if config.differences(config_of_result(read_result(path))):
        raise SystemExit(f"{path} is of another configuration of the same name: move it away")
    return True


def _run_all(runs: dict[str, LLMRunConfig], arguments: Arguments) -> None:
    import torch

    from ocr_interp.llm.models.allocator import keep_freed_memory
    from ocr_interp.llm.models.loading import LanguageModel, load_model

    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    untouched = load_model(next(iter(runs.values())).train.model)
    for name, config in runs.items():
        if is_finished(config, arguments.results / f"{name}.json"):  # another process was faster
            continue
        lm = LanguageModel(untouched.name, copy.deepcopy(untouched.model), untouched.tokenizer)
        _run_one(name, config, lm, arguments.results)


def _run_one(name: str, config: LLMRunConfig, lm: object, results: Path) -> None:
    from ocr_interp.llm.inside.updates import ov_update, ov_weights
    from ocr_interp.llm.measuring.table import write_table
    from ocr_interp.llm.models.loading import LanguageModel
    from ocr_interp.llm.training.files.result import write_result
    from ocr_interp.llm.training.finetune import finetune

    assert isinstance(lm, LanguageModel)
    start, before = time.perf_counter(), ov_weights(lm)
    run = finetune(config, lm=lm)
    if run.status != "finished":
        raise SystemExit(f"{name} was stopped at step {run.step}; the same command makes it again")
    update = ov_update(before, ov_weights(run.lm))
    write_table(results / f"{name}.logits.safetensors", run.logits, config.fingerprint)
    write_result(results / f"{name}.json", {**run.to_dict(), "ov_update": update.to_dict()})
    last = run.history.iloc[-1]
    print(
        f"{name}: {time.perf_counter() - start:.0f} s, loss {last['train_loss']:.4f}, rank of held-out "
        f"facts {last['held_out_fact/rank']:.2f}, held-out implications "
        f"{run.history.iloc[0]['held_out_implication/rank']:.2f} -> {last['held_out_implication/rank']:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main(tyro.cli(Arguments))
