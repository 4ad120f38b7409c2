"""Setting and criteria of which heads and MLPs suffice, at the city and after it. Written before any run.

Models, prompts, donors and measure are those of `carriers_criteria`. There a few nodes were patched with the
donor's and all others computed anew: what is lost without them. Here it is the other way round: a few are
computed anew and all others patched, at the city, at all positions after it, or at both. A share is what is
kept of what is lost when the whole prompt is the donor. Nodes are kept in the order of what they lose alone
at that place, on the prompts of another name.

Why: no small circuit of edges carries the city to its language (`city_circuit`), but ten nodes after the
city lose all of it. If the ten also suffice and the city's own column needs many, an edge circuit must be
large because of that column: what the city is, is computed by many nodes at once, and moved by few.
"""

from __future__ import annotations

KEPT = (1, 2, 5, 10, 20, 30, 40, 80, 160, 300)
"""Numbers of nodes that are kept at a place, of 300."""

FEW, SUFFICIENT = 10, 0.5
"""So many nodes after the city keep at least this share, before and after fine-tuning, with the city's column
as it is."""

MANY, INSUFFICIENT = 30, 0.5
"""So many nodes at the city keep at most this share, before and after, with all positions after it as they
are."""

DRAWS, RANDOM = 10, 0.25
"""Random sets of FEW nodes after the city, drawn as in `carriers_criteria`; each keeps at most this share."""
SEED = 1
"""Of the random sets."""
