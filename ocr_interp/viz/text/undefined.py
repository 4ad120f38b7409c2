"""Numbers in texts: one that is undefined is shown as a dash, and a note below says why."""

from __future__ import annotations

import math
import re


class Numbers:
    """Formats the numbers of one text and collects the reasons of those that are undefined."""

    def __init__(self) -> None:
        self._reasons: dict[str, None] = {}

    def show(self, value: float, spec: str, why_not: str) -> str:
        """A number in a format such as "9.4f"; a dash as wide if it is NaN or infinite.

        Args:
            value: the number.
            spec: the format, with its width.
            why_not: why it is undefined if it is, a phrase for the note.
        """
        if math.isfinite(value):
            return format(value, spec)
        self._reasons[why_not] = None
        width = re.match(r"\d+", spec)
        return f"{'-':>{width.group() if width else 1}}"

    @property
    def notes(self) -> list[str]:
        """One line per reason, in the order in which they came up."""
        return [f"- : {reason}" for reason in self._reasons]
