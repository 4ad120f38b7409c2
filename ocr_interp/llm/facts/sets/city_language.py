"""People, the city they live in and the language spoken there: a causal set.

The facts and wordings were written for this project. The answers were chosen so that most tokenizers give
them different first tokens; `llm.models.encoding` checks this.
"""

from __future__ import annotations

from ocr_interp.llm.facts.names import words
from ocr_interp.llm.facts.sets.base import FactPool

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

FACTS = FactPool(
    name="city_language",
    title="City-Language (causal)",
    colour="#0173b2",
    pairing="causal",
    facts=_CITIES,
    implications=_LANGUAGES,
    fact_templates=_LIVES,
    implication_templates=_SPEAKS,
)
