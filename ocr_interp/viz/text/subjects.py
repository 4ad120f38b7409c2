"""A table of subjects as text for a terminal: subjects of the same fact and margins share a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_NAMES = 4
"""Largest number of subjects that a line names."""

_SAME = ["fact", "implication", "told", "rank", "first"]
_MARGINS = ["fact_margin", "implication_margin", "implication_margin_overall"]


def describe_subjects(table: pd.DataFrame) -> str:
    """Lines for told and untold subjects of every fact, and who is deduced without being told.

    Args:
        table: of `Solution.table` or `Run.table`.
    """
    shown = table.assign(**{name: table[name].map(_rounded) for name in _MARGINS})
    if "implication_margin_low" in table:
        ends = zip(table["implication_margin_low"], table["implication_margin_high"], strict=True)
        middle = shown["implication_margin"]
        shown["implication_margin"] = [_range(*end, text) for end, text in zip(ends, middle, strict=True)]
    header = ("fact", "implication", "told", "subjects", "fact", "implication", "overall", "rank", "first")
    rows: list[tuple[str, ...]] = [header]
    for _, group in shown.groupby(_SAME + _MARGINS, sort=False):
        fact, implication, told, rank, first = group.iloc[0][_SAME].tolist()
        margins = group.iloc[0][_MARGINS].tolist()
        names = _few(group["subject"].tolist())
        rows.append(
            (fact, implication, "yes" if told else "no", names, *margins, f"{rank:g}", first or "(tie)")
        )
    widths = [max(len(row[k]) for row in rows) for k in range(len(header))]
    lines = ["margins in logits: the fact, the implication among implications, and against every output"]
    for row in rows:
        cells = zip(row, widths, range(len(row)), strict=True)
        shown_cells = [text.rjust(w) if 4 <= k <= 7 else text.ljust(w) for text, w, k in cells]
        lines.append("  ".join(shown_cells).rstrip())
    return "\n".join([*lines, *who_is_deduced(table)])


def who_is_deduced(table: pd.DataFrame) -> list[str]:
    """A line that names the untold implications that come first; none where nobody is untold.

    Args:
        table: of `Solution.table` or `Run.table`.
    """
    untold = table[~table["told"]]
    if not len(untold):
        return []
    names = untold["subject"]
    if "relation" in untold:  # a fact has several implications, each with rows of its own
        names = names + " (" + untold["relation"] + ")"
    deduced = names[untold["rank"] == 0].tolist()
    return [f"deduced without being told: {_few(deduced, 12) or 'nobody'} ({len(deduced)} of {len(untold)})"]


def _range(low: float, high: float, text: str) -> str:
    """The margin; both ends where they are further apart than the digits shown."""
    if not high - low > 0.002:
        return text
    return f"{_rounded(low)} to {_rounded(high)}"


def _rounded(margin: float) -> str:
    text = f"{margin:.3f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _few(names: list[str], most: int = _NAMES) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return "; ".join(names[:most]) + more
