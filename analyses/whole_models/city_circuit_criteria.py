"""Setting and criteria of the circuit from city to language by its size. Written down before any run of it.

SmolLM2-135M as it is; prompts "{name} lives in {city}. {name} speaks" of one name, FOUND_ON of the cities
with languages of their own; the donor is the prompt of the next city, the measure its language's logit
subtracted from the own one's. Scores by EAP-IG (5 points). Faithfulness is by real ablation of all other
edges, on the prompts that the circuit was found on and on as many of other cities; beside RANDOM circuits of
each kind of control at each size.

Prompt and donor differ at the city alone, so an edge counts as live if it can carry a difference from there
to the last token. (The circuit of 40 edges of `city_language`, found before that was asked, was of MLPs
alone.)
"""

from __future__ import annotations

NAME = "Anna"
FOUND_ON = 8
SIZES = (10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240, 20480)
LATER = (40960,)
"""Added when the curve had been seen up to 20480, which falls short. The sizes up to 320 were measured again:
the top edges had no path before 559 of them, and small circuits were empty; since then the shortest path that
they have is kept, and what fits beside it."""

FAITHFUL, SHARE = 0.8, 0.1
"""Some circuit with at most this share of the edges has at least this faithfulness, on the prompts that it
was found on and on the others."""

RANDOM, RANDOM_FAITHFUL = 5, 0.3
"""Random circuits of each kind as large as the smallest such circuit, and their largest mean faithfulness."""

NODE_SIZES = (5, 10, 20, 40, 60, 80, 120, 160, 240)
"""Circuits of so many heads and MLPs of 300, with all edges among them, ranked by the sums of their edges'
scores. Added after edges had fallen short; a probe on all 20 cities of NAME had been seen before (40 carried
0.73, 60 0.85, three random sets of 40 at most 0.03), so other cities and OTHER_NAME are the test."""

OTHER_NAME = "Peter"
"""Circuits of nodes are also measured on the other cities with this name."""

NODES_FAITHFUL, MOST_NODES = 0.8, 60
"""Some circuit of at most MOST_NODES heads and MLPs has at least this faithfulness: on the prompts that it
was found on, on other cities, and on these with another name."""

NODES_RANDOM, NODES_RANDOM_FAITHFUL = 10, 0.3
"""Random sets of as many heads and as many MLPs as the smallest such circuit, and their largest mean."""
