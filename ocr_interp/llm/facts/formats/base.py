"""The interface of a format: which files it fits, and which facts a file holds. Imports no torch."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.reading import Records
from ocr_interp.llm.facts.spelling import listed


@dataclass(frozen=True)
class Statement:
    """One fact of a file.

    Attributes:
        place: where it stands, e.g. "facts.csv, line 7".
        relation: what is said of the subject.
        subject, answer: of whom, and what.
        wordings: prompts that the file brings for it, each with "{subject}".
        told: whether the file says that it is in the training set; None if it does not say.
    """

    place: str
    relation: str
    subject: str
    answer: str
    wordings: tuple[str, ...] = ()
    told: bool | None = None


@dataclass(frozen=True)
class Format(ABC):
    """One format. A new one is a module in this folder with a constant FORMAT.

    Attributes:
        name: equals the name of its module.
        keys: the columns or keys that every record has.
        says: in a few words, what it is, for messages.
        allows_repeats: whether one statement may stand twice in a file.
        has_languages: whether a file can hold the same facts in several languages.
        optional: further columns that it reads where they are there.
        reads_told: whether a column told says which implications are told; elsewhere it is refused.
    """

    name: str
    keys: tuple[str, ...]
    says: str
    allows_repeats: bool = True
    has_languages: ClassVar[bool] = False
    optional: ClassVar[tuple[str, ...]] = ()
    reads_told: ClassVar[bool] = False

    def fits(self, columns: Iterable[str], language: str) -> bool:
        """Whether a file with these columns or keys has this format."""
        del language
        return set(self.keys) <= set(columns)

    def statements(self, records: Records, language: str) -> tuple[Statement, ...]:
        """All facts of a file.

        Raises:
            ConfigError: what is missing or is no text; the message gives the lines of all.
        """
        found: list[Statement] = []
        gather(
            (lambda place=place, values=values: found.extend(self.read(place, values, records, language)))
            for place, values in records.rows
        )
        return tuple(found)

    @abstractmethod
    def read(
        self, place: str, values: Mapping[str, Any], records: Records, language: str
    ) -> Iterator[Statement]:
        """The facts of one record.

        Raises:
            ConfigError: what is missing or is no text; the message gives the place.
        """


def gather(tasks: Iterable[Callable[[], Any]]) -> None:
    """Does all tasks, and raises what they refused as one ConfigError."""
    refused = []
    for task in tasks:
        try:
            task()
        except ConfigError as error:
            refused.append(str(error))
    if refused:
        raise ConfigError(listed(refused))


def wording(place: str, template: object) -> str:
    """A template with "{}" for the subject as a wording with "{subject}".

    Raises:
        ConfigError: no text, or none with one "{}".
    """
    if not isinstance(template, str) or template.count("{}") != 1:
        raise ConfigError(f'{place}: a template must be a text with one "{{}}", got {template!r:.80}')
    before, after = (re.sub(r"([{}])", r"\1\1", part) for part in template.split("{}"))
    return f"{before}{{subject}}{after}".rstrip()
