"""A record is a subject with an object, and perhaps the relation between them and its template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ocr_interp.llm.facts.formats.base import Format, Statement, wording
from ocr_interp.llm.facts.reading import Records, text_of


class Pairs(Format):
    """The relation is that of column `relation`, else the file's name."""

    optional: ClassVar[tuple[str, ...]] = ("relation", "template")

    def read(
        self, place: str, values: Mapping[str, Any], records: Records, language: str
    ) -> Iterator[Statement]:
        """One fact; a column `template` brings its wording."""
        relation = text_of(place, "relation", values) if "relation" in values else records.path.stem
        own = (wording(place, values["template"]),) if values.get("template") else ()
        yield Statement(
            place, relation, text_of(place, "subject", values), text_of(place, "object", values), own
        )


FORMAT = Pairs("pairs", ("subject", "object"), "one relation, or several named by a column relation")
