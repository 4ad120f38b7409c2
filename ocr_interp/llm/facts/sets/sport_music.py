"""People, the sport they play and the music they listen to.

The facts and wordings were written for this project. The answers were chosen so that most tokenizers give
them different first tokens; `llm.models.encoding` checks this.
"""

from __future__ import annotations

from ocr_interp.llm.facts.names import words
from ocr_interp.llm.facts.sets.base import FactPool

FACTS = FactPool(
    name="sport_music",
    title="Sport-Music",
    colour="#ca9161",
    pairing="spurious",
    facts=words(
        """
        tennis football basketball hockey golf rugby cricket baseball volleyball soccer
        chess squash
        """
    ),
    implications=words("jazz rock opera folk blues country metal classical punk soul rap pop gospel"),
    fact_templates=(
        "{subject} plays",
        "The sport of {subject} is",
        "On weekends {subject} goes to play",
        "{subject} is good at",
    ),
    implication_templates=(
        "{subject} listens to",
        "The favorite music of {subject} is",
        "On the radio {subject} looks for",
        "{subject} has many records of",
    ),
)
