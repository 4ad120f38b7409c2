"""People, their profession and where such people work: a causal implication of Profession-Color's facts.

With the same seed it draws the same professions, names and told names as Profession-Color, so that both
implications can be taught of the same people.
"""

from __future__ import annotations

from ocr_interp.llm.facts.names import words
from ocr_interp.llm.facts.sets import profession_color
from ocr_interp.llm.facts.sets.base import FactPool

FACTS = FactPool(
    name="profession_workplace",
    title="Profession-Workplace (causal)",
    colour="#d55e00",
    pairing="causal",
    facts=profession_color.FACTS.facts,
    implications=words(
        """
        hospital office farm cockpit kitchen clinic school workshop court shop desk studio
        stage barracks ship library
        """
    ),
    fact_templates=profession_color.FACTS.fact_templates,
    implication_templates=(
        "{subject} spends most days at the",
        "{subject} can be found at the",
        "The workplace of {subject} is the",
        "You can meet {subject} at the",
    ),
)
