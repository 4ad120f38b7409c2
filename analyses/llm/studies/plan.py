"""A study of language models: what is asked, what would count as an answer, and the runs that it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig

SMOLLM2, GEMMA = "smollm2", "gemma"
FOLDERS = {SMOLLM2: "runs/models/smollm2-135m", GEMMA: "runs/models/gemma-3-270m"}
TITLES = {SMOLLM2: "SmolLM2-135M", GEMMA: "Gemma 3 270M"}

STEPS, LOG_EVERY = 120, 20
"""Steps of every run unless a study says otherwise, and between measurements."""
FACTS_ONLY_STEPS = 100
"""As many epochs where no implication is told, or where the facts of those of whom one is told are not."""
N_UNSEEN = 40
"""Names of which nothing is told, for calibrated ranks."""
LORA_RATE = 1e-3

EVERY_ROW = (("neutral_kl", "every row"),)
"""What a plain run reads beside its configuration: the divergence is measured at every logged step."""

Maker = Callable[["PlannedRun", Any, Path], None]
"""Makes a run from a loaded model and writes its JSON."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        study: name of the study.
        arm: what is compared, e.g. "city_language--facts_only"; unique in its study together with the seed.
        config: facts and recipe; its seed is the run's.
        extra: what the study's own maker reads beside the configuration, plain values.
        make: makes the run; None is `runs.finetuned`, plain fine-tuning.
    """

    study: str
    arm: str
    config: LLMRunConfig
    extra: tuple[tuple[str, Any], ...] = ()
    make: Maker | None = None

    @property
    def seed(self) -> int:
        """Seed of names, pairs, order of the data and start of the update."""
        return self.config.facts.seed

    @property
    def name(self) -> str:
        """For example "families/gemma--city_language--seed0", the place of its JSON too."""
        return f"{self.study}/{self.arm}--seed{self.seed}"


@dataclass(frozen=True)
class Study:
    """A question with its criteria, which were written before its runs.

    Attributes:
        name: name of its module and of its folder of results.
        question: in one sentence.
        criteria: name of each claim -> what must hold for it.
        runs: of one seed, the most important first.
        seeds: the seeds that are planned.
        unjudged: name of each criterion that no claim judges -> why.
    """

    name: str
    question: str
    criteria: dict[str, str]
    runs: Callable[[int], Iterable[PlannedRun]]
    seeds: tuple[int, ...] = (0, 1, 2)
    unjudged: dict[str, str] = field(default_factory=dict)

    def planned(self) -> list[PlannedRun]:
        """All runs, seed by seed."""
        return [run for seed in self.seeds for run in self.runs(seed)]


def recipe(
    data: str,
    seed: int,
    *,
    model: str = SMOLLM2,
    control: str = "none",
    share: float | None = None,
    n_names: int | None = None,
    train_templates: tuple[int, ...] = (0,),
    test_templates: tuple[int, ...] = (0,),
    **training: Any,
) -> LLMRunConfig:
    """The configuration that all studies share, with what one of them changes.

    Args:
        data: name of a fact set.
        seed: of names, pairs, order and start.
        model: SMOLLM2 or GEMMA.
        control, share, n_names, train_templates, test_templates: as in `FactConfig`.
        training: fields of `FinetuneConfig`.
    """
    facts = FactConfig(
        data=data,
        seed=seed,
        control=control,  # pyright: ignore[reportArgumentType]
        share=share,
        n_names=n_names,
        train_templates=train_templates,
        test_templates=test_templates,
        n_unseen=N_UNSEEN,
    )
    untold = control in ("facts_only", "strangers") or share == 0
    fields: dict[str, Any] = {
        "steps": FACTS_ONLY_STEPS if untold else STEPS,
        "log_every": LOG_EVERY,
    } | training
    return LLMRunConfig(facts, FinetuneConfig(model=FOLDERS[model], train_seed=seed, **fields))
