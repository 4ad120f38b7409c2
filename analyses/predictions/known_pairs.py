"""Whether a pair that was known better before training keeps its real answer for more of the untold names.

The criterion is in analyses/llm/studies/recall.py, the measurement in analyses/llm/studies/known_before.py.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture
from scipy.stats import spearmanr

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.llm.finished.criteria import study_claim
from analyses.llm.finished.studied import Arm
from analyses.llm.runs import RESULTS, result_path
from analyses.llm.studies import known_before
from analyses.llm.studies.plan import GEMMA, SMOLLM2, TITLES
from analyses.llm.studies.recall import BORROWED, CRITERIA, SHARES, STUDY
from analyses.predictions.recall import LEAST_SEEDS, MODELS, OTHERS, SOURCE, all_arms, arm_name
from ocr_interp.llm.measuring.table import read_table

PICTURE = "llm_recall_known"
MODEL_COLORS = {SMOLLM2: "#029e73", GEMMA: "#cc78bc"}


@dataclass(frozen=True)
class Pairs:
    """The five pairs of a run.

    Attributes:
        model, seed, share: of the run.
        before: contrast of each real answer in the untouched model, nats.
        kept: share of each pair's untold names whose real answer is first at the end.
    """

    model: str
    seed: int
    share: float
    before: list[float]
    kept: list[float]

    @property
    def correlation(self) -> float:
        """Spearman's rank correlation; 0 where all pairs are kept alike."""
        if len(set(self.kept)) == 1:
            return 0.0
        return float(np.asarray(spearmanr(self.before, self.kept)[0]))


def make(runs: Path, figures: Path) -> list[Pairs]:
    """Reads the pairs of every finished run, and draws them."""
    found = list(pairs_of(all_arms()))
    own = [{**vars(pair), "correlation": round(pair.correlation, 5)} for pair in found]
    DRAWING.write(figures / PICTURE, {"runs": own})
    return found


def pairs_of(arms: dict[str, Arm]) -> Iterable[Pairs]:
    """Pairs of every run with told others; nothing before `known_before` was run."""
    if not known_before.RESULTS.exists():
        return
    known = {(row["model"], row["seed"]): row for row in json.loads(known_before.RESULTS.read_text())}
    planned = {(run.study, run.arm, run.seed): run for study in (STUDY, *OTHERS) for run in study.planned()}
    for model, share in itertools.product(MODELS, SHARES[1:]):
        arm = arms.get(arm_name(share, model))
        study, name = BORROWED.get(arm_name(share, model), (STUDY.name, arm_name(share, model)))
        for seed in arm.seeds if arm else []:
            run = planned[study, name, seed]
            path = result_path(run, RESULTS).with_suffix(".logits.safetensors")
            table = read_table(path, run.config.fingerprint)
            row, asked = known[model, seed], table.answers("held_out_implication")
            if list(table.prompts.facts) != row["facts"]:
                raise ValueError(
                    f"{path} and {known_before.RESULTS} are of other facts: run known_before again"
                )
            first = asked.logits.argmax(1) == asked.world
            kept = [float(first[asked.fact == fact].mean()) for fact in range(len(row["facts"]))]
            yield Pairs(model, seed, share, row["nats"], kept)


def draw(numbers: dict[str, Any]) -> Picture:
    """Each pair of each run: contrast before against the share of its names that keep the real answer."""
    fig, axes = plt.subplots(
        1, len(MODELS), figsize=(WIDTH, 3.1), sharey=True, squeeze=False, layout="constrained"
    )
    markers = dict(zip(SHARES[1:], "o^s", strict=True))
    for ax, model in zip(axes[0], MODELS, strict=True):
        for run in numbers["runs"]:
            if run["model"] == model:
                style = {"marker": markers[run["share"]], "color": MODEL_COLORS[model], "ls": ""}
                ax.plot(run["before"], run["kept"], ms=5, alpha=0.7, mew=0, **style)
        found = [run["correlation"] for run in numbers["runs"] if run["model"] == model]
        if found:
            ax.set_title(f"{TITLES[model]}: correlation {np.mean(found):+.2f}", loc="left")
        ax.set_xlabel("known before: contrast of the real answer, nats")
    for share, marker in markers.items():
        axes[0, 0].plot([], [], marker, color="0.3", ms=5, label=f"{share:.0%} told")
    axes[0, 0].set(
        ylim=(-0.04, 1.04), ylabel="untold names of the pair whose\nreal answer is first at the end"
    )
    fig.legend(frameon=False, ncols=3, loc="outside lower center")
    return fig


def sentence(numbers: dict[str, Any]) -> str:
    """Whether pairs that were known better are kept more, in every seed."""
    by_seed: dict[str, dict[int, list[float]]] = {}
    for run in numbers["runs"]:
        by_seed.setdefault(run["model"], {}).setdefault(run["seed"], []).append(run["correlation"])
    if not by_seed:
        return "Whether what is known better is kept more is shown once it was measured"
    more = [m for m, seeds in by_seed.items() if all(np.mean(values) > 0 for values in seeds.values())]
    if len(more) == len(by_seed):
        return "A pair that was known better before keeps its real answer for more of the untold names"
    if not more:
        return "How well a pair was known before does not say how many untold names keep its real answer"
    return (
        f"A pair that was known better before keeps its real answer for more names on {TITLES[more[0]]} alone"
    )


DRAWING = Drawing(sentence, draw)


def claims(found: list[Pairs]) -> list[Claim]:
    """The criterion, where both models have enough seeds with every told share."""
    by_seed: dict[str, list[float]] = {}
    for model in MODELS:
        own = [pair for pair in found if pair.model == model]
        for seed in sorted({pair.seed for pair in own}):
            of_seed = [pair for pair in own if pair.seed == seed]
            if {pair.share for pair in of_seed} == set(SHARES[1:]):
                mean = float(np.mean([pair.correlation for pair in of_seed]))
                by_seed.setdefault(model, []).append(mean)
    if not all(len(by_seed.get(model, [])) >= LEAST_SEEDS for model in MODELS):
        return []
    holds = all(value > 0 for values in by_seed.values() for value in values)
    name = "better_known_is_kept"
    return [study_claim(f"recall_{name}", CRITERIA[name], by_seed, holds, PICTURE, SOURCE)]


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
