"""Setting and criteria of what carries city to language in SmolLM2-135M, by patching. Written before any run.

Prompts, cities and names are those of `city_language_criteria`, and so are both models. A donor of a prompt
names the next city of the list instead, so that prompt and donor differ in one token. What a head or an MLP
writes is replaced by what it writes for the donor, at the city or at all positions after it. The measure is
the logit of the prompt's language minus that of the donor's (their first tokens), mean over prompts; a share
is the part lost of what is lost when the whole prompt is the donor.

The study before this one (`city_language`) read direct contributions and set heads to zero, which is far from
anything that the model has seen: random heads of the same layers then cost almost as much. Donors change
nothing but the city.
"""

from __future__ import annotations

CHOSEN_ON = ("Anna",)
"""Names on whose prompts every head and MLP is patched by itself, and the carriers are chosen."""

TESTED_ON = ("John", "Maria", "Peter")
"""Names on whose prompts the carriers are patched together."""

TOP = 10
"""Carriers: the heads and MLPs with the largest share lost when they are patched after the city."""

LOST = 0.5
"""The TOP, patched together after the city, lose at least this share, before and after fine-tuning."""

DRAWS = 10
"""Random sets, each with as many heads and as many MLPs of every layer as the TOP have, of the others in that
layer where these are enough, else of all (of MLPs, one a layer, those of the nearest layer that has no
carrier)."""

RATIO = 4.0
"""The TOP lose at least RATIO times as much as any random set, before and after."""

SHARED = 5
"""At least so many of the TOP are the same before and after; of random choices 0.33 on average."""

SEED = 0
"""Of the random sets."""
