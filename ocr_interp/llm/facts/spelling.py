"""How names and answers are compared: a normal form, the words of any script, and where no blank stands.

Two spellings that a reader takes for one (composed and decomposed accents, a no-break space, an invisible
character, capitals, full-width letters) have one normal form. Imports no torch.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")
"""Letters and marks that show nothing: joiners, fillers of Hangul, Khmer and Mongolian selectors."""

_ZERO_WIDTH_AS_BLANK: dict[int, str] = dict.fromkeys((0x200B, 0x2060, 0xFEFF, 0x200C, 0x200D), " ")

_WITHOUT_BLANKS = (
    "CJK",
    "IDEOGRAPHIC",
    "HIRAGANA",
    "KATAKANA",
    "HALFWIDTH KATAKANA",
    "FULLWIDTH",
    "BOPOMOFO",
    "YI ",
    "THAI",
    "LAO",
    "KHMER",
    "MYANMAR",
    "TIBETAN",
    "JAVANESE",
    "BALINESE",
    "TAI ",
    "NEW TAI",
    "LEFT CORNER BRACKET",
    "LEFT WHITE CORNER BRACKET",
    "RIGHT CORNER BRACKET",
    "RIGHT WHITE CORNER BRACKET",
)
"""How the Unicode names of characters begin whose scripts put no blank between words."""


def normal_form(text: str) -> str:
    """The form in which texts are compared: NFKC, no capitals, nothing invisible, single blanks.

    >>> normal_form("Jose\\u0301\\u00a0\\u200bdi  Roma") == normal_form("JOS\\u00c9 di Roma")
    True
    """
    if text.isascii():
        return " ".join(text.casefold().split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join("".join(c for c in folded if not _is_invisible(c)).split())


def _is_invisible(character: str) -> bool:
    if (
        character in _INVISIBLE
        or "\ufe00" <= character <= "\ufe0f"
        or "\U000e0100" <= character <= "\U000e01ef"
    ):
        return True  # variation selectors
    return unicodedata.category(character) == "Cf"  # zero-width blanks, joiners, direction marks


def words(text: str) -> tuple[str, ...]:
    """The words of a text in its normal form: letters, digits and the marks that belong to them."""
    normal, found, start = normal_form(text), [], None
    for place, character in enumerate(normal + " "):
        inside = character == "_" or unicodedata.category(character)[0] in "LNM"
        if inside and start is None:
            start = place
        elif not inside and start is not None:
            found.append(normal[start:place])
            start = None
    return tuple(found)


def is_without_blanks(character: str) -> bool:
    """Whether a character belongs to a script that puts no blank between words, or to its punctuation."""
    return not character.isascii() and unicodedata.name(character, "").startswith(_WITHOUT_BLANKS)


def separator(before: str, after: str) -> str:
    """What stands between a prompt and its answer: a blank, or nothing where the script has none.

    >>> separator("Ada lives in", "Rome"), separator("\u30a8\u30a4\u30c0\u306f", "\u6771\u4eac")
    (' ', '')
    """
    if not before or not after or before[-1].isspace():
        return ""
    return "" if is_without_blanks(_last_letter(before)) or is_without_blanks(after[0]) else " "


def _last_letter(text: str) -> str:
    """The last character that is no mark: Thai vowels stand above their consonant."""
    return next((c for c in reversed(text) if unicodedata.category(c)[0] != "M"), text[-1])


def alike(texts: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of texts that read alike, each with every spelling in the order of the texts.

    A zero-width blank stands for a blank or for nothing: both readings are compared.
    """
    groups: dict[str, list[str]] = {}
    for text in texts:
        readings = (normal_form(text), normal_form(text.translate(_ZERO_WIDTH_AS_BLANK)))
        group = next((groups[reading] for reading in readings if reading in groups), [])
        group.append(text)
        for reading in readings:
            groups.setdefault(reading, group)
    return [tuple(group) for group in {id(g): g for g in groups.values()}.values() if len(group) > 1]


def shown_apart(group: Sequence[str]) -> str:
    """The spellings of a group of `alike`, so that a reader sees in what they differ."""
    distinct = dict.fromkeys(group)
    if len(distinct) == 1:
        return f"{group[0]!r} {len(group)} times"
    seen = {unicodedata.normalize("NFC", text) for text in distinct}
    write = ascii if len(seen) < len(distinct) or not all(map(str.isprintable, distinct)) else repr
    return " and ".join(write(text) for text in distinct)


class AnswerFinder:
    """Finds answers in names and wordings, in time linear in the texts, whatever the number of answers.

    An answer counts where it stands as whole words; one that begins or ends in a script without blanks, or
    that has neither letter nor digit ("++"), wherever it stands.
    """

    def __init__(self, answers: Iterable[str]) -> None:
        self._by_words: dict[tuple[str, ...], str] = {}
        self._anywhere: dict[str, str] = {}
        for answer in answers:
            found, normal = words(answer), normal_form(answer)
            if found:
                self._by_words.setdefault(found, answer)
            if not found or any(map(is_without_blanks, normal)):
                self._anywhere.setdefault(normal, answer)
        self._word_lengths = sorted({len(key) for key in self._by_words})
        self._lengths = sorted({len(key) for key in self._anywhere})

    def first_in(self, text: str) -> str | None:
        """An answer that the text names; None if it names none."""
        return next(self._found_in(text), None)

    def _found_in(self, text: str) -> Iterator[str]:
        parts = words(text)
        for length in self._word_lengths:
            for start in range(len(parts) - length + 1):
                if (answer := self._by_words.get(parts[start : start + length])) is not None:
                    yield answer
        normal = normal_form(text) if self._lengths else ""
        for length in self._lengths:
            for start in range(len(normal) - length + 1):
                if (answer := self._anywhere.get(normal[start : start + length])) is not None:
                    yield answer


MOST_SHOWN = 12
"""How many offenders a message names before it counts the rest."""


def listed(problems: Sequence[str]) -> str:
    """All problems in one text; beyond MOST_SHOWN their number."""
    shown, more = problems[:MOST_SHOWN], len(problems) - MOST_SHOWN
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")
