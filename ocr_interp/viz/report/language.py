"""A language-model run as a section: ranks over training, who is first, and which weights moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ocr_interp.errors import ConfigError
from ocr_interp.storage.plain import plain
from ocr_interp.task import SPLITS
from ocr_interp.viz.report.panels import (
    DIGITS,
    LEVELS,
    MOST_ROWS,
    Panel,
    Section,
    chart,
    curve,
    defined,
    label,
    quantized,
    split_name,
    table_panel,
    thinned,
)

NEEDED = ("config", "history", "before", "after", "facts", "implications", "step")
"""Fields of a result.json that a page is made of."""

RECIPE = ("optimizer", "lr", "batch_size", "train_seed")
"""Fields of its recipe that a page names."""


def language_section(title: str, result: Mapping[str, Any]) -> Section:
    """A fine-tuned language model's measurements.

    Args:
        title: name of the run.
        result: the content of its result.json, `FinetuneRun.to_dict()` or `llm.read_result(path)`.

    Raises:
        ConfigError: a field that a page needs is missing or is not what it should be.
    """
    missing = [name for name in NEEDED if name not in result]
    if missing:
        raise ConfigError(
            f"a language-model run must have {', '.join(NEEDED)}, got none of {', '.join(missing)}"
        )
    try:
        return _section(title, result)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ConfigError(
            f"the result of a language-model run is damaged ({error!r}): make it again"
        ) from None


def _section(title: str, result: Mapping[str, Any]) -> Section:
    history = pd.DataFrame(dict(result["history"])).astype(float)
    rows = history.iloc[thinned(len(history), MOST_ROWS)]
    guess = (len(result["implications"]) - 1) / 2
    panels = [
        _curves(
            "Rank of the right answer",
            "Mean over names and wordings; 0 is first. Held-out implications were never told. The line is "
            "the rank of a guess among the implications.",
            rows,
            "rank",
            "mean rank",
            [("a guess", guess)],
        ),
        _curves(
            "Share of prompts whose right answer is first",
            "Every wording of every name.",
            rows,
            "top1",
            "share",
        ),
        _first(rows),
        _curves("Log-probability", "Among the candidates, nats.", rows, "logprob", "nats"),
        _movement(result.get("movement")),
        table_panel("Before and after", _before_and_after(result), "Means over prompts.", "before_after.csv"),
        table_panel("History", history, "One row per logged step.", "history.csv"),
    ]
    train = dict(result["config"]["train"])
    facts = (
        ("facts", label(result.get("data", ""))),
        ("method", label(train.get("method", "full"))),
        ("recipe", label(", ".join(f"{name} {train[name]}" for name in RECIPE if name in train))),
        ("step", f"{int(result['step']):,}"),
        ("candidates", f"{len(result['facts'])} facts, {len(result['implications'])} implications"),
    )
    return Section(label(title), facts, tuple(panel for panel in panels if panel is not None))


def _curves(
    title: str,
    text: str,
    rows: pd.DataFrame,
    metric: str,
    y: str,
    lines: Sequence[tuple[str, float]] = (),
) -> Panel | None:
    """One curve per split; None if the history has none of them."""
    series = [
        curve(split_name(split), rows, f"{split}/{metric}")
        for split in SPLITS
        if defined(rows, f"{split}/{metric}")
    ]
    if not series:
        return None
    return Panel("curves", title, text, {"charts": [chart(title, "step", y, series, lines)]})


def _first(rows: pd.DataFrame) -> Panel | None:
    """Whose answer is first, for every split that has it."""
    who = ("told", "pretrained", "other", "tied")
    charts = []
    for split in SPLITS:
        named = [(name, f"{split}/first_{name}") for name in who]
        series = [curve(name, rows, column) for name, column in named if defined(rows, column)]
        if series:
            charts.append(chart(split_name(split), "step", "share of prompts", series))
    if not charts:
        return None
    text = "The told pairing's answer, the one that the fact has in the real world, another one, or several."
    return Panel("curves", "Whose answer is first", text, {"charts": charts})


def _movement(moved: Any) -> Panel | None:
    """How far every part of every layer moved, as a heat map; None where it was not measured."""
    if not isinstance(moved, Mapping) or "part" not in moved:
        return None
    parts = list(dict.fromkeys(map(str, moved["part"])))
    layers = sorted({int(layer) for layer in moved["layer"]})
    table = np.zeros((len(parts), len(layers)))
    for part, layer, value in zip(moved["part"], moved["layer"], moved["relative"], strict=True):
        table[parts.index(str(part)), layers.index(int(layer))] = 0.0 if value is None else float(value)
    values, worth = quantized([table])
    data = {
        "rows": [label(part) for part in parts],
        "columns": ["outside" if layer < 0 else f"layer {layer}" for layer in layers],
        "row_groups": [["parts", len(parts)]],
        "column_groups": [["layers", len(layers)]],
        "frame": None,
        "values": values,
        "worth": plain(worth, DIGITS),
        "levels": LEVELS,
        "unit": "‖ΔW‖/‖W‖",
    }
    text = "‖ΔW‖_F / ‖W‖_F of every part of every layer, in 127 levels; 0 where there is no part."
    return Panel("heatmap", "Which weights moved", text, data)


def _before_and_after(result: Mapping[str, Any]) -> pd.DataFrame:
    rows = []
    for split_index, split in enumerate(SPLITS):
        row: dict[str, Any] = {"split": split_name(split)}
        for when in ("before", "after"):
            values = result[when]
            chosen = np.array(values["split"]) == split_index
            ranks = np.array(values["rank"], dtype=np.float64)[chosen]
            row |= {"prompts": int(chosen.sum())} if when == "before" else {}
            row[f"rank {when}"] = float(ranks.mean()) if len(ranks) else float("nan")
            row[f"first {when}"] = float((ranks == 0).mean()) if len(ranks) else float("nan")
        rows.append(row)
    return pd.DataFrame(rows)
