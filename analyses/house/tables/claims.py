"""Selections from tables of runs, in the form that claims store."""

from __future__ import annotations

from typing import Any

Table = Any
"""A DataFrame; typed as Any because pandas' annotations lose the types of columns in expressions."""


def numbers(values: Any) -> list[float]:
    """Rounded, without NaN."""
    return [round(float(v), 5) for v in values.dropna()]


def span(values: Any) -> list[float]:
    """Smallest and largest, rounded."""
    return [round(float(values.min()), 5), round(float(values.max()), 5)]


def of(table: Table, ov: str) -> Table:
    """The runs of one kind of model."""
    return table.loc[table["ov"] == ov]
