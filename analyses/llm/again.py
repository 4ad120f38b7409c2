"""Runs of language models that were made on a CPU and on a GPU, side by side.

    python -m analyses.llm.again --make      makes them here, into analyses/results/llm/again

Which, and the criteria, are in analyses/llm/studies/again.py. Other runs were made once; their JSONs say on
what kind of device.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.llm import runs as planned_runs
from analyses.llm.finished.criteria import study_claim
from analyses.llm.finished.studied import HELD_OUT
from analyses.llm.mitigation.training import LOGGED
from analyses.llm.studies.again import AGAIN, CRITERIA, FIRST_LOSS_APART, MEAN_APART, MOST_APART
from analyses.llm.studies.plan import PlannedRun
from ocr_interp.llm.training.files.result import read_result

PICTURE = "llm_again"
RESULTS = planned_runs.RESULTS.parent / "again"
COLORS = {"cpu": "#0173b2", "cuda": "#de8f05"}
NAMES = {"cpu": "CPU", "cuda": "GPU"}

Rows = list[dict[str, Any]]


def chosen() -> list[PlannedRun]:
    """The runs that are made twice."""
    return [run for run in planned_runs.planned() if run.name in AGAIN]


def make(runs: Path, figures: Path) -> Rows:
    """Draws the runs that are finished on both."""
    rows = [_row(run) for run in chosen() if planned_runs.is_finished(run, RESULTS)]
    DRAWING.write(figures / PICTURE, {"criteria": CRITERIA, "rows": rows})
    return rows


def _row(run: PlannedRun) -> dict[str, Any]:
    folders = (planned_runs.RESULTS, RESULTS)
    first, again = (read_result(planned_runs.result_path(run, folder)) for folder in folders)
    row = {
        "run": run.name,
        "devices": [found.get("device", "cpu") for found in (first, again)],
        "rank": [_rank(found) for found in (first, again)],
    }
    if "history" in first:
        row["loss_of_first_steps"] = [found["history"]["train_loss"][1] for found in (first, again)]
    return row


def _rank(found: dict[str, Any]) -> float:
    if "history" in found:
        return found["history"][HELD_OUT][-1]
    end = found["measured"][f"step_{LOGGED[-1]}"]
    return float(np.mean([end[f"spurious/{half}"] for half in ("seen_by_method", "never_seen")]))


def draw(numbers: dict[str, Any]) -> Picture:
    """A row per run, a mark per device."""
    rows = numbers["rows"]
    fig, ax = plt.subplots(figsize=(WIDTH, 1.5 + 0.28 * max(len(rows), 1)), layout="constrained")
    for y, row in enumerate(reversed(rows)):
        for device, rank, marker in zip(row["devices"], row["rank"], "oD", strict=True):
            ax.plot(rank, y, marker, ms=7, mec=COLORS[device], mfc="none", mew=1.6)
    ax.set_yticks(
        range(len(rows)), [row["run"].removesuffix("--seed0") for row in reversed(rows)], fontsize=8
    )
    ax.set_ylim(-0.6, max(len(rows), 1) - 0.4)
    ax.set_xlim(0, 2.2)
    ax.set_xlabel("untold implications, mean rank at the end (0: known, 2: guessed)")
    for device, marker in zip(("cpu", "cuda") if rows else (), "oD", strict=False):
        ax.plot([], [], marker, ms=7, mec=COLORS[device], mfc="none", mew=1.6, label=NAMES[device])
    if rows:
        fig.legend(frameon=False, ncols=2, loc="outside lower center")
    return fig


def apart(rows: Rows) -> list[float]:
    """How far the ranks of each run are apart."""
    return [abs(row["rank"][0] - row["rank"][1]) for row in rows]


def sentence(numbers: dict[str, Any]) -> str:
    """How far the two devices end apart."""
    if not numbers["rows"]:
        return "No run was made on a CPU and again on a GPU yet"
    found = apart(numbers["rows"])
    return (
        f"The same run ends {np.mean(found):.2f} apart on a CPU and on a GPU, at most {max(found):.2f}, in "
        "the mean rank of untold implications"
    )


DRAWING = Drawing(sentence, draw)


def claims(rows: Rows) -> list[Claim]:
    """Both criteria, once every run was made on a CPU and on a GPU."""
    own = [row for row in rows if set(row["devices"]) == {"cpu", "cuda"}]
    if len(own) < len(AGAIN):
        return []
    ranks = apart(own)
    losses = [abs(float(np.subtract(*r["loss_of_first_steps"]))) for r in own if "loss_of_first_steps" in r]
    ends = float(np.mean(ranks)) <= MEAN_APART and max(ranks) <= MOST_APART
    return [
        _claim("a_gpu_ends_where_a_cpu_does", {"ranks_apart": ranks}, ends),
        _claim("a_gpu_begins_as_a_cpu_does", {"losses_apart": losses}, max(losses) <= FIRST_LOSS_APART),
    ]


def _claim(name: str, measured: dict[str, Any], holds: bool) -> Claim:
    return study_claim(f"again_{name}", CRITERIA[name], measured, holds, PICTURE)


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    if sys.argv[1:] == ["--make"]:
        planned_runs.make_missing(chosen(), planned_runs.Arguments(results=RESULTS))
    else:
        main()
