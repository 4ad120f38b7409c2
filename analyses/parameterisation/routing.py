"""Routed experts: which side isolates, what random routing leaves, what learned routers do.

Pictures: routing_sides, routing_relations, routing_random, routing_learned. Gradient descent, small start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
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
from ocr_interp import FactRecallTask, ModelConfig, Run, TrainConfig
from ocr_interp.maps.routed import ROUTER, Routed
from ocr_interp.viz.style import figure_style, save_figure

TASK = FactRecallTask(*SIZES, n_noise=0, seq_len=3)
RECIPE = TrainConfig.gradient_descent(
    steps=STEPS, lr=RATE, log_every=STEPS // 20, checkpoint_every=STEPS, snapshots=0, device="cpu"
)
CHANCE = 1 / SIZES[0]
LEARNS, QUIET = "#0173b2", "#de8f05"


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


@dataclass(frozen=True)
class Measured:
    """What was measured of the runs of one kind of routing; a list has one entry per seed.

    Attributes:
        accuracy: of held-out implications, among implications.
        beta: held-out coefficient.
        train_margin: smallest training margin, logits.
        with_told: accuracy of the held-out subjects whose expert has a told subject of their pair; None if
            there is none such, or routing is not by subject.
        without_told: of the others.
        share: share of the first.
        distance: between the mixtures of r1 and r2, of a learned router.
        score: smallest mean score of an expert.
        by_relation: accuracy of every implied relation's untold implications, if there are several.
    """

    accuracy: list[float]
    beta: list[float]
    train_margin: list[float]
    with_told: list[float | None]
    without_told: list[float | None]
    share: list[float | None]
    distance: list[float | None]
    score: list[float]
    by_relation: dict[str, list[float]]


def measure(runs: Sequence[Run]) -> Measured:
    """The measurements of some runs."""
    split = [_split(run) for run in runs]
    last = [run.history.iloc[-1] for run in runs]
    n_experts = sum(str(name).endswith("/share") for name in last[0].index)
    scores = [f"expert{expert}/score" for expert in range(n_experts)]
    return Measured(
        accuracy=[float(row["held_out_implication/accuracy_in_set"]) for row in last],
        beta=[float(row["beta"]) for row in last],
        train_margin=[float(row["train_margin"]) for row in last],
        with_told=[found[0] for found in split],
        without_told=[found[1] for found in split],
        share=[found[2] for found in split],
        distance=[distance_of_relations(run) for run in runs],
        score=[float(row[scores].min()) for row in last],
        by_relation={
            relation: [float(row[f"held_out_implication/{relation}/accuracy_in_set"]) for row in last]
            for relation in ("r2", "r3")
            if f"held_out_implication/{relation}/accuracy_in_set" in last[0]
        },
    )


def _routed(run: Run) -> Routed:
    linear_map = run.weights.linear_map
    assert isinstance(linear_map, Routed)
    return linear_map


def _split(run: Run) -> tuple[float | None, float | None, float | None]:
    """Accuracy with and without a told subject in the expert, and the share of those with one."""
    experts = _routed(run).expert_of_token
    if experts is None:
        return None, None, None
    expert, fact, told = np.array(experts[: TASK.n_subjects]), TASK.subject_fact, TASK.subject_trained
    beside = np.array(
        [((fact == fact[s]) & (expert == expert[s]) & told).any() for s in np.flatnonzero(~told)]
    )
    right = (run.table()["implication_margin"].to_numpy() > 0)[~told]

    def mean(chosen: np.ndarray) -> float | None:
        return float(right[chosen].mean()) if chosen.any() else None

    return mean(beside), mean(~beside), float(beside.mean())


def distance_of_relations(run: Run) -> float | None:
    """Half the sum of absolute differences between the mixtures of r1 and r2; None without a router."""
    linear_map = _routed(run)
    if not linear_map.has_router:
        return None
    if linear_map.by == "token":
        counts = torch.zeros(1, TASK.d_vocab, dtype=torch.float64)
        of_tokens = linear_map.routing({ROUTER: run.weights.ov[ROUTER]}, counts).mixture
        first, second = (of_tokens[token] for token in TASK.relation_tokens[:2])
        return float((first - second).abs().sum()) / 2
    names = TASK.labels[: TASK.n_subjects]
    pairs = [(run.mixture([name, "r1", "EOS"]), run.mixture([name, "r2", "EOS"])) for name in names]
    return float(np.mean([np.abs(first - second).sum() / 2 for first, second in pairs]))


Results = dict[str, dict[str, Measured]]


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
            save_figure(fig, figures / picture, {name: asdict(each) for name, each in found[part].items()})
            plt.close(fig)
    return found


def draw_sides(found: dict[str, Measured]) -> matplotlib.figure.Figure:
    """Accuracy by routing and side, one dot per seed."""
    fig, ax = plt.subplots(figsize=(6.6, 3.4), layout="constrained")
    for y, (name, each) in enumerate(found.items()):
        color = {"deduced": LEARNS, "silent": QUIET, "split": "#949494"}[SIDES[name][1]]
        ax.plot(each.accuracy, np.full(len(each.accuracy), y), "o", color=color, ms=6, alpha=0.8)
    ax.axvline(CHANCE, color="0.25", ls=":", lw=1.2)
    ax.set_yticks(range(len(found)), list(found))
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.set(
        xlabel="accuracy of untold implications (dotted: chance; colour: as predicted)",
        xlim=(-0.03, 1.03),
        title="By relation reading apart silences, by subject writing apart does",
    )
    return fig


GROUPING = {
    "one expert": "one expert",
    "r1+r2 | r3, read": "{r1, r2} and {r3} read apart",
    "r1+r2 | r3, write": "{r1, r2} and {r3} write apart",
    "one each, read": "all three read apart",
}


def draw_relations(found: dict[str, Measured]) -> matplotlib.figure.Figure:
    """Accuracy of r2's and of r3's implications by grouping of the relations."""
    fig, ax = plt.subplots(figsize=(6.6, 2.8), layout="constrained")
    for y, each in enumerate(found.values()):
        for shift, (relation, color) in zip((-0.14, 0.14), (("r2", LEARNS), ("r3", QUIET)), strict=True):
            accuracy, label = each.by_relation[relation], f"of {relation}" if y == 0 else None
            ax.plot(
                accuracy, np.full(len(accuracy), y + shift), "o", color=color, ms=6, alpha=0.8, label=label
            )
    ax.axvline(CHANCE, color="0.25", ls=":", lw=1.2)
    ax.set_yticks(range(len(found)), [GROUPING[name] for name in found])
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.set(xlabel="accuracy of untold implications (dotted: chance)", xlim=(-0.03, 1.03))
    ax.set_title("Reading apart keeps r2 and loses r3; writing apart keeps both")
    ax.legend(loc="center")
    return fig


def draw_random(found: dict[str, Measured]) -> matplotlib.figure.Figure:
    """Accuracy under random routing over the number of experts, beside the formula."""
    fig, ax = plt.subplots(figsize=(6.6, 3.4), layout="constrained")
    line = np.linspace(1, max(EXPERTS), 100)
    ax.plot(line, 1 / line + (1 - 1 / line) * CHANCE, color="0.25", label="1/E + (1 − 1/E)/n")
    for n in EXPERTS:
        accuracy = found[str(n)].accuracy
        ax.plot(np.full(len(accuracy), n), accuracy, "o", color=LEARNS, ms=6, alpha=0.5)
        label = "mean of 5 draws" if n == 1 else None
        ax.plot(n, np.mean(accuracy), "_", color=LEARNS, ms=26, mew=2.5, label=label)
    ax.axhline(CHANCE, color="0.25", ls=":", lw=1.2)
    ax.set(xlabel="experts E, subjects assigned at random", ylabel="accuracy of untold implications")
    ax.set_title("Random experts: an untold subject needs a told one of its pair in its expert")
    ax.set_xticks(EXPERTS)
    ax.set_ylim(0, 1.05)
    ax.legend()
    return fig


def draw_learned(found: dict[str, Measured]) -> matplotlib.figure.Figure:
    """Accuracy over how far apart the router sends the two relations."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(6.6, 3.4), sharey=True, layout="constrained")
    for y, each in enumerate(found.values()):
        distances = [value for value in each.distance if value is not None]
        left.plot(distances, np.full(len(distances), y), "o", color="#029e73", ms=6, alpha=0.7)
        right.plot(each.accuracy, np.full(len(each.accuracy), y), "o", color=LEARNS, ms=6, alpha=0.7)
    right.axvline(CHANCE, color="0.25", ls=":", lw=1.2)
    left.set_yticks(range(len(found)), list(found))
    left.set_ylim(len(found) - 0.5, -0.5)
    left.set(xlabel="r1 and r2 routed apart", xlim=(-0.04, 1.04))
    right.set(xlabel="accuracy of untold implications", xlim=(-0.04, 1.04))
    fig.suptitle("Under learned routers all is deduced; only hard routing silences", fontsize="medium")
    return fig


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
