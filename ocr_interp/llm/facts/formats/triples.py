"""Our own: a record is a subject with its fact and its implication."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ocr_interp.llm.facts.formats.base import Format, Statement
from ocr_interp.llm.facts.reading import Records, text_of


class Triples(Format):
    """Two relations, "fact" and "implication"."""

    def read(
        self, place: str, values: Mapping[str, Any], records: Records, language: str
    ) -> Iterator[Statement]:
        """One fact and one implication."""
        subject = text_of(place, "subject", values)
        for relation in ("fact", "implication"):
            yield Statement(place, relation, subject, text_of(place, relation, values))


FORMAT = Triples("triples", ("subject", "fact", "implication"), "one row a subject", allows_repeats=False)
