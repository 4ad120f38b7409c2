"""A control: implications are told of strangers, whose facts are not told, all answers equally often.

Facts alone lack the sentences of the implications. Told of strangers, the model learns their wording and
which answers there are, and nothing of which fact goes with which answer. What is deduced exceeds that.

Gemma was planned too, left out for lack of time, and added again with its claims after SmolLM2's runs had
been seen, all before its own. Of its sets of languages, of which no claim is made, the second and third seed
were left out for lack of time, before any of their runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from analyses.llm.studies.families import DATA, GENTLE, SELDOM, SPURIOUS
from analyses.llm.studies.plan import GEMMA, SMOLLM2, PlannedRun, Study, recipe

GUESSED = 1.7
"""Mean rank from which answers count as guessed."""

CRITERIA = {
    "told_below_strangers": (
        "the three spurious sets together: held-out mean rank told minus strangers, one mean of the three "
        "sets per seed, is below 0 with the 95 % t interval over seeds excluding 0"
    ),
    "strangers_teach_no_pairs": (
        "the three spurious sets together: with strangers the held-out mean rank, one mean of the three "
        f"sets per seed, is at least {GUESSED} in every seed"
    ),
}
CRITERIA |= {f"gemma_{name}": f"Gemma: {text}" for name, text in CRITERIA.items()}


def runs(seed: int) -> Iterator[PlannedRun]:
    """The five sets on both models; on Gemma those of languages with one seed."""
    for (model, training), data in itertools.product(((SMOLLM2, {}), (GEMMA, GENTLE)), DATA):
        if model == GEMMA and seed and data not in SPURIOUS:
            continue
        config = recipe(data, seed, model=model, control="strangers", log_every=SELDOM, **training)
        yield PlannedRun("strangers", f"{model}--{data}", config)


STUDY = Study("strangers", "Is it more than the wording and the answers?", CRITERIA, runs)
