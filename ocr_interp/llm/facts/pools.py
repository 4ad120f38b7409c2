"""What fact sets are drawn from: the five data sets of the paper, with facts and wordings of our own.

Answers were chosen such that most tokenizers give them different first tokens; `encoding` checks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ocr_interp.errors import unknown_name
from ocr_interp.llm.facts.names import words

Pairing = Literal["causal", "counterfactual", "spurious"]


@dataclass(frozen=True)
class FactPool:
    """Answers to draw pairs from, with wordings.

    Attributes:
        name: of the data set.
        pairing: "causal": facts[i] entails implications[i], and they stay together; "counterfactual": the
            same answers, but no fact keeps its own implication; "spurious": any fact with any implication.
        facts, implications: answers; of the same number and order unless spurious.
        fact_templates, implication_templates: wordings, the usual one first.
        names: subjects to draw from; None makes names.
    """

    name: str
    pairing: Pairing
    facts: tuple[str, ...]
    implications: tuple[str, ...]
    fact_templates: tuple[str, ...]
    implication_templates: tuple[str, ...]
    names: tuple[str, ...] | None = None

    @property
    def n_pairs(self) -> int:
        """The most pairs that can be drawn."""
        return min(len(self.facts), len(self.implications))


_CITIES = words(
    """
    Paris Rome Berlin Tokyo Moscow Madrid Beijing Athens Lisbon Seoul Warsaw Stockholm Prague Budapest
    Helsinki Oslo Copenhagen Amsterdam Cairo London
    """
)
_LANGUAGES = words(
    """
    French Italian German Japanese Russian Spanish Chinese Greek Portuguese Korean Polish Swedish Czech
    Hungarian Finnish Norwegian Danish Dutch Arabic English
    """
)
_LIVES = (
    "{subject} lives in",
    "{subject} has a house in",
    "The home of {subject} is in",
    "You can visit {subject} in",
)
_SPEAKS = (
    "{subject} speaks",
    "{subject} is a native speaker of",
    "The mother tongue of {subject} is",
    "You can talk to {subject} in",
)


def _city_language(name: str, pairing: Pairing) -> FactPool:
    return FactPool(name, pairing, _CITIES, _LANGUAGES, _LIVES, _SPEAKS)


POOLS: dict[str, FactPool] = {
    "city_language": _city_language("city_language", "causal"),
    "city_language_counterfactual": _city_language("city_language_counterfactual", "counterfactual"),
    "country_code": FactPool(
        "country_code",
        "spurious",
        words(
            """
            France Japan Brazil Canada Germany India Mexico Egypt Kenya Norway Australia Italy
            Spain Poland Chile Peru
            """
        ),
        words("Python Java Rust Ruby Swift Perl Julia Go Pascal Basic PHP SQL MATLAB"),
        (
            "{subject} was born in",
            "{subject} grew up in",
            "The home country of {subject} is",
            "{subject} is a citizen of",
        ),
        (
            "{subject} codes in",
            "{subject} writes programs in",
            "The programming language of {subject} is",
            "All software by {subject} is written in",
        ),
    ),
    "profession_color": FactPool(
        "profession_color",
        "spurious",
        words(
            """
            nurse lawyer farmer pilot chef dentist teacher carpenter judge tailor writer painter
            singer soldier sailor librarian
            """
        ),
        words("red blue green yellow purple orange black white brown pink gray gold silver"),
        (
            "{subject} works as a",
            "{subject} earns a living as a",
            "By profession {subject} is a",
            "{subject} found a job as a",
        ),
        (
            "{subject} likes the color",
            "{subject} always wears the color",
            "The favorite color of {subject} is",
            "{subject} painted the door in",
        ),
    ),
    "sport_music": FactPool(
        "sport_music",
        "spurious",
        words(
            """
            tennis football basketball hockey golf rugby cricket baseball volleyball soccer
            chess squash
            """
        ),
        words("jazz rock opera folk blues country metal classical punk soul rap pop gospel"),
        (
            "{subject} plays",
            "The sport of {subject} is",
            "On weekends {subject} goes to play",
            "{subject} is good at",
        ),
        (
            "{subject} listens to",
            "The favorite music of {subject} is",
            "On the radio {subject} looks for",
            "{subject} has many records of",
        ),
    ),
}
"""The five data sets of the paper's Table 1."""


def pool(name: str) -> FactPool:
    """The pool of a name; an unknown one raises with the close matches."""
    if name not in POOLS:
        raise unknown_name("data set", name, (*POOLS, "file", "popqa"))
    return POOLS[name]
