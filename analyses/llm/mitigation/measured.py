"""What the finished runs of the mitigation study measured, one number per seed."""

from __future__ import annotations

import numpy as np

from analyses.llm.finished.studied import Arm
from analyses.llm.mitigation.methods import METHODS
from analyses.llm.mitigation.training import LOGGED
from analyses.llm.studies.mitigation import CAUSAL_LIMIT, CHANCE_LEFT, TOLD_LIMIT

END, DRIFTED = f"step_{LOGGED[-1]}", "drifted"
Arms = dict[str, dict[str, Arm]]
"""People -> method -> its runs."""


def rank(
    arm: Arm, relation: str, when: str = END, seed: int | None = None, *, calibrated: bool = False
) -> list[float]:
    """Mean rank of untold names that the method has not used, one per seed (or of one seed).

    Calibrated ranks are of what an answer has above what the same model gives it for names of which nothing
    is told.
    """
    halves = ["never_seen"] if METHODS[method_of(arm)].needs_names else ["never_seen", "seen_by_method"]
    columns = [f"{relation}/{half}{'/calibrated' * calibrated}" for half in halves]
    return [
        float(np.mean([measured(arm, s, when)[column] for column in columns]))
        for s in (arm.seeds if seed is None else [seed])
    ]


def told(arm: Arm, when: str = END) -> list[float]:
    """The worst mean rank of what is told: facts of all, both implications, one per seed."""
    names = ("fact/told", "fact/seen_by_method", "fact/never_seen", "causal/told", "spurious/told")
    return [max(measured(arm, s, when)[name] for name in names) for s in arm.seeds]


def separates(arm: Arm, when: str = END) -> list[bool]:
    """Whether everything told is known, the causal implication kept and the spurious one lost, by seed."""
    values = zip(told(arm, when), rank(arm, "causal", when), rank(arm, "spurious", when), strict=True)
    return [t <= TOLD_LIMIT and c <= CAUSAL_LIMIT and s >= CHANCE_LEFT for t, c, s in values]


def measured(arm: Arm, seed: int, when: str) -> dict[str, float]:
    """What was measured at a time; END is the method's own."""
    end = f"step_{LOGGED[-1] * METHODS[method_of(arm)].times}"
    return arm.results[seed]["measured"][end if when == END else when]


def method_of(arm: Arm) -> str:
    return arm.name.partition("--")[2]
