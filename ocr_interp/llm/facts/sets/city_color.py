"""People, the city they live in and the color they like: a spurious implication of City-Language's facts.

With the same seed it draws the same cities, names and told names as City-Language, so that both implications
can be taught of the same people.
"""

from __future__ import annotations

from ocr_interp.llm.facts.sets import city_language, profession_color
from ocr_interp.llm.facts.sets.base import FactPool

FACTS = FactPool(
    name="city_color",
    title="City-Color",
    colour="#ece133",
    pairing="spurious",
    facts=city_language.FACTS.facts,
    implications=profession_color.FACTS.implications,
    fact_templates=city_language.FACTS.fact_templates,
    implication_templates=profession_color.FACTS.implication_templates,
)
