"""Does the wording decide whether a spurious implication is deduced? SmolLM2; colors liked, two facts.

Criteria and plan are in analyses/llm/studies/wording.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.llm.finished.criteria import study_claim
from analyses.llm.finished.results import CHANCE
from analyses.llm.finished.studied import Arm, arms_of, plain_interval
from analyses.llm.runs import RESULTS, result_path
from analyses.llm.studies.wording import CRITERIA, SETS, STUDY, WORDINGS
from ocr_interp.llm.facts.catalogue import fact_sets
from ocr_interp.llm.measuring.table import read_table

PICTURE = "llm_wording"
SOURCE = "ours, from a trial of one seed"
LEAST_SEEDS = 2
NAMES = dict(zip(WORDINGS, ("name first", "name last"), strict=True))

Asked = dict[tuple[str, int, int], list[float]]
"""(Data set, wording of training, wording of the question) -> calibrated held-out mean rank by seed."""


def make(runs: Path, figures: Path) -> Asked:
    """Draws what is finished."""
    arms, asked = arms_of(STUDY), {}
    for data in SETS:
        for trained in WORDINGS:
            arm = arms.get(f"{data}--wording{trained}")
            for place, question in enumerate(WORDINGS if arm else ()):
                assert arm is not None
                asked[data, trained, question] = [_rank(arm, s, place) for s in arm.seeds]
    rows = [
        {"data": data, "trained": trained, "asked": question, **plain_interval(values)}
        for (data, trained, question), values in asked.items()
    ]
    DRAWING.write(figures / PICTURE, {"criteria": CRITERIA, "rows": rows})
    return asked


def draw(numbers: dict[str, Any]) -> Picture:
    """Mean ranks by wording of training and of the question, every seed; a panel per data set."""
    shown = list(dict.fromkeys(row["data"] for row in numbers["rows"])) or list(SETS)
    size = (WIDTH, 3.0)
    fig, grid = plt.subplots(1, len(shown), figsize=size, sharey=True, squeeze=False, layout="constrained")
    axes, looks = grid[0], zip(WORDINGS, ("#0173b2", "#de8f05"), "oD", strict=True)
    for k, (question, color, marker) in enumerate(looks):
        for row in (row for row in numbers["rows"] if row["asked"] == question):
            x, values = WORDINGS.index(row["trained"]) + 0.2 * k - 0.1, row["by_seed"]
            axes[shown.index(row["data"])].plot([x] * len(values), values, marker, color=color, ms=5)
        axes[0].plot([], [], marker, color=color, ms=5, label=f"asked with the {NAMES[question]}")
    for ax, data in zip(axes, shown, strict=True):
        ax.set_xticks(range(len(WORDINGS)), [f"trained with\nthe {NAMES[one]}" for one in WORDINGS])
        ax.set_xlim(-0.5, len(WORDINGS) - 0.5)
        ax.axhline(CHANCE, color="#777777", lw=0.7, ls=":")
        ax.text(0.5, CHANCE + 0.04, "guessed", ha="center", color="#555555", fontsize=7.5)
        ax.set_title(fact_sets[data].title, loc="left")
    axes[0].set_ylim(0, 2.6)
    axes[0].set_ylabel("untold colors: calibrated\nmean rank (0: deduced)")
    if numbers["rows"]:
        fig.legend(frameon=False, ncols=2, loc="outside lower center")
    return fig


def sentence(numbers: dict[str, Any]) -> str:
    """What the means bear out: only one pair of wordings deduces, or the trained one against the other."""
    rows, first = sorted(numbers["rows"], key=lambda row: row["mean"]), WORDINGS[0]
    if not rows:
        return "Whether the wording decides what is deduced is not known before a run"
    own = [row["mean"] for row in rows if row["trained"] == row["asked"] == first]
    others = [row["mean"] for row in rows if not row["trained"] == row["asked"] == first]
    if own and others and max(own) < CHANCE / 2 < min(others):
        return (
            "Untold colors are mostly deduced if names come first in training and in the question, far less "
            "otherwise"
        )
    cells: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        cells[row["trained"] == row["asked"]].append(row["mean"])
    if not all(cells.values()):
        return "Whether the wording decides what is deduced is not known before both were trained and asked"
    same, other = (sum(values) / len(values) for values in cells.values())
    less = "less" if other > same else "no less"
    return (
        f"Asked in a wording that was not trained, untold colors are deduced {less}: mean rank {other:.2f}, "
        f"in the trained one {same:.2f}"
    )


DRAWING = Drawing(sentence, draw)


def _rank(arm: Arm, seed: int, template: int) -> float:
    """The calibrated mean rank of held-out implications in one wording of the question."""
    run = next(r for r in STUDY.planned() if (r.arm, r.seed) == (arm.name, seed))
    path = result_path(run, RESULTS).with_suffix(".logits.safetensors")
    table = read_table(path, run.config.fingerprint)
    answers = table.answers("held_out_implication").calibrated()
    return float(np.mean(answers.rank[answers.template == template]))


def claims(asked: Asked) -> list[Claim]:
    """The criteria, where every cell has enough seeds."""
    cells = [(d, t, q) for d in SETS for t in WORDINGS for q in WORDINGS]
    if not all(len(asked.get(cell, [])) >= LEAST_SEEDS for cell in cells):
        return []
    first, last = WORDINGS
    own = {data: (asked[data, first, first], asked[data, last, last]) for data in SETS}
    same = float(np.mean([asked[d, t, q] for d, t, q in cells if t == q]))
    other = float(np.mean([asked[d, t, q] for d, t, q in cells if t != q]))
    lower = all(a < b for pair in own.values() for a, b in zip(*pair, strict=True))
    return [
        _claim("name_first_deduces_more", {data: list(pair) for data, pair in own.items()}, lower),
        _claim("other_wording_deduces_less", {"same": same, "other": other}, other > same),
    ]


def _claim(name: str, measured: dict[str, Any], holds: bool) -> Claim:
    return study_claim(f"wording_{name}", CRITERIA[name], measured, holds, PICTURE, SOURCE)


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
