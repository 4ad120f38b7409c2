"""Relation files of the study of linear relations (LRE): templates, and samples of subject and object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.formats.base import Format, Statement, gather, wording
from ocr_interp.llm.facts.located_json import Located
from ocr_interp.llm.facts.reading import Records, text_of


class RelationFile(Format):
    """One relation a file, or a list of them."""

    def read(
        self, place: str, values: Mapping[str, Any], records: Records, language: str
    ) -> Iterator[Statement]:
        """All samples of one relation, in the wordings of its prompt_templates."""
        relation, samples = text_of(place, "name", values), values["samples"]
        templates = values.get("prompt_templates", [])
        for key, value in (("samples", samples), ("prompt_templates", templates)):
            if not isinstance(value, list):
                raise ConfigError(f"{place}: {key} must be a list, got {value!r:.80}")
        own = tuple(wording(place, template) for template in templates)
        found: list[Statement] = []

        def add(number: int, sample: object) -> None:
            if not isinstance(sample, Located):
                raise ConfigError(f"{place}: sample {number} must be an object, got {sample!r:.80}")
            at = f"{records.path.name}, line {sample.line} (sample {number})"
            subject, answer = text_of(at, "subject", sample), text_of(at, "object", sample)
            found.append(Statement(at, relation, subject, answer, own))

        gather(
            (lambda number=number, sample=sample: add(number, sample))
            for number, sample in enumerate(samples, start=1)
        )
        yield from found


FORMAT = RelationFile("lre", ("name", "samples"), "relation files of LRE, with prompt_templates")
