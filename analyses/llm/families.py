"""The five sets and one more on Gemma 3 270M beside SmolLM2-135M: told against facts alone, runs as the unit.

SmolLM2's runs are those of Table 1; Gemma's and the criteria are in analyses/llm/studies/families.py. The
sixth set is true and not known: analyses/llm/studies/months.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.llm.finished.criteria import llm_claim, study_claim
from analyses.llm.finished.results import CHANCE, Kind, read_groups
from analyses.llm.finished.results import NAMES as FIVE
from analyses.llm.finished.studied import (
    FACTS,
    FIRST_PRETRAINED,
    FIRST_TOLD,
    HELD_OUT,
    Arm,
    arms_of,
    plain_interval,
)
from analyses.llm.studies import months, recall, strangers
from analyses.llm.studies.families import (
    CITY,
    CITY_LIMIT,
    COUNTERFACTUAL,
    CRITERIA,
    DATA,
    SPURIOUS,
    STUDY,
    arm_name,
)
from analyses.llm.studies.plan import GEMMA, SMOLLM2, TITLES

PICTURE = "llm_families"
LEAST_SEEDS = 2
MODELS = (SMOLLM2, GEMMA)
STRONG = "gemma_strong"
"""Gemma at SmolLM2's rate: in the table, not in the picture and in no claim."""
SIGNS = months.MONTH_SIGN.name
NAMES = {**FIVE, SIGNS: "Month-Sign (true, not known)"}
CONTROLS = ("none", "facts_only")
STRANGERS = "strangers"

Row = dict[str, Any]


def make(runs: Path, figures: Path) -> list[Row]:
    """Draws what is finished; `runs` is not used, since these runs keep no weights."""
    rows = [*_of_smollm2(), *_of_gemma(), *_of_months(), *_of_strangers()]
    titles = TITLES | {STRONG: f"{TITLES[GEMMA]}, at SmolLM2's rate"}
    criteria = CRITERIA | months.CRITERIA | strangers.CRITERIA
    DRAWING.write(figures / PICTURE, {"criteria": criteria, "models": titles, "names": NAMES, "rows": rows})
    return rows


def _of_smollm2() -> Iterator[Row]:
    groups, recorded = read_groups(), arms_of(recall.STUDY).get(recall.USUAL)
    for control in CONTROLS:
        for data in DATA:
            group = groups[Kind(data, control=control)]
            ranks, facts = group.by_seed(), group.by_seed("held_out_fact")
            first = {}
            if recorded and (data, control, group.seeds) == (COUNTERFACTUAL, "none", recorded.seeds):
                first = _first(recorded)  # the same runs again: those of Table 1 did not record it
            yield _row(SMOLLM2, data, control, group.seeds, ranks, facts, first)


def _of_gemma() -> Iterator[Row]:
    arms = arms_of(STUDY)
    for model in (GEMMA, STRONG):
        for control in CONTROLS:
            for data in DATA:
                arm = arms.get(arm_name(data, control, strong=model == STRONG))
                if arm is not None:
                    yield _of_arm(model, data, control, arm)


def _of_months() -> Iterator[Row]:
    arms = arms_of(months.STUDY)
    for model in MODELS:
        for control in CONTROLS:
            arm = arms.get(f"{model}--{SIGNS}" + ("" if control == "none" else f"--{control}"))
            if arm is not None:
                yield _of_arm(model, SIGNS, control, arm)


def _of_strangers() -> Iterator[Row]:
    arms = arms_of(strangers.STUDY)
    for model, data in itertools.product(MODELS, DATA):
        if arm := arms.get(f"{model}--{data}"):
            yield _of_arm(model, data, STRANGERS, arm)


def _of_arm(model: str, data: str, control: str, arm: Arm) -> Row:
    first = {**_first(arm), "neutral_kl": arm.field("neutral_kl")}
    return _row(model, data, control, arm.seeds, arm.last(HELD_OUT), arm.last(FACTS), first)


def _first(arm: Arm) -> dict[str, list[float]]:
    return {name: arm.last(name) for name in (FIRST_TOLD, FIRST_PRETRAINED)}


def _row(
    model: str,
    data: str,
    control: str,
    seeds: list[int],
    ranks: list[float],
    facts: list[float],
    first: dict[str, list[float]],
) -> Row:
    known = {k.rpartition("/")[2]: [None if math.isnan(v) else v for v in vs] for k, vs in first.items()}
    return {
        "model": model,
        "data": data,
        "control": control,
        "seeds": seeds,
        "rank": plain_interval(ranks),
        "fact_rank": facts,
        **known,
    }


def draw(numbers: dict[str, Any]) -> Picture:
    """Held-out mean ranks by data set, a panel per model."""
    fig, axes = plt.subplots(2, 1, figsize=(WIDTH, 4.4), sharex=True, sharey=True, layout="constrained")
    for ax, model in zip(axes, MODELS, strict=True):
        _draw(ax, [row for row in numbers["rows"] if row["model"] == model])
        ax.set_title(TITLES[model], loc="left")
    labels = [NAMES[data].replace(" (", "\n(").replace("-", "-\n", 1) for data in (*DATA, SIGNS)]
    axes[1].set_xticks(range(len(labels)), labels)
    axes[0].legend(frameon=False, ncol=2, loc="upper left")
    fig.supylabel("held-out mean rank (0: right answer first)", fontsize=9)
    return fig


def _draw(ax: Axes, rows: list[Row]) -> None:
    """Every seed as a small point, the mean as a large one, told beside facts alone."""
    order = (*DATA, SIGNS)
    for control, label, color, marker, shift in (
        ("none", "a fifth of the implications told", "#0173b2", "o", -0.22),
        ("facts_only", "facts alone", "#de8f05", "D", 0.0),
        (STRANGERS, "implications told of strangers", "#6e6e6e", "s", 0.22),
    ):
        for row in (row for row in rows if row["control"] == control):
            x = order.index(row["data"]) + shift
            values = row["rank"]["by_seed"]
            ax.plot([x] * len(values), values, marker, ms=3.5, color=color, alpha=0.6)
            ax.plot([x - 0.08, x + 0.08], [row["rank"]["mean"]] * 2, "-", color=color, lw=2.2)
        ax.plot([], [], f"{marker}-", ms=3.5, color=color, lw=2.2, label=label)
    ax.axhline(CHANCE, color="#777777", lw=0.7, ls=":")
    ax.set_ylim(-0.1, 3.4)
    ax.set_xlim(-0.5, len(order) - 0.5)


def sentence(numbers: dict[str, Any]) -> str:
    """What the means of both models bear out about the known set and about the others."""
    mean = {(r["model"], r["data"], r["control"]): r["rank"]["mean"] for r in numbers["rows"]}
    known = [
        value for (model, *rest), value in mean.items() if model in MODELS and rest == [CITY, "facts_only"]
    ]
    others = [
        value < mean[model, data, "facts_only"]
        for (model, data, control), value in mean.items()
        if model in MODELS and data != CITY and control == "none" and (model, data, "facts_only") in mean
    ]
    if known and max(known) <= CITY_LIMIT and all(others):
        return (
            "Known languages are recalled from facts alone; every other implication comes nearer to the top "
            "if a fifth of it is told"
        )
    return (
        "Told a fifth of the implications, untold ones that were not known come nearer to the top in "
        f"{sum(others)} of {len(others)} cases"
    )


DRAWING = Drawing(sentence, draw)


def claims(rows: Iterable[Row]) -> list[Claim]:
    """The criteria that enough finished runs can judge."""
    found = {(row["model"], row["data"], row["control"]): row for row in rows}
    made = (*_city(found), *_spurious(found), *_counterfactual(found), *_larger(found), *_signs(found))
    made = (*made, *_beside_strangers(found))
    return [claim for claim in made if claim]


def _enough(row: Row | None) -> bool:
    return row is not None and len(row["seeds"]) >= LEAST_SEEDS


def _city(found: dict[Any, Row]) -> Iterator[Claim]:
    own = [found.get((model, CITY, "none")) for model in MODELS]
    if not all(map(_enough, own)):
        return
    ranks = {row["model"]: row["rank"]["by_seed"] for row in own if row}
    yield llm_claim(
        "families_city",
        f" and Gemma 3 270M: {CRITERIA['city_language_on_both_models']}",
        "the paper, Table 1 (causal pairs)",
        f"every seed at most {CITY_LIMIT}",
        ranks,
        max(max(values) for values in ranks.values()) <= CITY_LIMIT,
        PICTURE,
    )


def _spurious(found: dict[Any, Row]) -> Iterator[Claim]:
    for model in MODELS:
        differences = [_differences(found, model, data) for data in SPURIOUS]
        seeds = set.intersection(*map(set, differences)) if all(differences) else set()
        if len(seeds) < LEAST_SEEDS:
            continue
        pooled = [float(np.mean([of_data[s] for of_data in differences])) for s in sorted(seeds)]
        interval = plain_interval(pooled)
        yield llm_claim(
            f"families_spurious_{model}",
            f" and Gemma 3 270M, here {TITLES[model]}: {CRITERIA['spurious_below_facts_only']}",
            "ours: what exceeds the facts-only control, runs as the unit",
            "the 95 % interval over seeds lies below 0",
            {
                "difference": interval["mean"],
                "interval": [interval["low"], interval["high"]],
                "by_seed": pooled,
            },
            bool(interval["high"] is not None and interval["high"] < 0),
            PICTURE,
        )


def _counterfactual(found: dict[Any, Row]) -> Iterator[Claim]:
    for model in MODELS:
        own = _differences(found, model, COUNTERFACTUAL)
        if len(own) >= LEAST_SEEDS:
            yield llm_claim(
                f"families_counterfactual_{model}",
                f" and Gemma 3 270M, here {TITLES[model]}: {CRITERIA['counterfactual_below_facts_only']}",
                "ours: what exceeds the facts-only control",
                "told minus facts only below 0 in every seed",
                {"difference_by_seed": [own[s] for s in sorted(own)]},
                max(own.values()) < 0,
                PICTURE,
            )


def _larger(found: dict[Any, Row]) -> Iterator[Claim]:
    """Whose counterfactual answer the larger model follows."""
    own = [found.get((model, COUNTERFACTUAL, "none"), {}) for model in MODELS]
    first = [dict(zip(row["seeds"], row["first_told"], strict=True)) for row in own if "first_told" in row]
    if len(first) < len(MODELS) or len(seeds := sorted(first[0].keys() & first[1].keys())) < LEAST_SEEDS:
        return
    told = {model: [of[s] for s in seeds] for model, of in zip(MODELS, first, strict=True)}
    holds = all(b > a for a, b in zip(*told.values(), strict=True))
    name = "larger_model_follows_told"
    yield study_claim(f"families_{name}", CRITERIA[name], told, holds, PICTURE)


def _beside_strangers(found: dict[Any, Row]) -> Iterator[Claim]:
    """What is deduced beyond the wording and the answers; one mean of the spurious sets per seed."""
    for model in MODELS:
        differences = [_differences(found, model, data, STRANGERS) for data in SPURIOUS]
        seeds = sorted(set.intersection(*map(set, differences))) if all(differences) else []
        if len(seeds) < LEAST_SEEDS:
            continue
        told = [float(np.mean([of[s] for of in differences])) for s in seeds]
        of_set = [_by_seed(found[model, data, STRANGERS]) for data in SPURIOUS]
        alone = [float(np.mean([of[s] for of in of_set])) for s in seeds]
        interval = plain_interval(told)
        below = interval["high"] is not None and interval["high"] < 0
        for name, measured, holds in (
            (
                "told_below_strangers",
                {"by_seed": told, "interval": [interval["low"], interval["high"]]},
                below,
            ),
            ("strangers_teach_no_pairs", {"by_seed": alone}, min(alone) >= strangers.GUESSED),
        ):
            own = name if model == SMOLLM2 else f"{model}_{name}"
            criterion, title = strangers.CRITERIA[own], TITLES[model]
            yield study_claim(f"strangers_{own}", criterion, measured, holds, PICTURE, model=title)


def _signs(found: dict[Any, Row]) -> Iterator[Claim]:
    """What is true and not known: judged where both models have enough seeds."""
    alone = {model: found.get((model, SIGNS, "facts_only")) for model in MODELS}
    if not all(map(_enough, alone.values())):
        return
    ranks = {model: row["rank"]["by_seed"] for model, row in alone.items() if row}
    name = "true_but_unknown_is_not_recalled"
    least = min(min(values) for values in ranks.values())
    yield study_claim(f"months_{name}", months.CRITERIA[name], ranks, least >= months.NOT_RECALLED, PICTURE)
    below = {model: list(_differences(found, model, SIGNS).values()) for model in MODELS}
    if all(len(values) >= LEAST_SEEDS for values in below.values()):
        name = "true_but_unknown_is_deduced"
        holds = max(max(values) for values in below.values()) <= -months.BELOW
        yield study_claim(f"months_{name}", months.CRITERIA[name], below, holds, PICTURE)


def _differences(
    found: dict[Any, Row], model: str, data: str, control: str = "facts_only"
) -> dict[int, float]:
    """Told minus a control, by common seed."""
    rows = [found.get((model, data, name)) for name in ("none", control)]
    of = [_by_seed(row) for row in rows if row]
    if len(of) < len(rows):
        return {}
    return {seed: of[0][seed] - of[1][seed] for seed in of[0] if seed in of[1]}


def _by_seed(row: Row) -> dict[int, float]:
    return dict(zip(row["seeds"], row["rank"]["by_seed"], strict=True))


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
