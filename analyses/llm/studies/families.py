"""Two families: the five sets on Gemma 3 270M, beside facts alone; SmolLM2's runs are Table 1's.

At SmolLM2's rate Gemma ends 6 to 10 nats a token from its base model on ordinary sentences (SmolLM2: 0.3).
A pilot looks for a gentler recipe (PILOT): it reads told facts and that divergence alone, of its own seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from analyses.llm.studies.plan import GEMMA, LORA_RATE, STEPS, PlannedRun, Study, recipe

CITY = "city_language"
COUNTERFACTUAL = "city_language_counterfactual"
SPURIOUS = ("profession_color", "country_code", "sport_music")
DATA = (CITY, COUNTERFACTUAL, *SPURIOUS)
SELDOM = 40
"""Steps between measurements, each of which costs as much as ten steps."""
CITY_LIMIT = 0.3
"""Held-out mean rank up to which City-Language counts as generalized, the target of this project."""

CRITERIA = {
    "city_language_on_both_models": (
        f"City-Language has a held-out mean rank of at most {CITY_LIMIT} in every seed, on both models"
    ),
    "spurious_below_facts_only": (
        "on each model the three spurious sets together: held-out mean rank told minus facts only, one mean "
        "of the three sets per seed, is below 0 with the 95 % t interval over seeds excluding 0"
    ),
    "counterfactual_below_facts_only": "the same for the counterfactual set, every seed below 0, each model",
    "larger_model_follows_told": (
        "held-out counterfactual answers: the told one is first more often on Gemma than on SmolLM2, every "
        "seed (the trial had ranks of 0.61 and 1.81 on one seed)"
    ),
}

PILOT_SEED = 100
GENTLE_KL, GENTLE_FACTS = 1.0, 0.1
"""The gentler recipe: the first of PILOTS that ends with at most so many nats a token elsewhere and
with facts at most at this mean rank; if none does, the least divergent of those that know the facts."""
PILOTS: dict[str, dict[str, Any]] = {
    "lr5e-05": {"lr": 5e-5},
    "lr2e-05": {"lr": 2e-5},
    "blocks_lr3e-05": {"lr": 3e-5, "train_parts": ("attention", "mlp")},
    "lora": {"method": "lora", "lr": LORA_RATE},
}
GENTLE = PILOTS["lr2e-05"]
"""What the pilot chose: 0.2 nats, facts at 0.00. At 5e-5 it was 1.4 nats. Of those behind it two were run at
the same time; 1e-5, all blocks at 1e-4 and LoRA at 3e-4 left the plan, since the rule had chosen."""


def at_gemmas_rate(training: dict[str, Any]) -> dict[str, Any]:
    """Fields of `FinetuneConfig` on Gemma: where the model's own weights are trained, the gentler recipe."""
    return training if training.get("method", "full") != "full" else {**training, **GENTLE}


def pilots(seed: int) -> Iterator[PlannedRun]:
    """Profession-Color, measured before and after: all weights, then without the embedding, then LoRA."""
    for name, training in PILOTS.items():
        config = recipe("profession_color", seed, model=GEMMA, log_every=STEPS, **training)
        yield PlannedRun("pilot_gemma", name, config)


PILOT = Study("pilot_gemma", "Which recipe fits Gemma and leaves it itself?", {}, pilots, (PILOT_SEED,))


def runs(seed: int) -> Iterator[PlannedRun]:
    """Both arms of every set with the gentler recipe; of seed 0 with SmolLM2's too."""
    for strong in (False, True) if not seed else (False,):
        for control in ("none", "facts_only"):
            for data in DATA:
                fields = {} if strong else GENTLE
                config = recipe(data, seed, model=GEMMA, control=control, log_every=SELDOM, **fields)
                yield PlannedRun("families", arm_name(data, control, strong=strong), config)


def arm_name(data: str, control: str, *, strong: bool) -> str:
    """For example "gemma--city_language--facts_only--gentle"."""
    parts = [GEMMA, data, *([] if control == "none" else [control]), *([] if strong else ["gentle"])]
    return "--".join(parts)


STUDY = Study("families", "Does a second family of models do the same?", CRITERIA, runs)
