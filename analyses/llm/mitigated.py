"""What keeps a causal implication and loses a spurious one of the same facts, in SmolLM2-135M.

Drawn from finished runs (`python -m analyses.llm.runs --study mitigation`); the criteria are in
analyses/llm/studies/mitigation.py, the claims in analyses/llm/mitigation/claims.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.llm.finished.studied import Arm, arms_of, plain_interval
from analyses.llm.mitigation.claims import claims
from analyses.llm.mitigation.drawing import (
    DRAWINGS,
    GEMMA_PICTURE,
    LAYERS_PICTURE,
    MODELS,
    N_LAYERS,
    OTHERS_PICTURE,
    PARETO_PICTURE,
    PICTURE,
    on_front,
)
from analyses.llm.mitigation.measured import DRIFTED, END, Arms, measured, method_of, rank, separates, told
from analyses.llm.mitigation.methods import METHODS, ApartInSomeLayers
from analyses.llm.studies.mitigation import (
    CAUSAL_LIMIT,
    CAUSAL_MARGIN,
    CHANCE_LEFT,
    CRITERIA,
    FEWER,
    PEOPLE,
    STUDY,
    TOLD_LIMIT,
)


def _cpu_seconds(arm: Arm) -> list[float]:
    """Training time by seed; NaN of a run on a GPU, where the CPU mostly waits."""
    on_cpu = {s: arm.results[s].get("device", "cpu") == "cpu" for s in arm.seeds}
    return [arm.results[s]["seconds"]["train"] if on_cpu[s] else math.nan for s in arm.seeds]


def rows(arms: Arms) -> list[dict[str, Any]]:
    """The numbers of every arm, for the table and the JSON."""
    found = []
    for people, of_people in arms.items():
        for name, arm in of_people.items():
            found.append(
                {
                    "people": people,
                    "method": name,
                    "title": METHODS[name].title,
                    "told_which_is_spurious": METHODS[name].names_spurious,
                    "seeds": arm.seeds,
                    "causal": plain_interval(rank(arm, "causal")),
                    "spurious": plain_interval(rank(arm, "spurious")),
                    "causal_calibrated": plain_interval(rank(arm, "causal", calibrated=True)),
                    "spurious_calibrated": plain_interval(rank(arm, "spurious", calibrated=True)),
                    "spurious_drifted": plain_interval(rank(arm, "spurious", DRIFTED)),
                    "causal_drifted": plain_interval(rank(arm, "causal", DRIFTED)),
                    "told": plain_interval(told(arm)),
                    "spurious_of_seen_names": plain_interval(
                        [measured(arm, s, END)["spurious/seen_by_method"] for s in arm.seeds]
                    ),
                    "neutral_kl": plain_interval([measured(arm, s, END)["neutral_kl"] for s in arm.seeds]),
                    "trained_numbers": arm.results[arm.seeds[0]]["trained_numbers"],
                    "cpu_seconds": plain_interval(_cpu_seconds(arm)),
                    "separates": separates(arm),
                    "lost_and_told": float(np.mean(told(arm))) <= TOLD_LIMIT
                    and float(np.mean(rank(arm, "spurious"))) >= CHANCE_LEFT,
                    "wrong_expert": {
                        relation: rank(arm, relation, "wrong_expert")
                        for relation in ("fact", "causal", "spurious")
                        if all("wrong_expert" in arm.results[s]["measured"] for s in arm.seeds)
                    },
                }
            )
    return found


def make(runs: Path, figures: Path) -> Arms:
    """Draws what is finished; `runs` is not used, since these runs keep no weights."""
    found = arms_of(STUDY)
    arms: Arms = {
        people: {method_of(arm): arm for name, arm in found.items() if name.startswith(f"{people}--")}
        for people in PEOPLE
    }
    common = {"criteria": CRITERIA, "limits": _limits()}
    table = rows(arms)
    of = {
        PICTURE: [row for row in table if row["people"] == "profession"],
        GEMMA_PICTURE: [row for row in table if row["people"] == "profession_on_gemma"],
        OTHERS_PICTURE: [r for r in table if r["people"] != "profession" and r["method"] in FEWER],
        LAYERS_PICTURE: list(_by_layers(table)),
        PARETO_PICTURE: [row for row in table if row["people"] in MODELS],
    }
    for name, drawing in DRAWINGS.items():
        numbers = {**common, "rows": of[name]}
        if name == PARETO_PICTURE:
            people = {one: [row for row in of[name] if row["people"] == one] for one in MODELS}
            numbers["front"] = {one: on_front(rows, _limits()) for one, rows in people.items()}
        drawing.write(figures / name, numbers)
    return arms


def _by_layers(table: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """The arms about professions whose experts are apart in some layers, in all or in none, by model."""
    for row in table:
        method = METHODS[row["method"]]
        if row["people"] not in N_LAYERS:
            continue
        if isinstance(method, ApartInSomeLayers):
            yield {**row, "first_layer_apart": method.first, "last_layer_apart": method.last}
        elif row["method"] in ("lora", "read_by_relation"):
            last = 0 if row["method"] == "lora" else N_LAYERS[row["people"]]
            yield {**row, "first_layer_apart": 0, "last_layer_apart": last}


def _limits() -> dict[str, float]:
    return {
        "causal_margin": CAUSAL_MARGIN,
        "causal_at_most": CAUSAL_LIMIT,
        "spurious_at_least": CHANCE_LEFT,
        "told_at_most": TOLD_LIMIT,
    }


FIGURE = Figure(pictures=tuple(DRAWINGS), draw=make, claims=claims, drawings=DRAWINGS)


if __name__ == "__main__":
    main()
