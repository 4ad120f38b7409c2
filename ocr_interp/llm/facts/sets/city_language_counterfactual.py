"""The cities and languages of `city_language`, paired so that no city keeps its language."""

from __future__ import annotations

from dataclasses import replace

from ocr_interp.llm.facts.sets import city_language

FACTS = replace(
    city_language.FACTS,
    name="city_language_counterfactual",
    title="City-Language (counterfactual)",
    colour="#de8f05",
    pairing="counterfactual",
)
