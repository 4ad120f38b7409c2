"""Which mitigations keep the deduction that is wanted and lose the one that is not, and for how long.

Two pictures: mitigation_pareto (β of wanted and unwanted untold answers, one point per method), and
mitigation_going_on (the same methods after as many steps again of plain training).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from analyses.house.claims import Claim
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.mitigation.criteria import (
    ADDED,
    ALIKE,
    BOTH_ALIKE,
    COSINE,
    COSINE_WITHIN,
    DEDUCED,
    DILUTED_ABOVE,
    ENTRIES,
    GUESSES,
    LOWER_BY,
    MARGIN,
    RETURNED,
    SEEDS,
    SELECTIVE,
    SETTINGS,
    TOLD_LOST,
    VARIANTS,
    Setting,
    Variant,
)
from analyses.mitigation.drawing import BEFORE_AND_AFTER, GOING_ON_DRAWING, PARETO_DRAWING, returning
from ocr_interp import FactRecallTask
from ocr_interp.mitigation import Aim, Mitigated, Mitigation, mitigate, mitigations
from ocr_interp.mitigation.measured import logits_of

PARETO, GOING_ON = "mitigation_pareto", "mitigation_going_on"


@dataclass(frozen=True)
class Measurements:
    """A method in a setting; a list has one entry per seed, the fields are those of `Mitigated.row`."""

    setting: str
    variant: str
    control: bool
    knows: str
    chance: float
    silent_below: float
    values: dict[str, list[float]]

    def __getitem__(self, name: str) -> list[float]:
        return self.values[name]

    @property
    def wanted_is(self) -> str:
        """ "deduced", "silent" or "between"."""
        return self._is(self["wanted_accuracy"])

    @property
    def unwanted_is(self) -> str:
        """The same of the unwanted relations."""
        return self._is(self["unwanted_accuracy"])

    def _is(self, accuracy: list[float]) -> str:
        if min(accuracy) >= DEDUCED:
            return "deduced"
        return "silent" if mean(accuracy) <= self.silent_below else "between"


Results = dict[str, dict[str, Measurements]]
"""Setting -> label of the variant -> measurements."""


def task_of(setting: Setting) -> FactRecallTask:
    """The task with the smallest vocabulary."""
    return FactRecallTask(*setting.sizes, n_noise=0, seq_len=3, implied_relations=setting.implied)


def method_of(variant: Variant, aim: Aim) -> Mitigation:
    """The method with its options; names of relations are filled in."""
    names = {"wanted": "+".join(aim.wanted), "unwanted": "+".join(aim.unwanted)}
    options = {k: v.format(**names) if isinstance(v, str) else v for k, v in variant.options.items()}
    return mitigations[variant.method](**options)


def measured(setting: Setting, label: str) -> Measurements:
    """All seeds of one method in one setting."""
    variant, task = (VARIANTS | ADDED)[label], task_of(setting)
    aim = Aim.of(task, setting.unwanted)
    method = method_of(variant, aim)
    models = [
        mitigate(task, setting.unwanted, method, seed=seed, entries=ENTRIES, margin=MARGIN) for seed in SEEDS
    ]
    rows = [model.row() | {"follows": follows(model)} for model in models]
    numbers = [name for name, value in rows[0].items() if isinstance(value, int | float)]
    chance, n = 1 / setting.sizes[0], setting.sizes[0] * setting.sizes[2]
    return Measurements(
        setting.name,
        label,
        variant.control,
        method.knows,
        chance,
        chance + GUESSES * (chance * (1 - chance) / n) ** 0.5,
        {name: [float(row[name]) for row in rows] for name in numbers},
    )


def follows(model: Mitigated) -> float:
    """Share of untold answers that are those of a counter-example for a subject of the same fact.

    Of the relations that have counter-examples; 0 without any.
    """
    aim, fact = model.aim, model.aim.task.subject_fact
    told = model.method.told(aim, model.seed)
    others = told.select(told.answer != aim.task.right_answer[told.relation, told.subject])
    if not len(others):
        return 0.0
    untold = aim.without(told)
    untold = untold.select(np.isin(untold.relation, others.relation))
    logits = logits_of(aim, model.W, untold)
    among = aim.task.answer_relation == untold.relation[:, None]
    first = np.where(among, logits, -np.inf).argmax(1)
    pairs = set(zip(fact[others.subject].tolist(), others.answer.tolist(), strict=True))
    return float(
        np.mean([pair in pairs for pair in zip(fact[untold.subject].tolist(), first.tolist(), strict=True)])
    )


def make(runs: Path, figures: Path) -> Results:
    """Trains everything (minutes) and draws both pictures."""
    torch.set_num_threads(1)
    found = {s.name: {label: measured(s, label) for label in (*VARIANTS, *ADDED)} for s in SETTINGS}
    draw(found, figures)
    return found


def draw(found: Results, figures: Path) -> None:
    """The pictures of one setting, the first; the JSON of the first picture has all settings."""
    shown = found[SETTINGS[0].name]
    numbers = {name: {k: asdict(each) for k, each in of.items()} for name, of in found.items()}
    PARETO_DRAWING.write(figures / PARETO, numbers)
    both = {label: {name: shown[label][name] for name in BEFORE_AND_AFTER} for label in returning(shown)}
    GOING_ON_DRAWING.write(figures / GOING_ON, both)


def claims(found: Results) -> list[Claim]:
    """What every method does, the orders among them, and what is left after going on."""
    return [*_outcomes(found), *_orders(found), *_laws(found), *_returns(found)]


def _over(found: Results, label: str, name: str) -> dict[str, list[float]]:
    return {setting: [round(v, 4) for v in of[label][name]] for setting, of in found.items()}


def _outcomes(found: Results) -> Iterable[Claim]:
    for label, variant in VARIANTS.items():
        predicted = {"wanted": variant.wanted, "unwanted": variant.unwanted}
        for which, outcome in predicted.items():
            if not outcome:
                continue
            name = f"{which}_accuracy"
            yield Claim(
                id=f"mitigation_{_identifier(label)}_{which}",
                statement=f"{'Control, ' if variant.control else ''}{label}: untold answers of the {which} "
                f"relation are {outcome}",
                source="predicted (analyses/mitigation/criteria.py)",
                expected=f"accuracy >= {DEDUCED}, every seed and setting"
                if outcome == "deduced"
                else f"mean accuracy of the seeds <= chance + {GUESSES:g} standard deviations of guesses, "
                "every setting",
                measured={
                    f"{name}_{setting}": values for setting, values in _over(found, label, name).items()
                },
                tolerance=0.0,
                holds=all(getattr(of[label], f"{which}_is") == outcome for of in found.values()),
                figure=PARETO,
            )


def _orders(found: Results) -> Iterable[Claim]:
    def ordered(name: str, statement: str, low: tuple[str, str], high: tuple[str, str]) -> Claim:
        gaps = {s: round(mean(of[high[0]][high[1]]) - mean(of[low[0]][low[1]]), 4) for s, of in found.items()}
        return Claim(
            id=f"mitigation_{name}",
            statement=statement,
            source="derived (docs/theory.md §2, analyses/mitigation/criteria.py)",
            expected="difference of β, mean of the seeds, > 0 in every setting",
            measured={f"difference_{setting}": gap for setting, gap in gaps.items()},
            tolerance=0.0,
            holds=min(gaps.values()) > 0,
            figure=PARETO,
        )

    nothing, wanted, unwanted = "nothing", "wanted_beta", "unwanted_beta"
    yield ordered(
        "reading_apart_deduces_more",
        "Experts that read apart raise β of the wanted implication, which no longer shares its told "
        "subjects' columns",
        (nothing, wanted),
        ("experts, read", wanted),
    )
    yield ordered(
        "a_penalty_deduces_less",
        "A penalty on untold prompts of the unwanted relation lowers β of the wanted one",
        ("penalty, all subjects", wanted),
        (nothing, wanted),
    )
    for label in ("counter-examples, 1 a pair", "penalty, 1 subject a pair"):
        dilutes = ordered(
            f"{_identifier(label)}_dilutes",
            f"{label[0].upper()}{label[1:]}: β of the unwanted implication falls and stays above "
            f"{DILUTED_ABOVE}",
            (label, unwanted),
            (nothing, unwanted),
        )
        left = {s: mean(of[label][unwanted]) for s, of in found.items()}
        yield Claim(
            **{
                **vars(dilutes),
                "measured": dilutes.measured | {f"beta_{s}": round(beta, 4) for s, beta in left.items()},
                "holds": dilutes.holds and min(left.values()) > DILUTED_ABOVE,
            }
        )
    for name in (wanted, unwanted):
        yield ordered(
            f"without_the_tail_{name}",
            f"Without the tail of the spectrum β of the {name.removesuffix('_beta')} implication is larger",
            (nothing, name),
            ("without the tail", name),
        )


def _laws(found: Results) -> Iterable[Claim]:
    for label in BOTH_ALIKE:
        gaps = {
            s: mean(of[label]["wanted_beta"]) - mean(of[label]["unwanted_beta"]) for s, of in found.items()
        }
        yield Claim(
            id=f"mitigation_{_identifier(label)}_alike",
            statement=f"{label[0].upper()}{label[1:]}: both implications are deduced alike",
            source="derived (docs/theory.md §2)",
            expected=f"|β wanted − β unwanted| < {ALIKE}, mean of the seeds, every setting",
            measured={f"difference_{s}": round(gap, 4) for s, gap in gaps.items()},
            tolerance=ALIKE,
            holds=max(map(abs, gaps.values())) < ALIKE,
            figure=PARETO,
        )
    lower = {s: _of_both(of["nothing"]) - _of_both(of["large start"]) for s, of in found.items()}
    yield Claim(
        id="mitigation_large_start_deduces_less",
        statement="A large start deduces less",
        source="measured before (docs/theory.md §10)",
        expected=f"β, mean of both relations and the seeds, lower than nothing's by > {LOWER_BY}, every "
        "setting",
        measured={f"difference_{s}": round(gap, 4) for s, gap in lower.items()},
        tolerance=LOWER_BY,
        holds=min(lower.values()) > LOWER_BY,
        figure=PARETO,
    )
    known = {s: of["known features"] for s, of in found.items()}
    off = [b - COSINE for of in known.values() for b in of["wanted_beta"]]
    rest = [b for of in known.values() for b in of["unwanted_beta"]]
    yield Claim(
        id="mitigation_known_features_law",
        statement="One matrix against known features: β of the wanted implication is the cosine, of the "
        "unwanted one 0",
        source="derived (docs/theory.md §11)",
        expected=f"both within {COSINE_WITHIN}, every seed and setting",
        measured={
            "wanted_beta_minus_cosine": [round(v, 4) for v in off],
            "unwanted_beta": [round(v, 4) for v in rest],
        },
        tolerance=COSINE_WITHIN,
        holds=max(map(abs, [*off, *rest])) <= COSINE_WITHIN,
        figure=PARETO,
    )
    told = {s: mean(of["without the top"]["told_accuracy"]) for s, of in found.items()}
    yield Claim(
        id="mitigation_top_block_costs_what_is_told",
        statement="Without the largest block of the spectrum told implications are lost",
        source="derived (docs/theory.md §2)",
        expected=f"their accuracy < {TOLD_LOST}, mean of the seeds, every setting",
        measured={f"told_accuracy_{s}": round(v, 4) for s, v in told.items()},
        tolerance=0.0,
        holds=max(told.values()) < TOLD_LOST,
        figure=PARETO,
    )


def _of_both(each: Measurements) -> float:
    return mean([*each["wanted_beta"], *each["unwanted_beta"]])


def _returns(found: Results) -> Iterable[Claim]:
    for label, variant in VARIANTS.items():
        if variant.returns is None:
            continue
        after = {s: mean(of[label]["after_unwanted_accuracy"]) for s, of in found.items()}
        yield Claim(
            id=f"mitigation_{_identifier(label)}_returns",
            statement=f"{label[0].upper()}{label[1:]}: the unwanted deduction comes back when plain training "
            "goes on for as many steps again",
            source="predicted (analyses/mitigation/criteria.py)",
            expected=f"accuracy of untold unwanted answers >= {RETURNED}, mean of the seeds, every setting",
            measured={f"after_{s}": round(v, 4) for s, v in after.items()}
            | {f"before_{s}": round(mean(of[label]["unwanted_accuracy"]), 4) for s, of in found.items()},
            tolerance=0.0,
            holds=(min(after.values()) >= RETURNED) == variant.returns,
            figure=GOING_ON,
        )
    kept = {
        label: [
            float(of[label].wanted_is == "deduced" and of[label].unwanted_is == "silent")
            for of in found.values()
        ]
        for label, variant in VARIANTS.items()
        if not variant.control
    }
    yield Claim(
        id="mitigation_selective",
        statement=f"Of the methods these keep the wanted and lose the unwanted: {', '.join(SELECTIVE)}",
        source="predicted (analyses/mitigation/criteria.py)",
        expected="exactly these, in every setting (1: it does, one number per setting)",
        measured={_identifier(label): does for label, does in kept.items()},
        tolerance=0.0,
        holds=all(min(does) == max(does) == (label in SELECTIVE) for label, does in kept.items()),
        figure=PARETO,
    )


def _identifier(label: str) -> str:
    kept = "".join(letter if letter.isalnum() else " " for letter in label.lower())
    return "_".join(kept.split())


FIGURE = Figure(
    pictures=(PARETO, GOING_ON),
    draw=make,
    claims=claims,
    cost="slow",
    drawings={PARETO: PARETO_DRAWING, GOING_ON: GOING_ON_DRAWING},
)


if __name__ == "__main__":
    main()
