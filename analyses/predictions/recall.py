"""Whose answer is first for an untold name, against told share and steps: languages, on both models.

Criteria and plan are in analyses/llm/studies/recall.py. Beside the models stands the prediction: a one-layer
model that was pretrained on pairs, and is told other ones of 0 to 3 of 4 new subjects (analyses/prior).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.llm.finished.criteria import study_claim
from analyses.llm.finished.studied import FACTS, FIRST_PRETRAINED, FIRST_TOLD, Arm, arms_of, plain_interval
from analyses.llm.studies import families, parts
from analyses.llm.studies.plan import GEMMA, SMOLLM2, TITLES, Study
from analyses.llm.studies.recall import BORROWED, CRITERIA, KNOWN, SHARES, STUDY
from analyses.prior.competition_runs import course
from analyses.prior.criteria import PRETRAINING
from analyses.prior.stages import pretrain

PICTURE = "llm_recall"
SOURCE = "ours, from the one-layer model with a pretrained base (docs/theory.md, prior knowledge)"
MODELS = (SMOLLM2, GEMMA)
OTHERS: tuple[Study, ...] = (families.STUDY, parts.STUDY)
"""Studies that have some of the arms."""
LEAST_SEEDS = 2
SLOW = f"{SMOLLM2}--share0.2--lr3e-05"
NEEDLESS = 0.8
"""Share of untold names from which on the true answer counts as known without being told."""
WHO = {
    FIRST_PRETRAINED: ("what the model knew", "#de8f05"),
    FIRST_TOLD: ("what was told of others", "#0173b2"),
}
PREDICTED_TOLD = (0, 1, 2, 3)
PREDICTED_SEEDS = (0, 1, 2)
PREDICTED_TIMES = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 14.0, 16.0)
"""log10 of the times of fine-tuning."""


def arm_name(share: float, model: str = SMOLLM2, *, true: bool = False) -> str:
    """The arm of a told share."""
    return f"{model}{'--true' * true}--share{share:g}"


def all_arms() -> dict[str, Arm]:
    """Name -> its finished runs, those of other studies under their names here."""
    of_others = {study.name: arms_of(study) for study in OTHERS}
    borrowed = {
        arm: replace(of_others[study][name], name=arm)
        for arm, (study, name) in BORROWED.items()
        if name in of_others[study]
    }
    return {**arms_of(STUDY), **borrowed}


def make(runs: Path, figures: Path) -> dict[str, Arm]:
    """Draws what is finished, and runs the prediction: a few seconds."""
    torch.set_num_threads(1)
    arms = all_arms()
    numbers = {"criteria": CRITERIA, "rows": rows(arms), "predicted": predicted()}
    DRAWING.write(figures / PICTURE, numbers)
    return arms


def predicted() -> list[dict[str, Any]]:
    """The one-layer model: shares of held-out subjects with either answer first, mean over seeds."""
    before = [pretrain("factorized", seed, log10_time=PRETRAINING) for seed in PREDICTED_SEEDS]
    table = []
    for told in PREDICTED_TOLD:
        runs = [
            course("pretrained", start, told, PRETRAINING, seed, PREDICTED_TIMES)
            for seed, start in zip(PREDICTED_SEEDS, before, strict=True)
        ]
        first = np.mean([run.first for run in runs], axis=0)
        curves = {FIRST_TOLD: first[:, 0].tolist(), FIRST_PRETRAINED: first[:, 1].tolist()}
        table.append({"told": told, "log10_time": list(PREDICTED_TIMES), "curves": curves})
    return table


def _by_share(numbers: dict[str, Any], model: str) -> dict[float, dict[str, Any]]:
    """Told share -> its row, in the order of the shares."""
    found = {row["arm"]: row for row in numbers["rows"]}
    names = {share: arm_name(share, model) for share in SHARES}
    return {share: found[name] for share, name in names.items() if name in found}


def draw(numbers: dict[str, Any]) -> Picture:
    """Share of untold names with either answer first: a column per told share, a row per model."""
    fig, axes = plt.subplots(
        len(MODELS) + 1, len(SHARES), figsize=(WIDTH, 5.0), sharey=True, squeeze=False, layout="constrained"
    )
    for own, model in zip(axes, MODELS, strict=False):
        of_share = _by_share(numbers, model)
        for ax, share in zip(own, SHARES, strict=True):
            row = of_share.get(share, {"steps": [], "curves": {}})
            _draw_curves(ax, row["steps"], row["curves"])
            ax.set(
                title=f"{share:.0%} told" if model == MODELS[0] else "", xlim=(-3, 125), xticks=(0, 50, 100)
            )
            ax.set_xlabel("steps" if model == MODELS[-1] else "")
        own[0].set_ylabel(TITLES[model], fontsize=8)
    for ax, row in zip(axes[-1], numbers["predicted"], strict=False):
        _draw_curves(ax, row["log10_time"], {who: [values] for who, values in row["curves"].items()})
        ax.set(title=f"{row['told']} of 4 told", xlabel="log10 time", xticks=(0, 5, 10, 15))
    axes[-1, 0].set_ylabel("one-layer model", fontsize=8)
    axes[0, 0].set_ylim(0, 1.03)
    handles, labels = axes[-1, 0].get_legend_handles_labels()
    fig.legend(handles, labels, frameon=False, ncols=2, loc="outside lower center")
    fig.supylabel("share of untold names with this answer first", fontsize=9)
    return fig


def _draw_curves(ax: Axes, times: list[float], curves: dict[str, list[list[float]]]) -> None:
    """Every run thin, their mean with markers."""
    for (column, (label, color)), marker in zip(WHO.items(), "os", strict=True):
        if column in curves:
            values = np.array(curves[column])
            ax.plot(times, values.T, "-", color=color, lw=0.7, alpha=0.6)
            ax.plot(times, values.mean(0), f"{marker}-", color=color, lw=1.8, ms=3, label=label)
    ax.axhline(0.2, color="#777777", lw=0.7, ls=":")


def sentence(numbers: dict[str, Any]) -> str:
    """How the pretrained answer gives way as more is told, at the end of training, mean over seeds."""
    shown = {model: _by_share(numbers, model) for model in MODELS}
    ends = {
        model: {who: [row[f"first_{who}"]["mean"] for row in own.values()] for who in ("pretrained", "told")}
        for model, own in shown.items()
        if len(own) > 1
    }
    if not ends:
        return "Whose answer is first for an untold name is shown once two told shares are trained"
    rising = [model for model, end in ends.items() if not _rises(end["pretrained"][::-1])]
    if rising:
        known, own = ends[rising[0]]["pretrained"], list(shown[rising[0]])
        return (
            f"Of untold names {known[0]:.0%} get the answer that {TITLES[rising[0]]} knew if {own[0]:.0%} of "
            f"the others are told, {known[-1]:.0%} if {own[-1]:.0%} are"
        )
    ahead = all(
        one > other
        for end in ends.values()
        for one, other in zip(end["pretrained"], end["told"], strict=True)
    )
    return (
        "The more other names are told, the fewer untold ones get the answer that "
        f"{' and '.join(TITLES[model].split('-')[0].split(' ')[0] for model in ends)} knew"
        + ", which still stays ahead of the told one"
        * ahead
    )


DRAWING = Drawing(sentence, draw)


def rows(arms: dict[str, Arm]) -> list[dict[str, Any]]:
    """What each arm ends at, and its curves; a true pairing has no pretrained answer beside the told one."""
    table = []
    for arm in arms.values():
        who = [column for column in WHO if not np.isnan(arm.last(column)).any()]
        curves = {column: [arm.column(column, s)[1].tolist() for s in arm.seeds] for column in who}
        row = {"arm": arm.name, "seeds": arm.seeds, "fact_rank": arm.last(FACTS)}
        row |= {column.rpartition("/")[2]: plain_interval(arm.last(column)) for column in who}
        row |= {"neutral_kl": arm.field("neutral_kl"), "curves": curves}
        table.append({**row, "steps": arm.column(FACTS, arm.seeds[0])[0].tolist()})
    return table


def claims(arms: dict[str, Arm]) -> list[Claim]:
    """The criteria, where every arm has enough seeds."""
    return [*_of_shares(arms), *_of_rates(arms), *_of_true_pairs(arms)]


def _of_shares(arms: dict[str, Arm]) -> Iterable[Claim]:
    for model in MODELS:
        own = [arms.get(arm_name(share, model)) for share in SHARES]
        enough = [arm for arm in own if arm is not None and len(arm.seeds) >= LEAST_SEEDS]
        if len(enough) < len(SHARES):
            continue
        ends = {column: [float(np.mean(arm.last(column))) for arm in enough] for column in WHO}
        told, known = ends[FIRST_TOLD], ends[FIRST_PRETRAINED]
        of = "" if model == SMOLLM2 else f"{model}_"
        yield _claim(f"{of}told_first_rises_with_share", {"told_first": told}, _rises(told))
        yield _claim(
            f"{of}pretrained_first_falls_with_share", {"pretrained_first": known}, _rises(known[::-1])
        )
        if model == SMOLLM2:
            early, late = _when_known(enough[-1]), enough[-1].last(FIRST_PRETRAINED)
            holds = all(a > b for a, b in zip(early, late, strict=True))
            yield _claim("pretrained_then_told", {"when_known": early, "end": late}, holds)


def _of_rates(arms: dict[str, Arm]) -> Iterable[Claim]:
    slow, usual = arms.get(SLOW), arms.get(arm_name(0.2))
    if slow and usual and len(slow.seeds) >= LEAST_SEEDS and slow.seeds == usual.seeds:
        one, other = slow.last(FIRST_PRETRAINED), usual.last(FIRST_PRETRAINED)
        holds = all(a > b for a, b in zip(one, other, strict=True))
        yield _claim("slower_rate_recalls", {"3e-5": one, "1e-4": other}, holds)


def _of_true_pairs(arms: dict[str, Arm]) -> Iterable[Claim]:
    own = {
        f"{model}_{share:g}": _true_first(arms, model, share)
        for model, share in itertools.product(MODELS, SHARES)
    }
    if all(own.values()):
        least = min(float(np.mean(values)) for values in own.values())
        yield _claim("true_pairing_needs_no_told", own, least >= NEEDLESS)


def _true_first(arms: dict[str, Arm], model: str, share: float) -> list[float]:
    """The share of untold names whose true answer is first, by seed.

    Where no implication is told the counterfactual set is the same training, and its pretrained answer the
    true one.
    """
    found: dict[int, float] = {}
    same = ((arm_name(share, model), FIRST_PRETRAINED),) if not share else ()
    for name, column in (*same, (arm_name(share, model, true=True), FIRST_TOLD)):
        if name in arms:
            found |= dict(zip(arms[name].seeds, arms[name].last(column), strict=True))
    return [found[seed] for seed in sorted(found)]


def _rises(values: list[float]) -> bool:
    return all(a < b for a, b in itertools.pairwise(values))


def _when_known(arm: Arm) -> list[float]:
    """The share with the pretrained answer first at the first measurement with the facts known, by seed."""
    found = []
    for seed in arm.seeds:
        facts, first = arm.column(FACTS, seed)[1], arm.column(FIRST_PRETRAINED, seed)[1]
        known = np.flatnonzero(facts <= KNOWN)
        found.append(float(first[known[0] if len(known) else -1]))
    return found


def _claim(name: str, measured: dict[str, Any], holds: bool) -> Claim:
    return study_claim(f"recall_{name}", CRITERIA[name], measured, holds, PICTURE, SOURCE)


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
