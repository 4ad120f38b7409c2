"""People, their profession and the color they like.

The facts and wordings were written for this project. The answers were chosen so that most tokenizers give
them different first tokens; `llm.models.encoding` checks this.
"""

from __future__ import annotations

from ocr_interp.llm.facts.names import words
from ocr_interp.llm.facts.sets.base import FactPool

FACTS = FactPool(
    name="profession_color",
    title="Profession-Color",
    colour="#cc78bc",
    pairing="spurious",
    facts=words(
        """
        nurse lawyer farmer pilot chef dentist teacher carpenter judge tailor writer painter
        singer soldier sailor librarian
        """
    ),
    implications=words("red blue green yellow purple orange black white brown pink gray gold silver"),
    fact_templates=(
        "{subject} works as a",
        "{subject} earns a living as a",
        "By profession {subject} is a",
        "{subject} found a job as a",
    ),
    implication_templates=(
        "{subject} likes the color",
        "{subject} always wears the color",
        "The favorite color of {subject} is",
        "{subject} painted the door in",
    ),
)
