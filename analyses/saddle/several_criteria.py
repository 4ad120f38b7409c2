"""Tasks and tolerances of the study of several implications. Written down before its runs.

What was known then: the closed form, the saddle's small program, and descent at (6, 1, 3) at t = 1e98 from
entries of 0.001: 0.783, 0.680 and 0.584 for 1, 2 and 4 implications.
"""

SOLVED = ((3, 1, 2), (2, 1, 3), (3, 2, 1), (2, 3, 1), (4, 1, 1), (3, 5, 2))
"""(n, m_train, m_test) of the full programs, each with every number of implications of IMPLIED."""

IMPLIED = (1, 2, 3, 4)
"""Numbers K of implications of a fact."""

NORM_WITHIN = 1e-5
"""Largest relative distance of the full program's norm from the closed form's."""

BETA_WITHIN = 2e-4
"""Largest distance of the full program's β from min(√(a / (K b)), 1)."""

DESCENDED = ((6, 1, 3), (4, 1, 1))
"""Tasks of gradient descent. At equal numbers one implication has β = 1, and more have less."""

STARTS = (1e-3, 1e-6)
"""Standard deviation of the entries at the start."""

SEEDS = (0, 1, 2, 3, 4)

TIME = 100.0
"""log10 of the time at which β is read."""

NEAR_SADDLE = 0.02
"""Largest distance of β from the saddle's, from entries of 1e-6, every K and seed; as for one implication."""

ALWAYS_LESS = 0.0
"""β of K + 1 implications less β of K, from entries of 1e-3, is below this in every task and seed."""
