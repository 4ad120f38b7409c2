"""A control: implications are told of strangers, whose facts are not told, all answers equally often.

Facts alone lack the sentences of the implications. Told of strangers, the model learns their wording and
which answers there are, and nothing of which fact goes with which answer. What is deduced exceeds that.

Gemma was planned too and left out for lack of time, before any of its runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from analyses.llm.studies.families import DATA, SELDOM
from analyses.llm.studies.plan import SMOLLM2, PlannedRun, Study, recipe

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


def runs(seed: int) -> Iterator[PlannedRun]:
    """The five sets on SmolLM2."""
    for data in DATA:
        config = recipe(data, seed, control="strangers", log_every=SELDOM)
        yield PlannedRun("strangers", f"{SMOLLM2}--{data}", config)


STUDY = Study("strangers", "Is it more than the wording and the answers?", CRITERIA, runs)
