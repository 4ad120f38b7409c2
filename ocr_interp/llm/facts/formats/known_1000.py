"""known_1000, of ROME: subjects with an attribute, in the words of a template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ocr_interp.llm.facts.formats.base import Format, Statement, wording
from ocr_interp.llm.facts.reading import Records, text_of


class Known1000(Format):
    """Relations are those of relation_id, or the template where there is none."""

    def read(
        self, place: str, values: Mapping[str, Any], records: Records, language: str
    ) -> Iterator[Statement]:
        """One fact."""
        subject, answer = text_of(place, "subject", values), text_of(place, "attribute", values)
        template = text_of(place, "template", values)
        relation = text_of(place, "relation_id", values) if values.get("relation_id") else template
        yield Statement(place, relation, subject, answer, (wording(place, template),))


FORMAT = Known1000("known_1000", ("subject", "attribute", "template"), "known_1000, by relation_id")
