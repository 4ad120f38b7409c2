"""Cities with what goes with them, from the JSON of the study of extractive structures.

Its list of objects has keys such as city, language, landmark, country. As there, people are made up and live
in a city; what is true of the city is the implication. Any list of objects, or table, whose rows belong to
their facts (one row a city) is read in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.facts.formats.base import gather
from ocr_interp.llm.facts.reading import read_records, text_of
from ocr_interp.llm.facts.sets.base import FactPool, FactSource, Request

_FACT, _IMPLICATION = "city", "language"
_TEMPLATES = {
    "city": ("{subject} lives in", "The home of {subject} is in"),
    "country": ("{subject} is a citizen of", "The home country of {subject} is"),
    "language": ("The people in the city {subject} is from speak", "{subject} speaks"),
    "landmark": ("{subject} lives near the", "From the window {subject} can see the"),
    "capital": ("{subject} pays taxes to the government in",),
}


@dataclass(frozen=True, kw_only=True)
class ExtractiveFacts(FactSource):
    """Made-up people in the cities of `FactConfig.file`, each with the city's language or another key."""

    needs_file: ClassVar[bool] = True

    def draw(self, config: Request) -> FactSet:
        """Draws cities, and names for them."""
        return self.pool(config).draw(config)

    def pool(self, config: Request) -> FactPool:
        """The file's pairs; of rows that share an answer, such as two cities of one language, the first.

        Raises:
            ConfigError: a key that is not there; the message lists those that are, or the line.
        """
        keys = []
        records = read_records(config.required_file)
        if "told" in records.columns:
            raise ConfigError(
                f"{records.place}: there is a column told, and data='extractive_structures' makes up its "
                "people and draws who is told: take data='file', or remove the column"
            )
        for field, own in (("fact_property", _FACT), ("implication_property", _IMPLICATION)):
            asked = getattr(config, field)
            keys.append(own if asked in ("", getattr(type(config), field)) else asked)
            if keys[-1] not in records.columns:
                raise ConfigError(
                    f"{records.place}: there is no key {keys[-1]!r} ({field}), it has "
                    f"{', '.join(map(repr, records.columns)) or 'none'}"
                )
        pairs: dict[str, str] = {}
        taken: set[str] = set()

        def add(place: str, values: Request) -> None:
            fact, implication = (text_of(place, key, values) for key in keys)
            if fact not in pairs and implication not in taken:
                pairs[fact] = implication
                taken.add(implication)

        gather((lambda place=place, values=values: add(place, values)) for place, values in records.rows)
        return FactPool(
            name=self.name,
            title=self.title,
            colour=self.colour,
            pairing="causal",
            facts=tuple(pairs),
            implications=tuple(pairs.values()),
            fact_templates=_wordings(keys[0]),
            implication_templates=_wordings(keys[1]),
        )


def _wordings(key: str) -> tuple[str, ...]:
    """Wordings of a key; a generic one if this module has none for it."""
    shown = key.replace("{", "{{").replace("}", "}}").replace("_", " ")
    return _TEMPLATES.get(key, (f"The {shown} of {{subject}} is",))


FACTS = ExtractiveFacts(
    name="extractive_structures", title="Extractive structures", colour="#fbafe4", pairing="causal"
)
