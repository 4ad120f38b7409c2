"""Parts of tables of runs, as claims show them."""

from __future__ import annotations

from typing import Any

Table = Any
"""A DataFrame; pandas' annotations lose track of what columns are in comparisons and sums."""


def numbers(values: Any) -> list[float]:
    """Rounded, without NaN."""
    return [round(float(v), 5) for v in values.dropna()]


def span(values: Any) -> list[float]:
    """Smallest and largest, rounded."""
    return [round(float(values.min()), 5), round(float(values.max()), 5)]


def of(table: Table, ov: str) -> Table:
    """The runs of one kind of model."""
    return table.loc[table["ov"] == ov]
