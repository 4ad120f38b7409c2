"""An ablation study as aligned text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import pandas as pd

from ocr_interp.ablation.study import BASELINE, AblationStudy
from ocr_interp.task import SPLITS

_WIDTH = 18
AMONG = {
    "accuracy": "share of prompts whose right answer beats all other answers",
    "loss": "cross-entropy over the whole vocabulary, nats",
    "margin": "smallest logit difference to another answer of the right answer's own set",
    "logit_difference": "mean logit difference to the mean of the other answers of its own set",
    "other_answer_difference": "smallest logit difference to the subject's answer to the other relation",
}
"""Which answers every metric counts, in a study of a fact-recall model."""

_SHORT = ("training fact", "training impl.", "held-out fact", "held-out impl. *")
_HEADS: dict[str, str] = dict(zip(map(str, SPLITS), _SHORT, strict=True))


def describe_study(study: AblationStudy, metrics: Sequence[str], notes: Sequence[str] = ()) -> str:
    """One table per metric: one row per ablation, one column per split, its random control in brackets.

    If there are several controls, the last one is shown, which matches most closely.

    Raises:
        UnknownNameError: a metric that the study does not have.
    """
    tables = [_table(study, metric) for metric in metrics]
    said = [*notes, "* impl.: implications; those of held-out subjects were never told"]
    if study.table[list(metrics)].isna().to_numpy().any():
        said.append("- : undefined, from NaN logits or from a control that these examples do not allow")
    if study.controls:
        said.append(
            "in brackets: a random ablation of the same kind, where there is one: of tokens and paths at as "
            "many random positions of each prompt, of subspaces at equal rank and removed norm, else of as "
            "many positions or heads"
        )
    return "\n\n".join(["\n".join(table) for table in tables] + ["\n".join(said)])


def _table(study: AblationStudy, metric: str) -> list[str]:
    plain = study.by_split(metric)
    controls = [study.by_split(metric, name) for name in reversed(study.controls)]
    splits = [str(split) for split in plain.columns]
    first = max(len(_named(str(spec))) for spec in plain.index) + 2
    beside = any(len(table) for table in controls)
    lines = [_title(metric)]
    lines.append(" " * first + "".join(f"{_HEADS.get(s, s):>{_WIDTH}}" for s in splits))
    for spec in plain.index:
        row = f"{_named(str(spec)):{first}}"
        for split in splits:
            value = _cell(plain, spec, split)
            drawn = [_cell(table, spec, split) for table in controls if spec in table.index]
            shown = next((f"({_number(metric, x)})" for x in drawn if math.isfinite(x)), "")
            row += f"{_number(metric, value):>{_WIDTH - 9 * beside}}" + f"{shown:>9}" * beside
        lines.append(row.rstrip())
    return lines


def _title(metric: str) -> str:
    """The metric with the answers that it counts."""
    name = metric.replace("_", " ")
    return f"{name}: {AMONG[metric]}" if metric in AMONG else name


def _cell(table: pd.DataFrame, spec: Hashable, split: str) -> float:
    return float(table[split].loc[[spec]].to_numpy()[0])


def _named(spec: str) -> str:
    return "the model as it is" if spec == BASELINE else spec


def _number(metric: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.3f}" if metric == "accuracy" else f"{value:.3g}"
