"""Real names from a file with PopQA's columns; two properties are paired at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.fact_set import FactSet, answer_in
from ocr_interp.llm.facts.reading import read_records, text_cell
from ocr_interp.llm.facts.sets.base import FactPool, FactSource, Request

_TEMPLATES = {
    "place of birth": ("{subject} was born in", "The birthplace of {subject} is"),
    "sport": ("{subject} plays", "The sport of {subject} is"),
    "occupation": ("{subject} works as a", "The occupation of {subject} is"),
    "religion": ("The religion of {subject} is", "{subject} believes in"),
}


@dataclass(frozen=True, kw_only=True)
class PopQAFacts(FactSource):
    """Names and answers of `FactConfig.file`; as the paper did, pairs are drawn at random."""

    needs_file: ClassVar[bool] = True

    def draw(self, config: Request) -> FactSet:
        """Draws a fact set from the names and answers of the file."""
        return self.pool(config).draw(config)

    def pool(self, config: Request) -> FactPool:
        """Names and answers from a file that has at least PopQA's columns subj, prop and obj.

        Raises:
            ConfigError: a missing column, or a property without rows; the message lists the properties.
        """
        records = list(read_records(config.required_file, ("subj", "prop", "obj")))
        answers: dict[str, dict[str, None]] = {}
        names: dict[str, None] = {}
        for place, values in records:
            subject, prop, answer = (
                text_cell(place, column, values.get(column)) for column in ("subj", "prop", "obj")
            )
            answers.setdefault(prop, {})[answer] = None
            if prop in (config.fact_property, config.implication_property):
                names[subject] = None
        for field in ("fact_property", "implication_property"):
            if getattr(config, field) not in answers:
                raise ConfigError(
                    f"{config.file} has no rows with prop {getattr(config, field)!r} ({field}), it has "
                    f"{', '.join(map(repr, sorted(answers))) or 'none'}"
                )
        facts = tuple(answers[config.fact_property])
        implications = tuple(answers[config.implication_property])
        return FactPool(
            name=self.name,
            title=self.title,
            colour=self.colour,
            pairing=self.pairing,
            facts=facts,
            implications=implications,
            fact_templates=_wordings(config.fact_property),
            implication_templates=_wordings(config.implication_property),
            names=tuple(name for name in names if answer_in(name, (*facts, *implications)) is None),
        )


def _wordings(prop: str) -> tuple[str, ...]:
    """Wordings of a property; generic ones if this module has none for it."""
    return _TEMPLATES.get(prop, (f"{{subject}}: {prop} is",))


FACTS = PopQAFacts(name="popqa", title="PopQA", colour="#56b4e9", pairing="spurious")
