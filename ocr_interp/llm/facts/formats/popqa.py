"""PopQA: subj, prop, obj, in the columns of one language of several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.formats.base import Format, Statement
from ocr_interp.llm.facts.reading import Records, checked_text, text_of

_COLUMNS = ("subj", "prop", "obj")


class PopQA(Format):
    """One relation a value of prop.

    With a language, a column is the first of subj_ru, ru_subj and subj.ru that is there, or subj itself if
    its value is an object with the key ru. The column prop need not have a language.
    """

    has_languages: ClassVar[bool] = True

    def fits(self, columns: Iterable[str], language: str) -> bool:
        """Whether the columns are there, plain or with the language."""
        columns = set(columns)
        return all(columns & {*_names(column, language), column} for column in _COLUMNS)

    def read(
        self, place: str, values: Mapping[str, Any], records: Records, language: str
    ) -> Iterator[Statement]:
        """One fact."""
        subject, prop, answer = (_text(place, column, values, language) for column in _COLUMNS)
        yield Statement(place, prop, subject, answer)


def _names(column: str, language: str) -> tuple[str, ...]:
    return (f"{column}_{language}", f"{language}_{column}", f"{column}.{language}") if language else ()


def _text(place: str, column: str, values: Mapping[str, Any], language: str) -> str:
    own = next((name for name in _names(column, language) if name in values), None)
    if own is not None:
        return text_of(place, own, values)
    value = values.get(column)
    if language and isinstance(value, dict):
        return checked_text(place, f"{column} in language {language!r}", value.get(language))
    if language and column != "prop":
        raise ConfigError(
            f"{place}: {column} in language {language!r} is missing "
            f"(as {' or '.join(_names(column, language))}); it has {', '.join(map(repr, values))}"
        )
    return text_of(place, column, values)


FORMAT = PopQA("popqa", _COLUMNS, "PopQA, with relations such as 'occupation'")
