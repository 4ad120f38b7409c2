"""Which parts of a model, and which parameterisation of its update, deduce a spurious implication.

Criteria, rates and plan are in analyses/llm/studies/parts.py; arms are compared at equal told loss.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D
from scipy.stats import spearmanr

from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.llm.finished.criteria import FITTED
from analyses.llm.finished.results import CHANCE, NAMES
from analyses.llm.finished.studied import (
    FACTS,
    HELD_OUT,
    HELD_OUT_CALIBRATED,
    TOLD,
    arms_of,
    plain_interval,
)
from analyses.llm.parameterisation import divergence
from analyses.llm.parameterisation.claims import (
    CAUSAL,
    GEMMA_PICTURE,
    PICTURE,
    Arms,
    Found,
    claims,
)
from analyses.llm.parameterisation.costs import read_costs
from analyses.llm.studies.parts import (
    ALL_SETS,
    ARMS,
    CHANCE_LEFT,
    CITY_LIMIT,
    CRITERIA,
    FURTHER,
    FURTHER_SEEDS,
    GEMMA_CRITERIA,
    MATCHED,
    ON_ALL_SETS,
    ON_GEMMA,
    SETS,
    SPURIOUS,
    STUDY,
    TITLES,
)
from analyses.llm.studies.plan import GEMMA, SMOLLM2, Study

BLUE, ORANGE = "#0173b2", "#de8f05"


def make(runs: Path, figures: Path) -> Found:
    """Draws what is finished."""
    arms, gemma = _arms(STUDY, ARMS, ALL_SETS), _arms(ON_GEMMA, ARMS | ON_ALL_SETS, ALL_SETS)
    further = _arms(STUDY, FURTHER | FURTHER_SEEDS, SETS)
    numbers = {"model": "SmolLM2", "criteria": CRITERIA, "matched_nats": MATCHED, "names": NAMES}
    numbers |= {"rows": rows(arms, SMOLLM2), "further_rows": rows(further, SMOLLM2)}
    DRAWING.write(figures / PICTURE, numbers | {"causal_and_spurious": going_together(_shown(numbers))})
    numbers = {"model": "Gemma", "criteria": GEMMA_CRITERIA, "names": NAMES, "rows": rows(gemma, GEMMA)}
    DRAWING.write(figures / GEMMA_PICTURE, numbers)
    matched = divergence.numbers()
    divergence.DRAWING.write(figures / divergence.PICTURE, matched)
    return Found(arms, gemma, further, matched["rows"])


def _arms(study: Study, names: Iterable[str], sets: Iterable[str]) -> Arms:
    found = arms_of(study)
    return {
        data: {name: found[f"{data}--{name}"] for name in names if f"{data}--{name}" in found}
        for data in sets
    }


@dataclass(frozen=True)
class Shown:
    """An arm in the picture, at the end of training.

    Attributes:
        title: of the arm.
        causal, spurious: one per run: mean rank of untold answers, and whether what was told is known.
    """

    title: str
    causal: list[tuple[float, bool]]
    spurious: list[tuple[float, bool]]

    @property
    def deduced(self) -> float:
        """Mean rank of the spurious runs."""
        return float(np.mean([rank for rank, _ in self.spurious]))

    @property
    def knows(self) -> bool:
        """Whether every spurious run knows all that it was told."""
        return all(known for _, known in self.spurious)

    @property
    def separates(self) -> bool:
        """Whether all that was told is known, untold causal answers too, and spurious ones are guessed."""
        kept = bool(self.causal) and all(known and rank <= CITY_LIMIT for rank, known in self.causal)
        return kept and self.knows and self.deduced >= CHANCE_LEFT


def _shown(numbers: dict[str, Any]) -> list[Shown]:
    """The arms that were run on every spurious set that any was, the one that deduces most first."""
    rows = numbers["rows"]
    every = {row["data"] for row in rows if row["data"] in SPURIOUS}
    found = []
    for title in dict.fromkeys(row["title"] for row in rows):
        own = {row["data"]: _by_run(row) for row in rows if row["title"] == title}
        if every <= own.keys():
            spurious = [run for data in SPURIOUS for run in own.get(data, [])]
            found.append(Shown(title, own.get(CAUSAL, []), spurious))
    return sorted(found, key=lambda arm: arm.deduced)


def going_together(shown: list[Shown]) -> dict[str, Any]:
    """Spearman's correlation of causal and spurious mean ranks over the arms that know all they were told.

    Looked at after the runs; no claim is made of it.
    """
    known = [arm for arm in shown if arm.causal and all(ok for _, ok in (*arm.causal, *arm.spurious))]
    causal = [float(np.mean([rank for rank, _ in arm.causal])) for arm in known]
    if len(set(causal)) < 2 or len({arm.deduced for arm in known}) < 2:
        return {"arms": [arm.title for arm in known], "correlation": None}
    found = np.asarray(spearmanr(causal, [arm.deduced for arm in known])[0])
    return {"arms": [arm.title for arm in known], "correlation": round(float(found), 5)}


def _by_run(row: dict[str, Any]) -> list[tuple[float, bool]]:
    told = zip(row["rank"]["by_seed"], row["fact_rank"], row["told_rank"], strict=True)
    return [(rank, max(fact, implication) <= FITTED) for rank, fact, implication in told]


def draw(numbers: dict[str, Any]) -> Picture:
    """Mean ranks by arm: every run of the spurious sets with their mean, and of the causal set."""
    shown = _shown(numbers)
    fig, ax = plt.subplots(figsize=(WIDTH, 1.9 + 0.24 * len(shown)), layout="constrained")
    for y, arm in enumerate(shown):
        ax.plot(arm.deduced, y, "|", ms=11, mew=2.5, color=ORANGE)
        for runs, color, marker in ((arm.spurious, ORANGE, "o"), (arm.causal, BLUE, "s")):
            for rank, known in runs:
                ax.plot(rank, y, marker, ms=5, mec=color, mfc=color if known else "white")
    ax.set_yticks(range(len(shown)), [arm.title for arm in shown])
    ax.axvline(CHANCE, color="#777777", lw=0.7, ls=":")
    ax.set_xlim(-0.05, 2.6)
    ax.set_xlabel("mean rank of untold answers at the end (0: known, 2: guessed)")
    fig.legend(handles=_legend(), frameon=False, ncols=2, loc="outside lower center", fontsize=8)
    return fig


def _legend() -> list[Line2D]:
    words: dict[str, dict[str, Any]] = {
        "City-Language (causal), a run": {"marker": "s", "ms": 5, "color": BLUE},
        "spurious sets, a run": {"marker": "o", "ms": 5, "color": ORANGE},
        "a run that does not know all it was told": {"marker": "o", "ms": 5, "color": "k", "mfc": "w"},
        "mean of the spurious runs": {"marker": "|", "ms": 11, "mew": 2.5, "color": ORANGE},
    }
    return [Line2D([], [], ls="", label=label, **style) for label, style in words.items()]


def sentence(numbers: dict[str, Any]) -> str:
    """Which arm keeps the causal set and loses the spurious ones; if none, who deduces least and most.

    Arms that do not know what they were told are not named.
    """
    shown = _shown(numbers)
    if len(shown) < 2:
        model = numbers["model"]
        return f"Which parts of {model} deduce spurious answers is not known before two are trained"
    said = _separating(shown)
    return f"On Gemma 3 {said}" if numbers["model"] == "Gemma" else said[0].upper() + said[1:]


def _separating(shown: list[Shown]) -> str:
    if apart := [arm.title for arm in shown if arm.separates]:
        only = ", ".join(apart)
        return f"causal answers are kept and spurious ones not deduced if this alone is trained: {only}"
    able = [arm for arm in shown if arm.knows] or shown
    most, least = able[0], able[-1]
    return (
        "no part and no parameterisation keeps causal answers and loses spurious ones, deduced least by "
        f"{least.title} (mean rank {least.deduced:.2f}), most by {most.title} ({most.deduced:.2f})"
    )


DRAWING = Drawing(sentence, draw)


def rows(arms: Arms, model: str) -> list[dict[str, Any]]:
    """The numbers of every arm, as a table of methods compared on the same task."""
    cost = read_costs()[model]
    return [
        {
            "data": data,
            "arm": name,
            "title": TITLES[name],
            "seeds": arm.seeds,
            "training": (ARMS | FURTHER | FURTHER_SEEDS | ON_ALL_SETS)[name],
            **cost[name],
            "rank": plain_interval(arm.last(HELD_OUT)),
            "calibrated_rank": plain_interval(arm.last(HELD_OUT_CALIBRATED)),
            "matched": plain_interval(arm.at_told_loss(HELD_OUT, MATCHED)),
            "fact_rank": arm.last(FACTS),
            "told_rank": arm.last(TOLD),
            "neutral_kl": plain_interval(arm.field("neutral_kl")),
            "cpu_seconds": [
                arm.results[s]["seconds"]["cpu"] if arm.results[s].get("device", "cpu") == "cpu" else None
                for s in arm.seeds
            ],
        }
        for data, of_data in arms.items()
        for name, arm in of_data.items()
    ]


DRAWINGS: dict[str, Drawing] = {
    **dict.fromkeys((PICTURE, GEMMA_PICTURE), DRAWING),
    divergence.PICTURE: divergence.DRAWING,
}
FIGURE = Figure(pictures=tuple(DRAWINGS), draw=make, claims=claims, drawings=DRAWINGS)


if __name__ == "__main__":
    main()
