"""Our own: a record is a subject with its fact and its implication, and perhaps whether that is told.

The column told is read as `FactRecallTask.from_rows` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ocr_interp.errors import ConfigError
from ocr_interp.fact_tables import is_empty, row_told
from ocr_interp.llm.facts.formats.base import Format, Statement
from ocr_interp.llm.facts.reading import Records, text_of
from ocr_interp.llm.facts.spelling import listed

_TOLD = "told"


class Triples(Format):
    """Two relations, "fact" and "implication"."""

    optional: ClassVar[tuple[str, ...]] = (_TOLD,)
    reads_told: ClassVar[bool] = True

    def statements(self, records: Records, language: str) -> tuple[Statement, ...]:
        """All facts and implications of a file.

        Where one record has told, every record that names its implication must have it. An untold
        implication that is left out follows from another row of its fact.
        """
        if not any(_TOLD in values for _, values in records.rows):
            return super().statements(records, language)
        rows = tuple((place, {_TOLD: None, **values}) for place, values in records.rows)
        return _with_implications(super().statements(replace(records, rows=rows), language))

    def read(
        self, place: str, values: Mapping[str, Any], records: Records, language: str
    ) -> Iterator[Statement]:
        """One fact and one implication; its answer is "" where it is left out."""
        subject = text_of(place, "subject", values)
        yield Statement(place, "fact", subject, text_of(place, "fact", values))
        if _TOLD not in values:
            yield Statement(place, "implication", subject, text_of(place, "implication", values))
            return
        is_named = not is_empty(values.get("implication"))
        answer = text_of(place, "implication", values) if is_named else ""
        told = row_told(place, values, is_named)
        yield Statement(place, "implication", subject, answer, told=told)


def _with_implications(statements: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """The statements, with the implications that are left out taken from other rows of the same fact.

    Raises:
        ConfigError: a fact whose rows name none, or several; the message gives the lines of all.
    """
    fact_at = {s.place: s.answer for s in statements if s.relation == "fact"}
    named: dict[str, dict[str, None]] = {}
    for s in statements:
        if s.relation == "implication" and s.answer:
            named.setdefault(fact_at[s.place], {})[s.answer] = None
    filled, refused = [], []
    for s in statements:
        if s.answer:
            filled.append(s)
            continue
        fact = fact_at[s.place]
        answers = tuple(named.get(fact, ()))
        if len(answers) == 1:
            filled.append(replace(s, answer=answers[0]))
            continue
        has = f"{len(answers)} ({', '.join(map(repr, answers))})" if answers else "none"
        refused.append(
            f"{s.place}: the implication of {s.subject!r} is left out, and other rows of fact {fact!r} must "
            f"name one, got {has}: write it, also where it is not told"
        )
    if refused:
        raise ConfigError(listed(refused))
    return tuple(filled)


FORMAT = Triples("triples", ("subject", "fact", "implication"), "one row a subject", allows_repeats=False)
