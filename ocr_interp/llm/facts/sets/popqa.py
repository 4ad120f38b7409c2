"""Real names from a file with PopQA's columns; two properties are paired at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.facts.relations import read_relations
from ocr_interp.llm.facts.sets.base import FactPool, FactSource, Request
from ocr_interp.llm.facts.spelling import AnswerFinder, alike, listed, shown_apart

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
    has_languages: ClassVar[bool] = True

    def draw(self, config: Request) -> FactSet:
        """Draws a fact set from the names and answers of the file."""
        return self.pool(config).draw(config)

    def pool(self, config: Request) -> FactPool:
        """Names and answers from a file that has at least PopQA's columns subj, prop and obj.

        Left out are names that hold an answer, and names that read like an earlier one.

        Raises:
            ConfigError: another format, or a property without rows; the message lists the properties.
        """
        found = read_relations(config.required_file, config.language)
        if found.says_told:
            raise ConfigError(
                f"{config.file} has a column told, and data='popqa' draws its own names and pairs: take "
                "data='file', or remove the column"
            )
        both = [found.named(f, getattr(config, f)) for f in ("fact_property", "implication_property")]
        facts, implications = (tuple(dict.fromkeys(s.answer for s in own)) for own in both)
        chosen = {config.fact_property, config.implication_property}
        names = dict.fromkeys(
            statement.subject
            for own in found.relations.values()
            for statement in own
            if statement.relation in chosen
        )
        for field, texts in (("fact_property", facts), ("implication_property", implications)):
            if groups := alike(texts):
                raise ConfigError(
                    f"{config.file}: the answers of {getattr(config, field)!r} ({field}) must be distinct, "
                    f"got {listed(list(map(shown_apart, groups)))}, which read alike: write both alike"
                )
        spelled_again = {again for _, *others in alike(names) for again in others}
        finder = AnswerFinder((*facts, *implications))
        return FactPool(
            name=self.name,
            title=self.title,
            colour=self.colour,
            pairing=self.pairing,
            facts=facts,
            implications=implications,
            fact_templates=_wordings(config.fact_property, config.language),
            implication_templates=_wordings(config.implication_property, config.language),
            names=tuple(n for n in names if n not in spelled_again and finder.first_in(n) is None),
        )


def _wordings(prop: str, language: str) -> tuple[str, ...]:
    """Wordings of a property; generic ones, without a verb, if this module has none for it."""
    shown = prop.replace("{", "{{").replace("}", "}}")
    if language not in ("", "en"):
        return (f"{{subject}}, {shown}:",)
    return _TEMPLATES.get(prop, (f"{{subject}}: {shown} is",))


FACTS = PopQAFacts(name="popqa", title="PopQA", colour="#56b4e9", pairing="spurious")
