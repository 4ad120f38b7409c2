"""Setting and criteria of the circuit from city to language in SmolLM2-135M. Written down before any run.

Prompts name the city: "{name} lives in {city}. {name} speaks", over all pairs of the data set city_language
whose city is one token, and NAMES. The measure is the logit of the pair's language (its first token) minus
the mean logit of the other languages. The model is read before and after LoRA on city_language (seed 0, the
recipe of analyses.llm.table_1, which tells facts and implications of made-up names and never both in one
prompt). Parts are all heads and MLPs, 300 in all. They are ordered by |mean direct contribution|.

No criterion is about the circuit of 40 edges. It was to be found on all prompts of one name, which took too
much memory, and is found on 8. It turned out to be of MLPs alone: without attention nothing of the city
reaches the last token, where all prompts are alike, so that its faithfulness is 0 by construction. (Since
then such edges do not count; `city_circuit` measures circuits by size.)
"""

from __future__ import annotations

NAMES = ("Anna", "John", "Maria", "Peter")

TOP = 10
SHARED = 5
"""The first TOP parts before and after share at least so many; random choices share 0.33 on average."""

CORRELATION = 0.5
"""Least Spearman correlation of the contributions of all parts before and after; of random orders 0."""

DRAWS = 5
"""Random sets of heads, each with as many heads of every layer as the TOP heads have: of its other heads, or
of all where more than half are among the TOP. (The latter was added when a first run stopped there; it had
computed contributions and printed none.)"""

RATIO = 2.0
"""Without the TOP heads by direct contribution (z set to zero at all positions) the measure falls by at least
RATIO times as much as without any of the random sets, before and after."""

SEED = 0
