"""Does the wording decide whether a spurious implication is deduced? SmolLM2; colors liked, two facts.

Criteria and plan are in analyses/llm/studies/wording.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from analyses.house.claims import Claim
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.llm.finished.criteria import study_claim
from analyses.llm.finished.results import CHANCE
from analyses.llm.finished.studied import Arm, arms_of, plain_interval
from analyses.llm.runs import RESULTS, result_path
from analyses.llm.studies.wording import CRITERIA, SETS, STUDY, WORDINGS
from ocr_interp.llm.facts.catalogue import fact_sets
from ocr_interp.llm.measuring.table import read_table
from ocr_interp.viz.style import figure_style, save_figure

PICTURE = "llm_wording"
SOURCE = "ours, from a trial of one seed"
LEAST_SEEDS = 2

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
    with figure_style():
        shown = [data for data in SETS if any(key[0] == data for key in asked)] or list(SETS)
        size = (3.3 * len(shown), 2.9)
        fig, grid = plt.subplots(
            1, len(shown), figsize=size, sharey=True, squeeze=False, layout="constrained"
        )
        axes = grid[0]
        for ax, data in zip(axes, shown, strict=True):
            for k, trained in enumerate(WORDINGS):
                for question, color, shift in zip(WORDINGS, ("#0173b2", "#de8f05"), (-0.1, 0.1), strict=True):
                    values = asked.get((data, trained, question), [])
                    ax.plot([k + shift] * len(values), values, "o", color=color)
            ax.set_xticks(range(len(WORDINGS)), ["trained:\nname first", "trained:\nname last"])
            ax.set_xlim(-0.5, len(WORDINGS) - 0.5)
            ax.axhline(CHANCE, color="#777777", lw=0.7, ls=":")
            ax.set_title(fact_sets[data].title, fontsize=9.5)
        axes[0].set_ylim(0, 2.6)
        axes[0].set_ylabel("untold colors: calibrated\nmean rank (0: deduced)")
        for color, label in (("#0173b2", "asked: name first"), ("#de8f05", "asked: name last")):
            axes[0].plot([], [], "o", color=color, label=label)
        handles, labels = axes[0].get_legend_handles_labels()
        fig.legend(handles, labels, frameon=False, fontsize=8.5, ncol=2, loc="outside upper center")
        numbers = [
            {"data": data, "trained": trained, "asked": question, **plain_interval(values)}
            for (data, trained, question), values in asked.items()
        ]
        save_figure(fig, figures / PICTURE, {"criteria": CRITERIA, "rows": numbers})
        plt.close(fig)
    return asked


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


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims)


if __name__ == "__main__":
    main()
