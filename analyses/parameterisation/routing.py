"""Routed experts: which side isolates, what random routing leaves, what learned routers do.

Pictures: routing_sides, routing_relations, routing_random, routing_learned. Gradient descent, small start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.figure
import matplotlib.pyplot as plt
import numpy as np
import torch

from analyses.house.claims import Claim
from analyses.house.experiments import Experiment, load_all
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.parameterisation.routing_criteria import (
    DEDUCED,
    EXPERTS,
    LEARNED,
    LEARNED_PREDICTED,
    OWN_ROUTES,
    RANDOM,
    RANDOM_TOLERANCE,
    RATE,
    RELATIONS,
    SAME_ROUTE,
    SCALE,
    SEEDS,
    SIDES,
    SILENT,
    SILENT_MEAN,
    SIZES,
    STAGE,
    STEPS,
    TWO_IMPLIED,
    TWO_STAGES,
    WIDTH,
)
from analyses.parameterisation.routing_drawing import (
    CHANCE,
    draw_learned,
    draw_random,
    draw_relations,
    draw_sides,
)
from analyses.parameterisation.routing_measured import TASK, Measured, measure
from ocr_interp import FactRecallTask, ModelConfig, TrainConfig
from ocr_interp.viz.style import figure_style, save_figure

RECIPE = TrainConfig.gradient_descent(
    steps=STEPS, lr=RATE, log_every=STEPS // 20, checkpoint_every=STEPS, snapshots=0, device="cpu"
)


THREE_RELATIONS = FactRecallTask(*SIZES, n_noise=0, seq_len=3, implied_relations=TWO_IMPLIED)


def _experiment(
    name: str, options: dict[str, Any], seeds: tuple[int, ...] = SEEDS, task: FactRecallTask = TASK
) -> Experiment:
    """Runs of routed experts."""
    model = ModelConfig(
        ov="routed",
        ov_options=options,
        d_head=WIDTH,
        train_attention=False,
        init_scale=SCALE,
        dtype="float64",
    )
    folder = "".join(letter if letter.isalnum() else "_" for letter in name)
    return Experiment(f"routing/{folder}", task, model, RECIPE, seeds)


BY_SIDE = {name: _experiment(name, options) for name, (options, _) in SIDES.items()}
AT_RANDOM = {
    (n, seed): _experiment(
        f"random {n} of {seed}", {**RANDOM, "n_experts": n, "assignment_seed": seed}, (seed,)
    )
    for n in EXPERTS
    for seed in SEEDS
}
BY_ROUTER = {name: _experiment(name, options) for name, options in {**LEARNED, **TWO_STAGES}.items()}
BY_RELATIONS = {
    name: _experiment(f"three {name}", options, task=THREE_RELATIONS)
    for name, (options, _) in RELATIONS.items()
}
EXPERIMENTS = (*BY_SIDE.values(), *BY_RELATIONS.values(), *AT_RANDOM.values(), *BY_ROUTER.values())


Results = dict[str, dict[str, Measured]]


TITLES = {
    "routing_sides": (
        "Experts by relation that read apart silence untold implications; experts that write apart do not"
    ),
    "routing_relations": "Only the relations that share a reading expert deduce from each other",
    "routing_random": "With E experts at random, 1/E + (1 − 1/E)/n of the untold implications are right",
    "routing_learned": (
        "Learned routers give both relations the same experts unless entropy is rewarded down; "
        "deduction stays"
    ),
}
"""The sentence of every picture."""


def make(runs: Path, figures: Path) -> Results:
    """Measures all runs and draws the pictures."""
    torch.set_num_threads(1)
    found: Results = {
        "sides": {name: measure(load_all(runs, each)) for name, each in BY_SIDE.items()},
        "relations": {name: measure(load_all(runs, each)) for name, each in BY_RELATIONS.items()},
        "random": {
            str(n): measure([load_all(runs, AT_RANDOM[n, seed])[0] for seed in SEEDS]) for n in EXPERTS
        },
        "learned": {name: measure(load_all(runs, each)) for name, each in BY_ROUTER.items()},
    }
    drawn: tuple[tuple[str, str, Callable[[dict[str, Measured]], matplotlib.figure.Figure]], ...] = (
        ("sides", "routing_sides", draw_sides),
        ("relations", "routing_relations", draw_relations),
        ("random", "routing_random", draw_random),
        ("learned", "routing_learned", draw_learned),
    )
    for part, picture, draw in drawn:
        with figure_style():
            fig = draw(found[part])
            numbers = {name: asdict(each) for name, each in found[part].items()}
            save_figure(fig, figures / picture, {"title": TITLES[picture], **numbers})
            plt.close(fig)
    return found


def is_as_predicted(each: Measured, predicted: str) -> bool:
    """Whether every seed is deduced, silent or split as predicted."""
    if predicted == "deduced":
        return min(each.accuracy) >= DEDUCED
    if predicted == "silent":
        return max(each.accuracy) <= SILENT
    told = [value for value in each.with_told if value is not None]
    alone = [value for value in each.without_told if value is not None]
    return bool(told and alone) and min(told) >= DEDUCED and float(np.mean(alone)) <= SILENT


def _routes(each: Measured) -> str:
    distances = [value for value in each.distance if value is not None]
    if max(distances) < SAME_ROUTE:
        return "same"
    return "own" if min(distances) > OWN_ROUTES else "between"


EXPECTED = {
    "deduced": f"accuracy >= {DEDUCED}, every seed",
    "silent": f"accuracy <= {SILENT}, every seed (chance {CHANCE:g})",
    "split": f"accuracy >= {DEDUCED} with a told subject in the expert, every seed, and mean accuracy <= "
    f"{SILENT} without",
}


def _name(name: str) -> str:
    found = "".join(letter if letter.isalnum() else " " for letter in name)
    return "_".join(found.split())


def claims(found: Results) -> list[Claim]:
    """Sides, random routing, learned routers."""
    made = [
        Claim(
            id=f"routing_{_name(name)}",
            statement=f"Experts {name}: untold implications are {SIDES[name][1]}"
            if "by" in name
            else "One expert for both relations: untold implications are deduced",
            source="docs/theory.md §14",
            expected=EXPECTED[SIDES[name][1]],
            measured={
                "accuracy": each.accuracy,
                "beta": each.beta,
                "with_told": each.with_told,
                "without_told": each.without_told,
            },
            tolerance=0.0,
            holds=is_as_predicted(each, SIDES[name][1]),
            figure="routing_sides",
        )
        for name, each in found["sides"].items()
    ]
    made += _relation_claims(found["relations"])
    return [*made, *_random_claims(found["random"]), *_learned_claims(found["learned"])]


def _relation_claims(found: dict[str, Measured]) -> list[Claim]:
    made = []
    for name, each in found.items():
        for relation, predicted in zip(("r2", "r3"), RELATIONS[name][1], strict=True):
            accuracy, is_deduced = each.by_relation[relation], predicted == "deduced"
            made.append(
                Claim(
                    id=f"routing_relations_{_name(name)}_{relation}",
                    statement=f"Three relations, {name}: untold implications of {relation} are {predicted}",
                    source="docs/theory.md §14",
                    expected=EXPECTED["deduced"]
                    if is_deduced
                    else f"mean accuracy <= {SILENT_MEAN} (chance {CHANCE:g})",
                    measured={"accuracy": accuracy},
                    tolerance=0.0,
                    holds=min(accuracy) >= DEDUCED if is_deduced else float(np.mean(accuracy)) <= SILENT_MEAN,
                    figure="routing_relations",
                )
            )
    return made


def _random_claims(found: dict[str, Measured]) -> list[Claim]:
    made = []
    for n in EXPERTS:
        each, wanted = found[str(n)], 1 / n + (1 - 1 / n) * CHANCE
        made.append(
            Claim(
                id=f"routing_random_{n}",
                statement=f"Subjects at random to {n} experts: 1/E + (1 − 1/E)/n of the untold are right",
                source="docs/theory.md §14",
                expected=f"mean accuracy of the seeds {wanted:.3f} ± {RANDOM_TOLERANCE}",
                measured={"accuracy": each.accuracy, "share_with_told": each.share},
                tolerance=RANDOM_TOLERANCE,
                holds=abs(float(np.mean(each.accuracy)) - wanted) <= RANDOM_TOLERANCE,
                figure="routing_random",
            )
        )
        if n > 1:
            made.append(
                Claim(
                    id=f"routing_random_{n}_split",
                    statement=f"Of {n} random experts those with a told subject deduce, the others do not",
                    source="docs/theory.md §14",
                    expected=EXPECTED["split"],
                    measured={"with_told": each.with_told, "without_told": each.without_told},
                    tolerance=0.0,
                    holds=is_as_predicted(each, "split"),
                    figure="routing_random",
                )
            )
    return made


def _learned_claims(found: dict[str, Measured]) -> list[Claim]:
    made = []
    for name, each in found.items():
        routes, answers = LEARNED_PREDICTED.get(name, ("unknown", "silent"))
        measured = {"accuracy": each.accuracy, "distance": each.distance, "smallest_score": each.score}
        made.append(
            Claim(
                id=f"routing_learned_{_name(name)}_answers",
                statement=f"A router by {name}: untold implications are {answers}"
                if name in LEARNED
                else f"{name[0].upper()}{name[1:]} by sequence from step {STAGE:,}: untold implications are "
                f"{answers}",
                source="conjectured (analyses/parameterisation/routing_criteria.py)",
                expected=EXPECTED[answers],
                measured=measured,
                tolerance=0.0,
                holds=is_as_predicted(each, answers),
                figure="routing_learned",
            )
        )
        if routes != "unknown":
            made.append(
                Claim(
                    id=f"routing_learned_{_name(name)}_routes",
                    statement=f"A router by {name}: both relations get the same experts",
                    source="conjectured (analyses/parameterisation/routing_criteria.py)",
                    expected=f"distance between the mixtures of r1 and r2 < {SAME_ROUTE}, every seed",
                    measured=measured,
                    tolerance=SAME_ROUTE,
                    holds=_routes(each) == routes,
                    figure="routing_learned",
                )
            )
    return made


FIGURE = Figure(
    pictures=("routing_sides", "routing_relations", "routing_random", "routing_learned"),
    draw=make,
    claims=claims,
    cost="slow",
    experiments=EXPERIMENTS,
)


if __name__ == "__main__":
    main()
