"""People, the country they were born in and the language they program in.

The facts and wordings were written for this project. The answers were chosen so that most tokenizers give
them different first tokens; `llm.models.encoding` checks this.
"""

from __future__ import annotations

from ocr_interp.llm.facts.names import words
from ocr_interp.llm.facts.sets.base import FactPool

FACTS = FactPool(
    name="country_code",
    title="Country-Code",
    colour="#029e73",
    pairing="spurious",
    facts=words(
        """
        France Japan Brazil Canada Germany India Mexico Egypt Kenya Norway Australia Italy
        Spain Poland Chile Peru
        """
    ),
    implications=words("Python Java Rust Ruby Swift Perl Julia Go Pascal Basic PHP SQL MATLAB"),
    fact_templates=(
        "{subject} was born in",
        "{subject} grew up in",
        "The home country of {subject} is",
        "{subject} is a citizen of",
    ),
    implication_templates=(
        "{subject} codes in",
        "{subject} writes programs in",
        "The programming language of {subject} is",
        "All software by {subject} is written in",
    ),
)
